//! `uv.lock`: a graph of packages, walked from the project that it was made for.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Environment, File, Locked, Package, Source, Text, normalized};
use crate::hidden::Hidden;
use crate::requirements::RequirementsError;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Lock {
    version: u64,
    requires_python: Option<String>,
    manifest: Option<Manifest>,
    #[serde(default)]
    package: Vec<Node>,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    members: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Node {
    name: String,
    version: Option<String>,
    source: Place,
    #[serde(default)]
    dependencies: Vec<Edge>,
    #[serde(default)]
    optional_dependencies: BTreeMap<String, Vec<Edge>>,
    /// Groups.
    #[serde(default)]
    dev_dependencies: BTreeMap<String, Vec<Edge>>,
    sdist: Option<Distribution>,
    #[serde(default)]
    wheels: Vec<Distribution>,
}

/// Where a package is: one of these.
#[derive(Clone, Deserialize, PartialEq)]
struct Place {
    registry: Option<String>,
    git: Option<String>,
    url: Option<String>,
    path: Option<String>,
    directory: Option<String>,
    editable: Option<String>,
    #[serde(rename = "virtual")]
    bare: Option<String>,
    subdirectory: Option<String>,
}

impl Place {
    fn folder(&self) -> Option<&str> {
        self.bare.as_deref().or(self.editable.as_deref()).or(self.directory.as_deref())
    }
}

#[derive(Deserialize)]
struct Edge {
    name: String,
    version: Option<String>,
    source: Option<Place>,
    #[serde(default)]
    extra: Vec<String>,
    marker: Option<String>,
}

#[derive(Deserialize)]
struct Distribution {
    url: Option<String>,
    path: Option<String>,
    filename: Option<String>,
    hash: Option<String>,
    size: Option<u64>,
}

impl Distribution {
    fn file(&self) -> Result<File, String> {
        let name = self.filename.clone().or_else(|| Some(self.path.as_ref()?.rsplit('/').next()?.to_owned()));
        File::new(name, self.url.clone(), self.size, self.hash.as_deref())
    }
}

pub(super) fn read(lock: &Text<'_>, environment: &Environment) -> Result<Locked, RequirementsError> {
    let all: Lock = lock.toml()?;
    if all.version != 1 {
        return Err(lock.error(format!("lbx reads version 1 of this format, not {}", all.version), None));
    }
    lock.python(environment, all.requires_python.as_deref())?;
    let roots = roots(&all);
    if roots.is_empty() {
        return Err(lock.error("the lock names no project that it was made for", None));
    }
    let mut seen: BTreeSet<(usize, String)> = BTreeSet::new();
    let mut open: Vec<(usize, String)> = roots.iter().map(|root| (*root, String::new())).collect();
    open.extend(wanted(lock, &all, &roots)?);
    while let Some((index, extra)) = open.pop() {
        if !seen.insert((index, extra.clone())) {
            continue;
        }
        let node = &all.package[index];
        let edges = match extra.as_str() {
            "" => &node.dependencies,
            group if group.starts_with(GROUP) => match node.dev_dependencies.get(&group[GROUP.len()..]) {
                Some(edges) => edges,
                None => continue,
            },
            extra => match node.optional_dependencies.get(extra) {
                Some(edges) => edges,
                // As the tools do it, who warn about an extra that there is not.
                None => continue,
            },
        };
        for edge in edges {
            if !lock.holds(environment, edge.marker.as_deref(), &lock.selection())? {
                continue;
            }
            let target = find(lock, &all, edge)?;
            open.push((target, String::new()));
            open.extend(edge.extra.iter().map(|extra| (target, extra.clone())));
        }
    }
    let reached: BTreeSet<usize> = seen.into_iter().map(|(index, _)| index).collect();
    let packages = reached.difference(&roots).map(|index| package(lock, &all.package[*index]));
    lock.locked(packages.collect::<Result<_, _>>()?)
}

/// What tells groups from extras, whose names begin in another way.
const GROUP: &str = ":";

/// The extras and groups of the roots that are wanted.
fn wanted(
    lock: &Text<'_>,
    all: &Lock,
    roots: &BTreeSet<usize>,
) -> Result<Vec<(usize, String)>, RequirementsError> {
    let selection = lock.selection();
    let mut open = Vec::new();
    let kinds = [("extra", "", &selection.extras), ("group", GROUP, &selection.groups)];
    for (kind, mark, names) in kinds {
        for name in names {
            let of = |root: &usize| {
                let node = &all.package[*root];
                let lists =
                    if mark.is_empty() { &node.optional_dependencies } else { &node.dev_dependencies };
                lists.keys().cloned().collect::<Vec<String>>()
            };
            let before = open.len();
            for root in roots {
                let known = of(root).into_iter().find(|known| normalized(known) == *name);
                open.extend(known.map(|known| (*root, format!("{mark}{known}"))));
            }
            if open.len() == before {
                return Err(lock.none(kind, name, roots.iter().flat_map(of)));
            }
        }
    }
    Ok(open)
}

/// The project that lies beside the lock; all members of a workspace that has none there.
fn roots(lock: &Lock) -> BTreeSet<usize> {
    let nodes = || lock.package.iter().enumerate();
    let own: BTreeSet<usize> =
        nodes().filter(|(_, node)| node.source.folder() == Some(".")).map(|(index, _)| index).collect();
    if !own.is_empty() {
        return own;
    }
    let members = lock.manifest.as_ref().map(|manifest| manifest.members.as_slice()).unwrap_or_default();
    nodes().filter(|(_, node)| members.contains(&node.name)).map(|(index, _)| index).collect()
}

fn find(lock: &Text<'_>, all: &Lock, edge: &Edge) -> Result<usize, RequirementsError> {
    let fits = |node: &Node| {
        node.name == edge.name
            && (edge.version.is_none() || edge.version == node.version)
            && edge.source.as_ref().is_none_or(|source| *source == node.source)
    };
    let found = all.package.iter().position(fits);
    found.ok_or_else(|| lock.error(format!("{} is needed, and is not in the lock", edge.name), None))
}

fn package(lock: &Text<'_>, node: &Node) -> Result<Package, RequirementsError> {
    let name = normalized(&node.name);
    let wrong = |message: String| lock.error(format!("{name}: {message}"), None);
    let place = &node.source;
    let subdirectory = place.subdirectory.clone().unwrap_or_default();
    let source = if let Some(git) = &place.git {
        let (rest, commit) =
            git.split_once('#').ok_or_else(|| wrong("its repository has no commit".to_owned()))?;
        let (url, query) = rest.split_once('?').unwrap_or((rest, ""));
        let pair = query.split('&').find_map(|pair| pair.strip_prefix("subdirectory="));
        let subdirectory = pair.map_or(subdirectory, |folder| folder.replace("%2F", "/"));
        Source::Git { url: Hidden::new(url), commit: commit.to_owned(), subdirectory }
    } else if let Some(url) = &place.url {
        let one = node.wheels.first().or(node.sdist.as_ref());
        let hash = one.and_then(|one| one.hash.as_deref());
        Source::Archive(File::new(None, Some(url.clone()), None, hash).map_err(wrong)?)
    } else if let Some(path) = place.folder().or(place.path.as_deref()) {
        Source::Path { path: lock.beside(path)?, subdirectory }
    } else if place.registry.is_some() {
        let files = node.wheels.iter().chain(&node.sdist).map(Distribution::file);
        Source::Files(files.collect::<Result<_, _>>().map_err(wrong)?)
    } else {
        return Err(wrong("where it is cannot be understood".to_owned()));
    };
    Ok(Package { name, version: node.version.clone(), source })
}
