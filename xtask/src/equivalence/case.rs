//! One package or set: installed by pip, built by lbx, and compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::Comparison;
use super::reason::{Facts, differences};
use super::table::{Pin, for_target};
use super::tree::{self, Tree};
use crate::{Result, process};

/// Two layers of the same packages: as they are built when nothing is said, and with all that a rule would leave out.
/// The second one shows that what rules take would have been right as well. Both have a file of their own, because a layer
/// with nothing in it is an error, and of a packaging tool nothing stays.
const CONFIG: &str = "[project]\nruntime = \"python3.11\"\n\n\
    [layers.by-default]\nrequirements = [\"pylock.toml\"]\nsource = \"own\"\n\n\
    [layers.all-kept]\nrequirements = [\"pylock.toml\"]\nsource = \"own\"\n\
    [layers.all-kept.prune]\nkeep = [\"*\"]\n";
/// The layers' own file, which pip has nothing to do with.
const OWN: &str = "lbx-own-file.txt";
/// The names of the layers.
const LAYERS: [&str; 2] = ["by-default", "all-kept"];
/// Where a layer has its packages.
const FOLDER: &str = "python/";
/// A reference that nothing answers to. Where all is locked and nothing has to be built, no image is opened.
const NO_IMAGE: &str = "127.0.0.1:1/none:1";

/// What all cases are done with.
pub(super) struct Tools<'t> {
    pub(super) lbx: PathBuf,
    /// An interpreter that has pip.
    pub(super) python: &'static str,
    /// The address of a server that has all wheels.
    pub(super) address: String,
    /// The wheels, by SHA-256.
    pub(super) wheels: BTreeMap<String, PathBuf>,
    pub(super) scratch: &'t Path,
}

/// A package, or several that are installed together.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) name: String,
    /// For what it was chosen.
    pub(super) why: String,
    pub(super) pins: Vec<Pin>,
}

impl Tools<'_> {
    fn wheel(&self, pin: &Pin) -> Result<&Path> {
        let found = self.wheels.get(&pin.sha256).map(PathBuf::as_path);
        found.ok_or_else(|| format!("no wheel of {} {} has its digest", pin.name, pin.version).into())
    }

    /// Which pip it is that installs. It is an error if it would put files where no other pip puts them.
    pub(super) fn pip(&self) -> Result<String> {
        let prefixes = ["-I", "-c", "import sys; print(sys.prefix == sys.base_prefix)"];
        if process::text(Command::new(self.python).args(prefixes))?.trim() != "True" {
            return Err(
                "python3 is that of a virtual environment, where pip has another place for headers; \
                        leave it with `deactivate`"
                    .into(),
            );
        }
        let said = process::text(Command::new(self.python).args(["-I", "-m", "pip", "--version"]))?;
        Ok(said.split(" from ").next().unwrap_or_default().to_owned())
    }
}

impl Case {
    /// Installs and builds it in a folder that is gone afterwards, and compares the trees: first what is built by
    /// default, then all.
    pub(super) fn compare(&self, tools: &Tools<'_>) -> Result<[Comparison; 2]> {
        let folder = tempfile::tempdir_in(tools.scratch)?;
        let pip = self.install(tools, &folder.path().join("pip"))?;
        let dist = self.build(tools, folder.path())?;
        let report: Value = serde_json::from_str(&fs_err::read_to_string(dist.join("report.json"))?)?;
        let [by_default, all_kept] = LAYERS.map(|layer| -> Result<Comparison> {
            let facts = Facts { left_out: left_out(&report, layer)? };
            let mut lbx = tree::of_zip(&dist.join(layer).with_extension("zip"), FOLDER)?;
            lbx.remove(OWN).ok_or_else(|| format!("{layer} does not have {OWN}"))?;
            Ok(Comparison::new(&pip, &lbx, &facts))
        });
        Ok([by_default?, all_kept?])
    }

    fn install(&self, tools: &Tools<'_>, target: &Path) -> Result<Tree> {
        let mut pip = Command::new(tools.python);
        // Neither the user's configuration nor what is installed already has a part in it.
        pip.args(["-I", "-m", "pip", "--isolated", "--disable-pip-version-check", "install", "--quiet"]);
        pip.args(["--no-deps", "--no-compile", "--no-index", "--root-user-action=ignore"]).args(for_target());
        pip.arg("--target").arg(target);
        for pin in &self.pins {
            pip.arg(tools.wheel(pin)?);
        }
        process::output(&mut pip)?;
        tree::of_folder(target)
    }

    /// Builds both layers, with a store that has nothing yet, and returns where they are.
    fn build(&self, tools: &Tools<'_>, folder: &Path) -> Result<PathBuf> {
        let project = folder.join("project");
        fs_err::create_dir_all(&project)?;
        fs_err::write(project.join("lbx.toml"), CONFIG)?;
        fs_err::write(project.join("pylock.toml"), self.lock(tools)?)?;
        fs_err::create_dir(project.join("own"))?;
        fs_err::write(project.join("own").join(OWN), "")?;
        let mut lbx = Command::new(&tools.lbx);
        // Some are larger than a layer may be.
        lbx.args(["build", "--quiet", "--no-check", "--image", NO_IMAGE]).current_dir(&project);
        lbx.env("LBX_CACHE_DIR", folder.join("cache")).env("no_proxy", "127.0.0.1");
        // An address on this machine is asked because the user names it as that of an index.
        lbx.env("PIP_INDEX_URL", format!("{}/simple", tools.address)).env_remove("PIP_FIND_LINKS");
        process::output(&mut lbx)?;
        Ok(project.join("dist"))
    }

    /// The packages and nothing else, as a lock: where requirements have hashes instead, what packages need has to stand
    /// there, too.
    fn lock(&self, tools: &Tools<'_>) -> Result<String> {
        let packages = self.pins.iter().map(|pin| -> Result<String> {
            let Pin { name, version, sha256 } = pin;
            let file = tools.wheel(pin)?.file_name().unwrap_or_default().to_string_lossy();
            let project = name.replace('.', "-");
            let url = format!("{}/files/{project}/{file}", tools.address);
            let wheel = format!("{{ name = \"{file}\", url = \"{url}\", hashes.sha256 = \"{sha256}\" }}");
            Ok(format!("[[packages]]\nname = \"{project}\"\nversion = \"{version}\"\nwheels = [{wheel}]\n"))
        });
        let packages = packages.collect::<Result<Vec<_>>>()?;
        Ok(format!("lock-version = \"1.0\"\ncreated-by = \"xtask\"\n\n{}", packages.join("\n")))
    }
}

impl Comparison {
    fn new(pip: &Tree, lbx: &Tree, facts: &Facts) -> Self {
        let equal = pip.iter().filter(|(path, node)| lbx.get(*path) == Some(node)).count();
        Self { files: pip.len(), equal, differences: differences(pip, lbx, facts) }
    }
}

/// What a report says that was left out of a layer, by its path as installed, with the rule.
fn left_out(report: &Value, layer: &str) -> Result<BTreeMap<String, String>> {
    let artifacts = report["stable"]["artifacts"].as_array().ok_or("report.json lists no artifacts")?;
    let artifact = artifacts.iter().find(|artifact| artifact["name"] == layer);
    let listed = artifact.and_then(|artifact| artifact["left_out"].as_array());
    let listed = listed.ok_or_else(|| format!("report.json does not say what {layer} leaves out"))?;
    let mut left_out = BTreeMap::new();
    for one in listed {
        let (Some(path), Some(rule)) = (one["path"].as_str(), one["rule"].as_str()) else {
            return Err(format!("report.json leaves out something without path or rule: {one}").into());
        };
        let installed = path.strip_prefix(FOLDER).ok_or_else(|| format!("{path} is not below {FOLDER}"))?;
        left_out.insert(installed.to_owned(), rule.to_owned());
    }
    Ok(left_out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_report_leaves_out_is_that_of_the_layer_alone() {
        let entry = |path: &str| json!({"path": path, "owner": "foo 1", "rule": "scripts", "size": 1});
        let report = json!({"stable": {"artifacts": [
            {"name": "by-default", "left_out": [entry("python/bin/a")]},
            {"name": "all-kept", "left_out": []},
        ]}});
        let found = left_out(&report, "by-default").unwrap();
        assert_eq!(found, BTreeMap::from([("bin/a".to_owned(), "scripts".to_owned())]));
        assert!(left_out(&report, "all-kept").unwrap().is_empty());
        let error = left_out(&report, "other").unwrap_err().to_string();
        assert_eq!(error, "report.json does not say what other leaves out");
    }

    #[test]
    fn a_report_without_rules_is_an_error() {
        let report = json!({"stable": {"artifacts": [{"name": "a", "left_out": [{"path": "python/x"}]}]}});
        assert!(left_out(&report, "a").unwrap_err().to_string().contains("without path or rule"));
    }
}
