//! Why something is in an artifact or is not, and how large it is: by the report of the last build, the wheels in the store,
//! the zip, and the rules. Nothing is fetched, and nothing is built.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lbx_archive::Archive;
use lbx_plan::prune::{self, Origin, Policy, Rule, Set, Verdict};
use lbx_plan::{Artifact, Hidden, Plan};
use lbx_wheel::{Wheel, WheelStore, normalize_name};
use serde::{Deserialize, Serialize};

use crate::archive::{self, Part};
use crate::cache;
use crate::dependencies::is_script;
use crate::engine::Destination;
use crate::error::Error;
use crate::project::Project;
use crate::record;
use crate::tree::OWN;

/// How many of the largest files are named.
const NAMED: usize = 3;

/// What is to be said about one thing in all artifacts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Explanations {
    /// Where it is, or is not, in the order of the artifacts.
    pub found: Vec<Explanation>,
    /// The packages of all of them, by normalised name.
    pub packages: BTreeSet<String>,
}

/// What is to be said about one thing in one artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The artifact.
    pub artifact: String,
    /// What it is there.
    pub what: Explained,
}

/// What something is in an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Explained {
    /// A package.
    Package {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
        /// The requirements that ask for it: lines of the project's, or other packages.
        required_by: Vec<String>,
        /// Its files.
        files: Files,
    },
    /// A folder.
    Folder {
        /// Its path in the zip, without a `/` at the end.
        path: String,
        /// Whose files it has.
        owners: Vec<String>,
        /// Its files.
        files: Files,
    },
    /// A file.
    File {
        /// Its path in the zip, had it been kept.
        path: String,
        /// Whose it is.
        owner: String,
        /// Its sizes.
        size: Size,
        /// What became of it.
        fate: Fate,
    },
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It is in the zip.
    Kept {
        /// The rule that is about it, and why it was spared.
        spared: Option<(Rule, String)>,
        /// The set of rules that would leave it out.
        offered: Option<Set>,
    },
    /// It was compiled from this file.
    Bytecode {
        /// The path of the module.
        module: String,
    },
    /// A rule leaves it out.
    LeftOut {
        /// The rule.
        rule: Rule,
        /// The pattern of the user's that named it.
        pattern: Option<String>,
    },
}

/// How large something is. Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Size {
    /// How many files.
    pub files: usize,
    /// Once unpacked.
    pub unpacked: u64,
    /// In the zip; of what is left out, in its wheel.
    pub packed: u64,
}

/// Several files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Files {
    /// Those that are in the zip.
    pub kept: Size,
    /// The largest of these, with their sizes once unpacked.
    pub largest: Vec<(String, u64)>,
    /// Those that are left out, by rule.
    pub left_out: BTreeMap<Rule, Size>,
    /// Those that sets of rules would leave out.
    pub offered: BTreeMap<Set, Size>,
}

/// What is read of a report.
#[derive(Deserialize)]
struct ReportFile {
    stable: Reported,
}

#[derive(Deserialize)]
struct Reported {
    artifacts: Vec<ReportedArtifact>,
}

#[derive(Deserialize)]
struct ReportedArtifact {
    name: String,
    wheels: Vec<ReportedWheel>,
    left_out: Vec<ReportedLeftOut>,
}

#[derive(Deserialize)]
struct ReportedWheel {
    sha256: String,
}

#[derive(Deserialize)]
struct ReportedLeftOut {
    path: String,
    rule: Rule,
}

/// One file of an artifact, kept or not.
struct Entry {
    path: String,
    owner: String,
    distribution: Option<String>,
    size: Size,
    fate: Fate,
}

/// Looks for `asked` in every artifact of the plan: the name of a package, or a path in a zip or in the project.
pub fn explain(
    project: &Project,
    plan: &Plan,
    destination: &Destination,
    cache_dir: &Path,
    asked: &str,
) -> Result<Explanations, Error> {
    let report = read(&destination.report())?;
    let _held = cache::hold(cache_dir);
    let store =
        WheelStore::open(&cache_dir.join("wheels")).map_err(|error| Error::WheelStore(error.into()))?;
    let parts = archive::collect_parts(project, plan, destination, [])?;
    let mut all_of_them = Explanations::default();
    for (artifact, parts) in plan.artifacts.iter().zip(&parts) {
        let reported = report.artifacts.iter().find(|reported| reported.name == artifact.name);
        let reported = reported.ok_or_else(|| not_built(&destination.zip(&artifact.name)))?;
        let wheels = wheels(&store, reported)?;
        let zip = destination.zip(&artifact.name);
        let all = Inside { artifact, parts, wheels: &wheels, reported, zip: &zip }.list()?;
        let lines = artifact.set.and_then(|set| plan.sets.get(set)).map_or(&[][..], |set| &set.lines);
        let what = package(asked, &wheels, lines, &all).or_else(|| path(project, parts, asked, all));
        let names = wheels.iter().map(|wheel| normalize_name(&wheel.metadata.name));
        all_of_them.packages.extend(names);
        all_of_them.found.extend(what.map(|what| Explanation { artifact: artifact.name.clone(), what }));
    }
    Ok(all_of_them)
}

fn read(path: &Path) -> Result<Reported, Error> {
    let text = record::left(path).ok_or_else(|| not_built(path))?;
    let file: ReportFile = serde_json::from_slice(&text).map_err(|_| not_built(path))?;
    Ok(file.stable)
}

fn not_built(path: &Path) -> Error {
    Error::NotBuilt { path: path.to_owned() }
}

fn wheels(store: &WheelStore, reported: &ReportedArtifact) -> Result<Vec<Arc<Wheel>>, Error> {
    let wheel = |wheel: &ReportedWheel| {
        let digest = wheel.sha256.parse().ok();
        let found = digest.map(|digest| store.get(digest)).transpose();
        let found = found.map_err(|source| Error::wheel(wheel.sha256.as_str(), source))?;
        found.flatten().ok_or_else(|| Error::NotBuilt { path: PathBuf::from(&wheel.sha256) })
    };
    reported.wheels.iter().map(wheel).collect()
}

/// What an artifact consists of.
struct Inside<'i> {
    artifact: &'i Artifact,
    parts: &'i [Part],
    wheels: &'i [Arc<Wheel>],
    reported: &'i ReportedArtifact,
    zip: &'i Path,
}

impl Inside<'_> {
    /// All files, sorted by path.
    fn list(&self) -> Result<Vec<Entry>, Error> {
        let policy = self.policy()?;
        let mut sizes = self.sizes()?;
        let left_out: BTreeMap<&str, Rule> =
            self.reported.left_out.iter().map(|left| (left.path.as_str(), left.rule)).collect();
        let mut all = Vec::new();
        for wheel in self.wheels {
            let distribution = normalize_name(&wheel.metadata.name);
            let owner = format!("{} {}", wheel.metadata.name, wheel.metadata.version);
            for file in &wheel.files {
                let path = format!("{}{}", self.artifact.kind.prefix(), file.path);
                let origin = Origin::Wheel { distribution: &distribution, script: is_script(file) };
                let in_wheel =
                    Size { files: 1, unpacked: file.packed.size, packed: file.packed.compressed_size };
                let kept = sizes.remove(&path);
                let rule = left_out.get(path.as_str()).copied();
                let fate = fate(&file.path, origin, &policy, rule.filter(|_| kept.is_none()));
                let (owner, distribution) = (owner.clone(), Some(distribution.clone()));
                all.push(Entry { path, owner, distribution, size: kept.unwrap_or(in_wheel), fate });
            }
        }
        for part in self.parts {
            for file in &part.tree.files {
                let path = format!("{}{}", part.prefix, file.path);
                let in_project = Size { files: 1, unpacked: file.stamp.size, packed: 0 };
                let kept = sizes.remove(&path);
                let rule = left_out.get(path.as_str()).copied();
                let fate = fate(&file.path, Origin::Source, &policy, rule.filter(|_| kept.is_none()));
                let (owner, distribution) = (part.name.clone(), None);
                all.push(Entry { path, owner, distribution, size: kept.unwrap_or(in_project), fate });
            }
        }
        all.extend(bytecode(&all, sizes));
        all.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(all)
    }

    /// What holds here, as in the build.
    fn policy(&self) -> Result<Policy, Error> {
        let mut policy = Policy::new(&self.artifact.prune);
        policy.drop_tools(archive::unrequired(self.wheels, self.parts)?);
        for wheel in self.wheels {
            let distribution = normalize_name(&wheel.metadata.name);
            let requires = &wheel.metadata.requires_dist;
            let paths = wheel.files.iter().map(|file| file.path.as_str());
            policy.prepare(prune::Distribution { name: &distribution, requires }, paths);
        }
        Ok(policy)
    }

    /// The sizes of what is in the zip, by path.
    fn sizes(&self) -> Result<BTreeMap<String, Size>, Error> {
        let file = fs_err::File::open(self.zip).map_err(|_| not_built(self.zip))?.into_file();
        let archive = Archive::open(&file, &OWN).map_err(|_| not_built(self.zip))?;
        let size = |member: &lbx_archive::Member| {
            let (unpacked, packed) = (member.packed.size, member.packed.compressed_size);
            (member.name.clone(), Size { files: 1, unpacked, packed })
        };
        Ok(archive.members().iter().map(size).collect())
    }
}

/// What became of a file: what the report says, which has looked at the image, too, or else what the rules say.
fn fate(path: &str, origin: Origin<'_>, policy: &Policy, reported: Option<Rule>) -> Fate {
    let left_out = |rule: Rule| {
        let pattern = (rule == Rule::Excluded).then(|| policy.excluded_by(path)).flatten();
        Fate::LeftOut { rule, pattern: pattern.map(str::to_owned) }
    };
    match (reported, prune::verdict(path, origin, policy)) {
        (Some(rule), _) | (None, Verdict::Drop(rule)) => left_out(rule),
        (None, Verdict::Keep(spared)) => Fate::Kept {
            spared: spared.map(|spared| (spared.rule, spared.reason.to_string())),
            offered: policy.offered(path, origin),
        },
    }
}

/// What is left of a zip's files when all others are named: the bytecode of some of these.
fn bytecode(all: &[Entry], sizes: BTreeMap<String, Size>) -> Vec<Entry> {
    let compiled = |(path, size): (String, Size)| {
        let module = module_of(&path)?;
        let of = all.iter().find(|entry| entry.path == module)?;
        let (owner, distribution) = (of.owner.clone(), of.distribution.clone());
        Some(Entry { path, owner, distribution, size, fate: Fate::Bytecode { module } })
    };
    sizes.into_iter().filter_map(compiled).collect()
}

/// The module that a path is the bytecode of.
fn module_of(path: &str) -> Option<String> {
    let stem = path.strip_suffix(".pyc")?;
    let Some((folder, name)) = stem.rsplit_once("__pycache__/") else { return Some(format!("{stem}.py")) };
    let (name, _tag) = name.rsplit_once('.')?;
    Some(format!("{folder}{name}.py"))
}

/// The package of that name.
fn package(asked: &str, wheels: &[Arc<Wheel>], lines: &[Hidden], all: &[Entry]) -> Option<Explained> {
    let name = normalize_name(asked);
    let wheel = wheels.iter().find(|wheel| normalize_name(&wheel.metadata.name) == name)?;
    let lines = lines.iter().map(Hidden::expose).filter(|line| prune::requires(line, &name));
    let others = wheels.iter().filter(|wheel| {
        let requires = wheel.metadata.requires_dist.iter().any(|line| prune::requires(line, &name));
        requires && normalize_name(&wheel.metadata.name) != name
    });
    let mut required_by: Vec<String> =
        lines.map(|line| line.split(" --").next().unwrap_or(line).trim().to_owned()).collect();
    required_by.extend(others.map(|wheel| format!("{} {}", wheel.metadata.name, wheel.metadata.version)));
    let of_it = all.iter().filter(|entry| entry.distribution.as_ref() == Some(&name));
    Some(Explained::Package {
        name: wheel.metadata.name.clone(),
        version: wheel.metadata.version.clone(),
        required_by,
        files: files(of_it),
    })
}

/// The file or folder of that path: in the zip, or in the project.
fn path(project: &Project, parts: &[Part], asked: &str, all: Vec<Entry>) -> Option<Explained> {
    let asked = asked.strip_prefix("./").unwrap_or(asked).trim_end_matches('/');
    let own = own_path(project, parts, asked);
    let mut all = all;
    for path in [Some(asked), own.as_deref()].into_iter().flatten() {
        if let Some(at) = all.iter().position(|entry| entry.path == path) {
            let Entry { path, owner, size, fate, .. } = all.swap_remove(at);
            return Some(Explained::File { path, owner, size, fate });
        }
        let below = format!("{path}/");
        let inside: Vec<&Entry> = all.iter().filter(|entry| entry.path.starts_with(&below)).collect();
        if !inside.is_empty() {
            let mut owners: Vec<String> = inside.iter().map(|entry| entry.owner.clone()).collect();
            owners.sort();
            owners.dedup();
            return Some(Explained::Folder {
                path: path.to_owned(),
                owners,
                files: files(inside.into_iter()),
            });
        }
    }
    None
}

/// Where a path of the project is in the zip.
fn own_path(project: &Project, parts: &[Part], asked: &str) -> Option<String> {
    let real = fs_err::canonicalize(project.root.join(asked)).ok()?;
    let file = |part: &Part| {
        let file = part.tree.files.iter().find(|file| file.location == real)?;
        Some(format!("{}{}", part.prefix, file.path))
    };
    parts.iter().find_map(file)
}

fn files<'e>(entries: impl Iterator<Item = &'e Entry>) -> Files {
    let mut files = Files::default();
    let mut kept: Vec<(String, u64)> = Vec::new();
    for entry in entries {
        match &entry.fate {
            Fate::LeftOut { rule, .. } => files.left_out.entry(*rule).or_default().add(entry.size),
            Fate::Kept { offered, .. } => {
                if let Some(set) = offered {
                    files.offered.entry(*set).or_default().add(entry.size);
                }
            }
            Fate::Bytecode { .. } => {}
        }
        if !matches!(entry.fate, Fate::LeftOut { .. }) {
            files.kept.add(entry.size);
            kept.push((entry.path.clone(), entry.size.unpacked));
        }
    }
    kept.sort_by_key(|(path, size)| (std::cmp::Reverse(*size), path.clone()));
    kept.truncate(NAMED);
    files.largest = kept;
    files
}

impl Size {
    fn add(&mut self, other: Self) {
        self.files += other.files;
        self.unpacked += other.unpacked;
        self.packed += other.packed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytecode_leads_to_its_module_wherever_it_is() {
        assert_eq!(module_of("a/__pycache__/b.cpython-311.pyc").as_deref(), Some("a/b.py"));
        assert_eq!(module_of("__pycache__/b.c.cpython-311.pyc").as_deref(), Some("b.c.py"));
        assert_eq!(module_of("a/b.pyc").as_deref(), Some("a/b.py"));
        assert_eq!(module_of("a/b.py"), None);
        assert_eq!(module_of("__pycache__/b.pyc"), None);
    }

    #[test]
    fn files_are_summed_by_what_became_of_them() {
        let entry = |path: &str, unpacked, fate| Entry {
            path: path.to_owned(),
            owner: "x 1".to_owned(),
            distribution: None,
            size: Size { files: 1, unpacked, packed: 1 },
            fate,
        };
        let kept = |offered| Fate::Kept { spared: None, offered };
        let all = [
            entry("a", 1, kept(None)),
            entry("b", 20, kept(Some(Set::Tests))),
            entry("c", 300, Fate::LeftOut { rule: Rule::Scripts, pattern: None }),
            entry("d", 4, Fate::Bytecode { module: "a".to_owned() }),
            entry("e", 4, kept(None)),
        ];
        let files = files(all.iter());
        assert_eq!(files.kept, Size { files: 4, unpacked: 29, packed: 4 });
        let largest: Vec<&str> = files.largest.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(largest, ["b", "d", "e"]);
        assert_eq!(files.left_out[&Rule::Scripts].unpacked, 300);
        assert_eq!(files.offered[&Set::Tests].unpacked, 20);
    }
}
