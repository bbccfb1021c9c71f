//! `poetry.lock`. Since Poetry 2, each package says for which groups and under which marker it is; before, that has to be
//! found out by walking from what pyproject.toml asks for.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use toml::Value;

use super::{Environment, File, Locked, Package, Selection, Source, Text, normalized, project};
use crate::hidden::Hidden;
use crate::requirements::RequirementsError;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Lock {
    metadata: Metadata,
    #[serde(default)]
    package: Vec<Locking>,
    #[serde(default)]
    extras: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Metadata {
    #[serde(default)]
    lock_version: String,
    python_versions: Option<String>,
    /// Where files were before Poetry 1.3.
    #[serde(default)]
    files: BTreeMap<String, Vec<Distribution>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Locking {
    name: String,
    version: String,
    #[serde(default)]
    optional: bool,
    python_versions: Option<String>,
    groups: Option<Vec<String>>,
    markers: Option<Value>,
    #[serde(default)]
    files: Vec<Distribution>,
    #[serde(default)]
    dependencies: BTreeMap<String, Value>,
    #[serde(default)]
    extras: BTreeMap<String, Vec<String>>,
    source: Option<Place>,
}

#[derive(Clone, Deserialize)]
struct Distribution {
    file: String,
    hash: String,
}

#[derive(Deserialize)]
struct Place {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    url: String,
    resolved_reference: Option<String>,
    subdirectory: Option<String>,
}

/// What a project asks for when nothing is said.
const MAIN: &str = "main";

pub(super) fn read(lock: &Text<'_>, environment: &Environment) -> Result<Locked, RequirementsError> {
    let all: Lock = lock.toml()?;
    lock.python(environment, all.metadata.python_versions.as_deref().map(pep440).as_deref())?;
    let says_groups = all.package.iter().all(|one| one.groups.is_some());
    let wanted = if says_groups && all.metadata.lock_version != "2.0" {
        by_group(lock, environment, &all)?
    } else {
        by_walk(lock, environment, &all)?
    };
    let packages = wanted.into_iter().map(|index| package(lock, &all, &all.package[index]));
    lock.locked(packages.collect::<Result<_, _>>()?)
}

fn by_group(
    lock: &Text<'_>,
    environment: &Environment,
    all: &Lock,
) -> Result<BTreeSet<usize>, RequirementsError> {
    let selection = lock.selection();
    let groups: Vec<&str> =
        all.package.iter().flat_map(|one| one.groups.iter().flatten()).map(String::as_str).collect();
    for (kind, names, known) in [
        ("extra", &selection.extras, all.extras.keys().map(|name| normalized(name)).collect::<BTreeSet<_>>()),
        ("group", &selection.groups, groups.iter().map(|name| normalized(name)).collect()),
    ] {
        if let Some(name) = names.iter().find(|name| !known.contains(*name)) {
            return Err(lock.none(kind, name, known));
        }
    }
    let mut wanted = BTreeSet::new();
    for (index, one) in all.package.iter().enumerate() {
        for group in one.groups.iter().flatten() {
            let marker = match &one.markers {
                Some(Value::String(marker)) => Some(marker.as_str()),
                Some(Value::Table(markers)) => markers.get(group).and_then(Value::as_str),
                _ => None,
            };
            let is_asked = group == MAIN || selection.groups.contains(&normalized(group));
            // An optional one without a marker is for an extra that old versions did not write down.
            let is_hidden = one.optional && marker.is_none();
            if is_asked && !is_hidden && lock.holds(environment, marker, &selection)? {
                wanted.insert(index);
            }
        }
    }
    Ok(wanted)
}

/// What is needed of a package, by its normalised name.
type Asked = (String, Vec<String>);

fn by_walk(
    lock: &Text<'_>,
    environment: &Environment,
    all: &Lock,
) -> Result<BTreeSet<usize>, RequirementsError> {
    let Some(text) = lock.project else {
        return Err(lock.error(
            "a lock of this version is read together with the pyproject.toml beside it, and there is none",
            None,
        ));
    };
    let selection = lock.selection();
    let mut open = asked_by_project(lock, environment, text, &selection)?;
    for extra in &selection.extras {
        let found = all.extras.iter().find(|(name, _)| normalized(name) == *extra);
        let (_, names) = found.ok_or_else(|| lock.none("extra", extra, all.extras.keys().cloned()))?;
        open.extend(
            names
                .iter()
                .map(|name| (normalized(name.split([' ', '[', '(']).next().unwrap_or_default()), Vec::new())),
        );
    }
    let (mut wanted, mut seen) = (BTreeSet::new(), BTreeSet::new());
    while let Some((name, extras)) = open.pop() {
        if !seen.insert((name.clone(), extras.clone())) {
            continue;
        }
        let fits = |one: &Locking| {
            let python = one.python_versions.as_deref().map(pep440);
            normalized(&one.name) == name
                && python.is_none_or(|python| environment.python_in(&python).unwrap_or(true))
        };
        let found: Vec<usize> =
            all.package.iter().enumerate().filter(|(_, one)| fits(one)).map(|(index, _)| index).collect();
        if found.is_empty() {
            return Err(lock.error(format!("{name} is needed, and is not in the lock"), None));
        }
        for index in found {
            wanted.insert(index);
            let one = &all.package[index];
            let of_extras: BTreeSet<String> = extras
                .iter()
                .filter_map(|extra| one.extras.get(extra))
                .flatten()
                .map(|text| normalized(text.split([' ', '[', ';', '(']).next().unwrap_or_default()))
                .collect();
            for (name, value) in &one.dependencies {
                let asked = asked(lock, environment, name, value, &extras)?;
                let is_for_extra = |name: &str| of_extras.contains(name);
                open.extend(
                    asked.into_iter().filter_map(|(asked, optional)| {
                        (!optional || is_for_extra(&asked.0)).then_some(asked)
                    }),
                );
            }
        }
    }
    Ok(wanted)
}

/// What a dependency asks for on this target, and whether only an extra does. It may be a list of several.
fn asked(
    lock: &Text<'_>,
    environment: &Environment,
    name: &str,
    value: &Value,
    extras: &[String],
) -> Result<Vec<(Asked, bool)>, RequirementsError> {
    let all = match value {
        Value::Array(all) => all.iter().collect(),
        one => vec![one],
    };
    let mut found = Vec::new();
    for one in all {
        let field = |name: &str| one.as_table().and_then(|table| table.get(name));
        let marker = field("markers").and_then(Value::as_str);
        let python = field("python").and_then(Value::as_str).map(pep440);
        let fits = python.is_none_or(|python| environment.python_in(&python).unwrap_or(true));
        let wanted = Selection { extras: extras.to_vec(), groups: Vec::new() };
        if fits && lock.holds(environment, marker, &wanted)? {
            let inner = field("extras").and_then(Value::as_array).into_iter().flatten();
            let inner = inner.filter_map(|extra| extra.as_str().map(str::to_owned)).collect();
            let optional = field("optional").and_then(Value::as_bool).unwrap_or(false);
            found.push(((normalized(name), inner), optional));
        }
    }
    Ok(found)
}

fn asked_by_project(
    lock: &Text<'_>,
    environment: &Environment,
    text: &str,
    selection: &Selection,
) -> Result<Vec<Asked>, RequirementsError> {
    let wrong = |message: String| lock.error(format!("the pyproject.toml beside it: {message}"), None);
    let table: toml::Table = toml::from_str(text).map_err(|error| wrong(error.message().to_owned()))?;
    let mut open = Vec::new();
    let poetry = table.get("tool").and_then(|tool| tool.get("poetry")?.as_table());
    let own = poetry.and_then(|poetry| poetry.get("dependencies")?.as_table());
    let groups = poetry.and_then(|poetry| poetry.get("group")?.as_table());
    let mut lists: Vec<&toml::Table> = own.into_iter().collect();
    for wanted in &selection.groups {
        let found = groups.into_iter().flatten().find(|(name, _)| normalized(name) == *wanted);
        let found = found.and_then(|(_, group)| group.get("dependencies")?.as_table());
        let known = || groups.into_iter().flatten().map(|(name, _)| name.clone());
        lists.push(found.ok_or_else(|| lock.none("group", wanted, known()))?);
    }
    for (name, value) in lists.into_iter().flatten().filter(|(name, _)| *name != "python") {
        let all = asked(lock, environment, name, value, &selection.extras)?;
        open.extend(all.into_iter().filter(|(_, optional)| !optional).map(|(asked, _)| asked));
    }
    for requirement in project::dependencies(&table) {
        if let Some(asked) = project::asked(&requirement, environment).map_err(wrong)? {
            open.push(asked);
        }
    }
    Ok(open)
}

/// Poetry's own ways to write versions, as PEP 440 has them: `^3.9` is `>=3.9,<4`, `~3.9` is `>=3.9,<3.10`.
fn pep440(versions: &str) -> String {
    let one = |part: &str| -> String {
        let part = part.trim();
        let numbers =
            |text: &str| -> Vec<u64> { text.split('.').filter_map(|part| part.parse().ok()).collect() };
        if let Some(version) = part.strip_prefix('^') {
            let major = numbers(version).first().copied().unwrap_or(0);
            return format!(">={version},<{}", major + 1);
        }
        if let Some(version) = part.strip_prefix('~').filter(|version| !version.starts_with('=')) {
            return match numbers(version)[..] {
                [major] => format!(">={version},<{}", major + 1),
                [major, minor, ..] => format!(">={version},<{major}.{}", minor + 1),
                [] => String::new(),
            };
        }
        match part {
            "*" => String::new(),
            _ if part.starts_with(|c: char| c.is_ascii_digit()) => format!("=={part}"),
            _ => part.to_owned(),
        }
    };
    versions.split(',').map(one).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(",")
}

fn package(lock: &Text<'_>, all: &Lock, one: &Locking) -> Result<Package, RequirementsError> {
    let name = normalized(&one.name);
    let wrong = |message: String| lock.error(format!("{name}: {message}"), None);
    let old = all.metadata.files.get(&one.name);
    let files = if one.files.is_empty() { old.cloned().unwrap_or_default() } else { one.files.clone() };
    let file = |one: &Distribution| File::new(Some(one.file.clone()), None, None, Some(&one.hash));
    let subdirectory = |place: &Place| place.subdirectory.clone().unwrap_or_default();
    let source = match &one.source {
        Some(place) if place.kind == "git" => {
            let commit = place.resolved_reference.clone();
            let commit = commit.ok_or_else(|| wrong("its repository has no commit".to_owned()))?;
            Source::Git { url: Hidden::new(&place.url), commit, subdirectory: subdirectory(place) }
        }
        Some(place) if place.kind == "url" => {
            let hash = files.first().map(|file| file.hash.as_str());
            Source::Archive(File::new(None, Some(place.url.clone()), None, hash).map_err(wrong)?)
        }
        Some(place) if place.kind == "file" || place.kind == "directory" => {
            Source::Path { path: lock.beside(&place.url)?, subdirectory: subdirectory(place) }
        }
        _ => Source::Files(files.iter().map(file).collect::<Result<_, _>>().map_err(wrong)?),
    };
    Ok(Package { name, version: Some(one.version.clone()), source })
}
