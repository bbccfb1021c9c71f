//! `xtask/equivalence.toml`: which packages are compared, and why; and their wheels.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lbx_testkit::images::sha256;
use serde::Deserialize;

use super::case::Case;
use crate::{Result, process, wheels, workspace};

/// Names of platforms that wheels may be for: those of the C library that python3.11 has in Lambda, and older ones.
const PLATFORMS: [&str; 4] =
    ["manylinux_2_26_x86_64", "manylinux_2_24_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"];

/// The whole table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    #[serde(rename = "package")]
    packages: Vec<Package>,
    /// What only sets have.
    further: Vec<Pin>,
    #[serde(rename = "set")]
    sets: Vec<Set>,
}

/// A package that is compared alone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Package {
    name: String,
    version: String,
    sha256: String,
    /// For what it was chosen.
    why: String,
}

/// A wheel, by its digest.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pin {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) sha256: String,
}

/// Packages that are installed together.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    name: String,
    why: String,
    packages: Vec<String>,
}

/// Where the table is.
pub(super) fn path() -> PathBuf {
    workspace::root().join("xtask/equivalence.toml")
}

impl Table {
    /// Reads the table.
    pub(super) fn read() -> Result<Self> {
        let path = path();
        let parsed = Self::parse(&fs_err::read_to_string(&path)?);
        parsed.map_err(|error| format!("{}: {error}", path.display()).into())
    }

    fn parse(text: &str) -> Result<Self> {
        let table: Self = toml::from_str(text)?;
        let pins = table.pins();
        for set in &table.sets {
            let is_there = |name: &&String| pins.iter().any(|pin| pin.name == **name);
            if let Some(name) = set.packages.iter().find(|name| !is_there(name)) {
                return Err(format!("no wheel of {name}, which the set {} has", set.name).into());
            }
        }
        Ok(table)
    }

    /// Every wheel.
    fn pins(&self) -> Vec<Pin> {
        let alone = self.packages.iter().map(Package::pin);
        alone.chain(self.further.iter().cloned()).collect()
    }

    /// All that is to be compared, in the order of the table.
    pub(super) fn cases(&self) -> Vec<Case> {
        let alone = self.packages.iter().map(|package| Case {
            name: package.name.clone(),
            why: package.why.clone(),
            pins: vec![package.pin()],
        });
        let pins = self.pins();
        let sets = self.sets.iter().map(|set| Case {
            name: format!("set-{}", set.name),
            why: set.why.clone(),
            pins: pins.iter().filter(|pin| set.packages.contains(&pin.name)).cloned().collect(),
        });
        alone.chain(sets).collect()
    }

    /// Fetches every wheel that is not in the folder yet, and returns all, by SHA-256.
    pub(super) fn fetch(&self, folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
        fs_err::create_dir_all(folder)?;
        let pins = self.pins();
        let there = pinned(folder, &pins)?;
        let missing: Vec<&Pin> = pins.iter().filter(|pin| !there.contains_key(&pin.sha256)).collect();
        if missing.is_empty() {
            return Ok(there);
        }
        println!("== fetch {} wheels", missing.len());
        let file = folder.join("requirements.txt");
        fs_err::write(&file, missing.into_iter().map(Pin::line).collect::<String>())?;
        let mut pip = wheels::pip(folder)?;
        pip.args(["--no-deps", "--require-hashes"]).args(for_target()).arg("--requirement").arg(file);
        process::output(&mut pip)?;
        pinned(folder, &pins)
    }
}

impl Package {
    fn pin(&self) -> Pin {
        Pin { name: self.name.clone(), version: self.version.clone(), sha256: self.sha256.clone() }
    }
}

impl Pin {
    /// The line of a requirement file for it.
    pub(super) fn line(&self) -> String {
        format!("{}=={} --hash=sha256:{}\n", self.name, self.version, self.sha256)
    }
}

/// What pip is told so that it takes wheels for Lambda, whatever it runs on.
pub(super) fn for_target() -> impl Iterator<Item = &'static str> {
    let target = ["--only-binary=:all:", "--implementation=cp", "--python-version=3.11"];
    target.into_iter().chain(PLATFORMS.iter().flat_map(|platform| ["--platform", platform]))
}

/// The files of a folder that a pin names, by SHA-256. All others are removed, so that nothing old is left behind.
fn pinned(folder: &Path, pins: &[Pin]) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let digest = sha256(&fs_err::read(&path)?).replace("sha256:", "");
        if pins.iter().any(|pin| pin.sha256 == digest) {
            found.insert(digest, path);
        } else {
            fs_err::remove_file(path)?;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_has_forty_packages_each_with_its_variety_and_nothing_twice() {
        let table = Table::read().unwrap();
        assert_eq!(table.packages.len(), 40);
        let (pins, cases) = (table.pins(), table.cases());
        assert!(pins.iter().all(|pin| pin.sha256.len() == 64));
        assert!(cases.iter().all(|case| !case.why.is_empty()));
        let names: BTreeSet<&str> = pins.iter().map(|pin| pin.name.as_str()).collect();
        assert_eq!(names.len(), pins.len());
        let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), cases.len());
        for set in &table.sets {
            let case = cases.iter().find(|case| case.name == format!("set-{}", set.name)).unwrap();
            assert_eq!(case.pins.len(), set.packages.len(), "{}", set.name);
        }
    }

    #[test]
    fn a_set_with_a_package_that_has_no_wheel_is_an_error() {
        let text = "further = []\npackage = []\n[[set]]\nname = \"a\"\nwhy = \"b\"\npackages = [\"c\"]\n";
        let error = Table::parse(text).err().unwrap().to_string();
        assert_eq!(error, "no wheel of c, which the set a has");
    }

    #[test]
    fn a_file_that_no_pin_names_is_removed_and_never_taken() {
        let folder = tempfile::tempdir().unwrap();
        let [right, wrong] = ["right", "wrong"].map(|name| folder.path().join(name));
        fs_err::write(&right, "what was pinned").unwrap();
        fs_err::write(&wrong, "something else").unwrap();
        let digest = sha256(b"what was pinned").replace("sha256:", "");
        let pin = Pin { name: "foo".into(), version: "1".into(), sha256: digest.clone() };
        assert_eq!(pinned(folder.path(), &[pin]).unwrap(), BTreeMap::from([(digest, right)]));
        assert!(!wrong.exists());
    }
}
