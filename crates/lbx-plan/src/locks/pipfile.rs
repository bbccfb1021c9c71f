//! `Pipfile.lock`, which has versions and hashes, and neither names of files nor addresses.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Environment, File, Locked, Package, Source, Text, normalized};
use crate::hidden::Hidden;
use crate::position::Position;
use crate::requirements::RequirementsError;

#[derive(Deserialize)]
struct Lock {
    #[serde(rename = "_meta")]
    meta: Meta,
    #[serde(default)]
    default: BTreeMap<String, Locking>,
    /// The one group besides.
    #[serde(default)]
    develop: BTreeMap<String, Locking>,
}

/// What the group besides is called in the lock, and by people.
const DEVELOP: [&str; 2] = ["develop", "dev"];

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    requires: Requires,
}

#[derive(Default, Deserialize)]
struct Requires {
    python_version: Option<String>,
}

#[derive(Deserialize)]
struct Locking {
    version: Option<String>,
    #[serde(default)]
    hashes: Vec<String>,
    markers: Option<String>,
    git: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    path: Option<String>,
    file: Option<String>,
    subdirectory: Option<String>,
}

pub(super) fn read(lock: &Text<'_>, environment: &Environment) -> Result<Locked, RequirementsError> {
    let all: Lock = serde_json::from_str(lock.text).map_err(|error| RequirementsError {
        position: Position { file: lock.path.to_owned(), line: error.line(), column: error.column() },
        message: error.to_string(),
        hint: None,
    })?;
    let python = all.meta.requires.python_version;
    lock.python(environment, python.map(|version| format!("=={version}.*")).as_deref())?;
    let selection = lock.selection();
    if let Some(extra) = selection.extras.first() {
        return Err(lock.none("extra", extra, []));
    }
    if let Some(group) = selection.groups.iter().find(|group| !DEVELOP.contains(&group.as_str())) {
        return Err(lock.none("group", group, ["develop".to_owned()]));
    }
    let mut wanted = if selection.groups.is_empty() { BTreeMap::new() } else { all.develop };
    // Where both have one, it is the same.
    wanted.extend(all.default);
    let mut packages = Vec::new();
    for (name, one) in wanted {
        if lock.holds(environment, one.markers.as_deref(), &lock.selection())? {
            packages.push(package(lock, &name, one)?);
        }
    }
    lock.locked(packages)
}

fn package(lock: &Text<'_>, name: &str, one: Locking) -> Result<Package, RequirementsError> {
    let name = normalized(name);
    let wrong = |message: String| lock.error(format!("{name}: {message}"), None);
    let subdirectory = one.subdirectory.unwrap_or_default();
    let version = one.version.map(|version| version.trim_start_matches('=').to_owned());
    let hash = one.hashes.first().map(String::as_str);
    let source = if let Some(url) = one.git {
        let commit = one.reference.ok_or_else(|| wrong("its repository has no commit".to_owned()))?;
        Source::Git { url: Hidden::new(url), commit, subdirectory }
    } else if let Some(file) = one.file.filter(|file| file.contains("://")) {
        Source::Archive(File::new(None, Some(file), None, hash).map_err(wrong)?)
    } else if let Some(path) = one.path {
        Source::Path { path: lock.beside(&path)?, subdirectory }
    } else if one.hashes.is_empty() {
        return Err(wrong("it has no hash, so it cannot be verified".to_owned()));
    } else {
        let files = one.hashes.iter().map(|hash| File::new(None, None, None, Some(hash)));
        Source::Files(files.collect::<Result<_, _>>().map_err(wrong)?)
    };
    Ok(Package { name, version, source })
}
