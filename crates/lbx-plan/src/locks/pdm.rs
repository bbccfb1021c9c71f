//! `pdm.lock`, in which each package says for which groups and under which marker it is.

use serde::Deserialize;

use super::{Environment, File, Locked, Package, Source, Text, normalized};
use crate::hidden::Hidden;
use crate::requirements::RequirementsError;

#[derive(Deserialize)]
struct Lock {
    metadata: Metadata,
    #[serde(default)]
    package: Vec<Locking>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    strategy: Vec<String>,
    #[serde(default)]
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    requires_python: Option<String>,
}

#[derive(Deserialize)]
struct Locking {
    name: String,
    version: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    marker: Option<String>,
    git: Option<String>,
    revision: Option<String>,
    subdirectory: Option<String>,
    path: Option<String>,
    url: Option<String>,
    #[serde(default)]
    files: Vec<Distribution>,
}

#[derive(Deserialize)]
struct Distribution {
    file: Option<String>,
    url: Option<String>,
    hash: String,
}

/// What a project asks for when nothing is said.
const DEFAULT: &str = "default";

pub(super) fn read(lock: &Text<'_>, environment: &Environment) -> Result<Locked, RequirementsError> {
    let all: Lock = lock.toml()?;
    if !all.metadata.strategy.iter().any(|strategy| strategy == "inherit_metadata") {
        return Err(lock.error(
            "the packages of the lock do not say what they are for",
            Some("`pdm lock --strategy inherit_metadata` makes one that does"),
        ));
    }
    for target in &all.metadata.targets {
        // Each is another platform; those that are no Linux are not ours, and one that is says it by markers, too.
        lock.python(environment, target.requires_python.as_deref())?;
    }
    // Extras are groups here, too.
    let selection = lock.selection();
    let wanted: Vec<&String> = selection.extras.iter().chain(&selection.groups).collect();
    for name in &wanted {
        let known = all.metadata.groups.iter().map(|group| normalized(group));
        if !known.clone().any(|group| group == **name) {
            return Err(lock.none("extra or group", name, known));
        }
    }
    let mut packages = Vec::new();
    for one in all.package {
        let is_asked = |group: &String| group == DEFAULT || wanted.contains(&&normalized(group));
        let is_wanted = one.groups.iter().any(is_asked);
        if is_wanted && lock.holds(environment, one.marker.as_deref(), &lock.selection())? {
            packages.push(package(lock, one)?);
        }
    }
    lock.locked(packages)
}

fn package(lock: &Text<'_>, one: Locking) -> Result<Package, RequirementsError> {
    let name = normalized(&one.name);
    let wrong = |message: String| lock.error(format!("{name}: {message}"), None);
    let subdirectory = one.subdirectory.unwrap_or_default();
    let file = |file: &Distribution| File::new(file.file.clone(), file.url.clone(), None, Some(&file.hash));
    let source = if let Some(url) = one.git {
        let commit = one.revision.ok_or_else(|| wrong("its repository has no commit".to_owned()))?;
        Source::Git { url: Hidden::new(url), commit, subdirectory }
    } else if let Some(path) = one.path {
        Source::Path { path: lock.beside(&path)?, subdirectory }
    } else if let Some(url) = one.url {
        let hash = one.files.first().map(|file| file.hash.as_str());
        Source::Archive(File::new(None, Some(url), None, hash).map_err(wrong)?)
    } else {
        Source::Files(one.files.iter().map(file).collect::<Result<_, _>>().map_err(wrong)?)
    };
    Ok(Package { name, version: one.version, source })
}
