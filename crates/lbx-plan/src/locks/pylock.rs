//! `pylock.toml` (PEP 751), which pip, uv and pdm write and read, and lbx too.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use toml::value::Table;

use super::{Environment, File, Locked, Package, Source, Text, normalized};
use crate::hidden::Hidden;
use crate::requirements::RequirementsError;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Lock {
    #[serde(rename = "lock-version")]
    format: String,
    requires_python: Option<String>,
    #[serde(default)]
    environments: Vec<String>,
    #[serde(default)]
    packages: Vec<Locking>,
    tool: Option<Table>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Locking {
    name: String,
    version: Option<String>,
    marker: Option<String>,
    requires_python: Option<String>,
    vcs: Option<Vcs>,
    directory: Option<Directory>,
    archive: Option<Distribution>,
    sdist: Option<Distribution>,
    #[serde(default)]
    wheels: Vec<Distribution>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Vcs {
    #[serde(rename = "type")]
    kind: String,
    url: Option<String>,
    path: Option<String>,
    commit_id: String,
    subdirectory: Option<String>,
}

#[derive(Deserialize)]
struct Directory {
    path: String,
    subdirectory: Option<String>,
}

#[derive(Deserialize)]
struct Distribution {
    name: Option<String>,
    url: Option<String>,
    path: Option<String>,
    size: Option<u64>,
    subdirectory: Option<String>,
    hashes: BTreeMap<String, String>,
}

impl Distribution {
    fn file(self) -> Result<File, String> {
        let name = self.name.or_else(|| Some(self.path?.rsplit('/').next()?.to_owned()));
        File::new(name, self.url, self.size, self.hashes.get("sha256").map(String::as_str))
    }
}

pub(super) fn read(lock: &Text<'_>, environment: &Environment) -> Result<Locked, RequirementsError> {
    let all: Lock = lock.toml()?;
    if !all.format.starts_with("1.") {
        return Err(lock.error(format!("lbx reads version 1 of this format, not {}", all.format), None));
    }
    lock.python(environment, all.requires_python.as_deref())?;
    let mut fits = all.environments.is_empty();
    for marker in &all.environments {
        fits = fits || lock.holds(environment, Some(marker), &lock.selection())?;
    }
    if !fits {
        return Err(lock.error(
            format!(
                "the lock is for another target than Python {} on {}",
                environment.python, environment.machine
            ),
            Some("`lbx lock` makes one for this runtime and CPU"),
        ));
    }
    let mut packages = Vec::new();
    for package in all.packages {
        if lock.holds(environment, package.marker.as_deref(), &lock.selection())? {
            packages.push(one(lock, environment, package)?);
        }
    }
    let made_from = all.tool.as_ref().and_then(|tool| tool.get("lbx")?.get("made-from")?.as_str());
    Ok(Locked { made_from: made_from.map(str::to_owned), ..lock.locked(packages)? })
}

fn one(lock: &Text<'_>, environment: &Environment, one: Locking) -> Result<Package, RequirementsError> {
    let name = normalized(&one.name);
    lock.python(environment, one.requires_python.as_deref())?;
    let wrong = |message: String| lock.error(format!("{name}: {message}"), None);
    let source = if let Some(vcs) = one.vcs {
        if vcs.kind != "git" {
            return Err(wrong(format!("lbx fetches repositories of git, not of {}", vcs.kind)));
        }
        let path = || vcs.path.as_ref().map(|path| format!("file://{path}"));
        let url = vcs.url.clone().or_else(path).unwrap_or_default();
        let (commit, subdirectory) = (vcs.commit_id, vcs.subdirectory.unwrap_or_default());
        Source::Git { url: Hidden::new(url), commit, subdirectory }
    } else if let Some(directory) = one.directory {
        let subdirectory = directory.subdirectory.unwrap_or_default();
        Source::Path { path: lock.beside(&directory.path)?, subdirectory }
    } else if let Some(archive) = one.archive {
        match (&archive.url, &archive.path) {
            (None, Some(path)) => Source::Path {
                path: lock.beside(path)?,
                subdirectory: archive.subdirectory.clone().unwrap_or_default(),
            },
            _ => Source::Archive(archive.file().map_err(wrong)?),
        }
    } else {
        let files = one.wheels.into_iter().chain(one.sdist).map(Distribution::file);
        Source::Files(files.collect::<Result<_, _>>().map_err(wrong)?)
    };
    Ok(Package { name, version: one.version, source })
}

/// A package of a lock that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its normalised name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where it is from.
    pub origin: Origin,
}

/// Where a package of a lock is from, without any login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file of an index.
    Index {
        /// The index.
        index: Option<String>,
        /// The file.
        file: File,
    },
    /// A file by its address.
    Archive(File),
    /// A folder, or an archive with its SHA-256, relative to the lock.
    Path {
        /// The path.
        path: String,
        /// Of an archive.
        sha256: Option<String>,
    },
    /// A commit.
    Git {
        /// The repository's address.
        url: String,
        /// What was asked for.
        reference: Option<String>,
        /// What that was.
        commit: String,
        /// The folder in it; empty for the top.
        subdirectory: String,
    },
}

/// One word for what a lock is made from: the lines of the requirement files, in their order.
pub fn fingerprint(lines: &[Hidden]) -> String {
    let mut hash = Sha256::new();
    for line in lines {
        // What is secret is no part of what is asked for.
        hash.update(line.to_string());
        hash.update("\n");
    }
    hex::encode(hash.finalize())
}

/// What one target gets.
pub type Resolved = (Environment, Vec<Entry>);

/// A package as it stands in a lock: what it is, and the targets that get it.
struct Shared<'e> {
    entry: &'e Entry,
    /// Places of the targets, and what each takes.
    takers: Vec<(usize, &'e Entry)>,
}

/// The text of a lock for these targets. The same entries give the same text.
pub fn write(targets: &[Resolved], lines: &[Hidden]) -> String {
    let mut text = String::from(
        "# Made by `lbx lock` (PEP 751). `lbx build` installs exactly this; so does `pip install -r`, where pip reads locks.\n",
    );
    let mut line = |text_line: String| {
        // A string takes whatever is written to it.
        let _ = writeln!(text, "{text_line}");
    };
    let markers: Vec<String> = targets.iter().map(|(environment, _)| environment.marker()).collect();
    line("lock-version = \"1.0\"".to_owned());
    line(format!(
        "environments = [{}]",
        markers.iter().map(|one| quoted(one)).collect::<Vec<_>>().join(", ")
    ));
    line("created-by = \"lbx\"".to_owned());
    for package in shared(targets) {
        line(String::new());
        line("[[packages]]".to_owned());
        line(format!("name = {}", quoted(&package.entry.name)));
        line(format!("version = {}", quoted(&package.entry.version)));
        if package.takers.len() < targets.len() {
            let some: Vec<String> =
                package.takers.iter().map(|(index, _)| format!("({})", markers[*index])).collect();
            line(format!("marker = {}", quoted(&some.join(" or "))));
        }
        for one in origin(&package) {
            line(one);
        }
    }
    line(String::new());
    line("[tool.lbx]".to_owned());
    line(format!("made-from = {}", quoted(&fingerprint(lines))));
    text
}

/// The packages of all targets, by name and version; what is the same stands there once.
fn shared(targets: &[Resolved]) -> Vec<Shared<'_>> {
    let mut all: Vec<Shared<'_>> = Vec::new();
    for (index, (_, entries)) in targets.iter().enumerate() {
        for entry in entries {
            match all.iter_mut().find(|known| known.entry.is_like(entry)) {
                Some(known) => known.takers.push((index, entry)),
                None => all.push(Shared { entry, takers: vec![(index, entry)] }),
            }
        }
    }
    all.sort_by(|left, right| {
        let key = |one: &Shared<'_>| (one.entry.name.clone(), one.takers.first().map(|(index, _)| *index));
        key(left).cmp(&key(right))
    });
    all
}

impl Entry {
    /// Whether it is the same package, of which a target may take another file.
    fn is_like(&self, other: &Self) -> bool {
        let same = self.name == other.name && self.version == other.version;
        same && match (&self.origin, &other.origin) {
            (Origin::Index { index: one, .. }, Origin::Index { index: two, .. }) => one == two,
            (one, two) => one == two,
        }
    }
}

fn origin(package: &Shared<'_>) -> Vec<String> {
    match &package.entry.origin {
        Origin::Index { index, .. } => {
            let mut lines: Vec<String> =
                index.iter().map(|index| format!("index = {}", quoted(index))).collect();
            let (mut wheels, mut sources): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
            for (_, entry) in &package.takers {
                let Origin::Index { file, .. } = &entry.origin else { continue };
                let list = if file.is_wheel() { &mut wheels } else { &mut sources };
                if !list.contains(&inline(file)) {
                    list.push(inline(file));
                }
            }
            lines.extend(sources.first().map(|one| format!("sdist = {one}")));
            if !wheels.is_empty() {
                lines.push(format!("wheels = [\n    {},\n]", wheels.join(",\n    ")));
            }
            lines
        }
        Origin::Archive(file) => {
            let file = File { name: None, ..file.clone() };
            vec![format!("archive = {}", inline(&file))]
        }
        Origin::Path { path, sha256: Some(sha256) } => {
            let hash = quoted(sha256);
            vec![format!("archive = {{ path = {}, hashes = {{ sha256 = {hash} }} }}", quoted(path))]
        }
        Origin::Path { path, sha256: None } => vec![format!("directory = {{ path = {} }}", quoted(path))],
        Origin::Git { url, reference, commit, subdirectory } => {
            let mut parts = vec!["type = \"git\"".to_owned(), format!("url = {}", quoted(url))];
            parts.extend(reference.iter().map(|one| format!("requested-revision = {}", quoted(one))));
            parts.push(format!("commit-id = {}", quoted(commit)));
            if !subdirectory.is_empty() {
                parts.push(format!("subdirectory = {}", quoted(subdirectory)));
            }
            vec![format!("vcs = {{ {} }}", parts.join(", "))]
        }
    }
}

fn inline(file: &File) -> String {
    let mut parts: Vec<String> = Vec::new();
    parts.extend(file.name.iter().map(|name| format!("name = {}", quoted(name))));
    parts.extend(file.url.iter().map(|url| format!("url = {}", quoted(&url.to_string()))));
    parts.extend(file.size.map(|size| format!("size = {size}")));
    parts.push(format!("hashes = {{ sha256 = {} }}", quoted(&file.sha256)));
    format!("{{ {} }}", parts.join(", "))
}

/// A string as TOML has it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
