//! `lbx lock`: what pip resolves, written down as `pylock.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use lbx_plan::locks::{self, Entry, Environment, File, Locked, Origin, Resolved};
use lbx_plan::{DependencySet, Hidden, Plan};
use lbx_wheel::{Wheel, normalize_name};

use crate::builder::Made;
use crate::cancel::Cancel;
use crate::engine::{self, Context, Host, Options};
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::locked;
use crate::project::Project;
use crate::report::TakenReport;
use crate::resolve::{self, ResolvedSet};
use crate::workshop::Workshop;

/// Which packages may move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upgrade {
    /// All of them.
    pub all: bool,
    /// These, by name.
    pub names: Vec<String>,
}

/// What became of one lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockWritten {
    /// Its path, relative to the project.
    pub path: String,
    /// How many packages it has.
    pub packages: usize,
    /// What is another than in the lock that was there: `+ NAME VERSION`, `- NAME VERSION`, `NAME OLD → NEW`.
    pub changes: Vec<String>,
}

/// Resolves every set of every plan, of which there is one for each target, and writes the lock of each set. Either all
/// are written or none.
pub async fn lock(
    project: Project,
    plans: Vec<Plan>,
    host: Host,
    options: Options,
    upgrade: Upgrade,
    cancel: &Cancel,
    observer: &Observer,
) -> Result<Vec<LockWritten>, Error> {
    let locks: Vec<String> =
        plans.iter().flat_map(|plan| &plan.sets).filter_map(|set| set.locked_by.clone()).collect();
    if plans.iter().flat_map(|plan| &plan.sets).all(|set| set.locked_by.is_some()) {
        return Err(Error::NothingToLock { locks });
    }
    let mut targets = Vec::new();
    for plan in plans {
        let (project, host, options) = (project.clone(), host.clone(), options.clone());
        let workshop = engine::prepare(project, plan, host, options, cancel, observer)?;
        workshop.open().await?;
        let upgrade = upgrade.clone();
        let work = tokio::task::spawn_blocking(move || target(&workshop, &upgrade));
        targets.push(work.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?);
    }
    cancel.check()?;
    known(&targets, &upgrade)?;
    let made = written(&targets);
    let staged = made.iter().map(|(text, written)| stage(&project.root.join(&written.path), text));
    for (file, (_, written)) in staged.collect::<Result<Vec<_>, Error>>()?.into_iter().zip(&made) {
        file.persist(project.root.join(&written.path)).map_err(|error| error.error)?;
        let LockWritten { path, packages, changes } = written.clone();
        observer(Event::LockWritten { path, packages, changes });
    }
    Ok(made.into_iter().map(|(_, written)| written).collect())
}

/// Refuses the name of a package that is in none of the locks: it was meant to be another one.
fn known(targets: &[Target], upgrade: &Upgrade) -> Result<(), Error> {
    let entries = || targets.iter().flat_map(|target| &target.sets).flat_map(|set| &set.entries);
    let is_unknown = |name: &&String| entries().all(|entry| entry.name != normalize_name(name));
    match upgrade.names.iter().find(is_unknown) {
        Some(name) => Err(Error::UnknownPackage { name: name.clone() }),
        None => Ok(()),
    }
}

/// What one target comes to.
struct Target {
    environment: Environment,
    /// For each set that has to be locked.
    sets: Vec<SetResolved>,
}

struct SetResolved {
    /// The path of the lock.
    path: String,
    lines: Vec<Hidden>,
    entries: Vec<Entry>,
    /// What is another than before.
    changes: Vec<String>,
}

fn target(workshop: &Arc<Workshop>, upgrade: &Upgrade) -> Result<Target, Error> {
    let context = workshop.context();
    let sets = engine::parallel(context, &context.plan.sets, |index, set| match set.locked_by {
        Some(_) => Ok(None),
        None => lock_set(workshop, index, set, upgrade).map(Some),
    })?;
    let environment = locked::environment(&context.plan)?;
    Ok(Target { environment, sets: sets.into_iter().flatten().collect() })
}

/// The texts of the locks. The sets are the same for all targets.
fn written(targets: &[Target]) -> Vec<(String, LockWritten)> {
    let count = targets.first().map_or(0, |target| target.sets.len());
    let one = |number: usize| {
        let of = |target: &Target| (target.environment.clone(), target.sets[number].entries.clone());
        let resolved: Vec<Resolved> = targets.iter().map(of).collect();
        let set = &targets[0].sets[number];
        let names: BTreeSet<&str> =
            resolved.iter().flat_map(|(_, entries)| entries).map(|entry| entry.name.as_str()).collect();
        let mut changes: Vec<String> =
            targets.iter().flat_map(|target| target.sets[number].changes.clone()).collect();
        changes.sort();
        changes.dedup();
        let packages = names.len();
        (locks::write(&resolved, &set.lines), LockWritten { path: set.path.clone(), packages, changes })
    };
    (0..count).map(one).collect()
}

/// A file beside the lock, which takes its place when all are there.
fn stage(path: &Path, text: &str) -> Result<tempfile::NamedTempFile, Error> {
    use std::os::unix::fs::PermissionsExt;
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(path))?;
    file.write_all(text.as_bytes())?;
    // It is for everybody's checkout, and not only for whoever wrote it.
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    Ok(file)
}

fn lock_set(
    workshop: &Arc<Workshop>,
    index: usize,
    set: &DependencySet,
    upgrade: &Upgrade,
) -> Result<SetResolved, Error> {
    let context = workshop.context();
    let old = old(context, set)?;
    let builder = workshop.builder()?;
    let kept = kept(&old, upgrade);
    let resolved = match resolve::run_with(&builder, index, set, &kept) {
        // What was locked may be what is in the way.
        Err(Error::Pip { .. }) if !kept.is_empty() => resolve::run(&builder, index, set)?,
        resolved => resolved?,
    };
    let entries = resolved.wheels.iter().map(|wheel| entry(set, &resolved, wheel));
    let entries = entries.collect::<Result<Vec<_>, Error>>()?;
    let changes = changes(&old, &entries);
    Ok(SetResolved { path: set.lock.clone(), lines: set.lines.clone(), entries, changes })
}

/// The lock that is there. One that cannot be read, or is for another target, keeps nothing.
fn old(context: &Context, set: &DependencySet) -> Result<Locked, Error> {
    let Some((text, _)) = context.project.lock(&set.lock)? else { return Ok(Locked::default()) };
    let lock = locks::Text { path: &set.lock, text: &text, project: None };
    Ok(locks::read(lock, &locked::environment(&context.plan)?).unwrap_or_default())
}

/// Constraints that keep packages where they are.
fn kept(old: &Locked, upgrade: &Upgrade) -> Vec<String> {
    if upgrade.all {
        return Vec::new();
    }
    let moving: BTreeSet<String> = upgrade.names.iter().map(|name| normalize_name(name)).collect();
    let stays = old.packages.iter().filter(|package| !moving.contains(&package.name));
    // What is not from an index is where it is, whatever its version.
    let from_index = stays.filter(|package| matches!(package.source, locks::Source::Files(_)));
    from_index
        .filter_map(|package| Some(format!("{}=={}", package.name, package.version.as_ref()?)))
        .collect()
}

fn changes(old: &Locked, new: &[Entry]) -> Vec<String> {
    let old: BTreeMap<&str, &str> = old
        .packages
        .iter()
        .map(|package| (package.name.as_str(), package.version.as_deref().unwrap_or("?")))
        .collect();
    let new: BTreeMap<&str, &str> =
        new.iter().map(|entry| (entry.name.as_str(), entry.version.as_str())).collect();
    let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let change = |name: &str| match (old.get(name), new.get(name)) {
        (None, Some(new)) => Some(format!("+ {name} {new}")),
        (Some(old), None) => Some(format!("- {name} {old}")),
        (Some(old), Some(new)) if old != new => Some(format!("{name} {old} → {new}")),
        _ => None,
    };
    names.into_iter().filter_map(change).collect()
}

fn entry(set: &DependencySet, resolved: &ResolvedSet, wheel: &Wheel) -> Result<Entry, Error> {
    let digest = wheel.digest.to_string();
    let taken = |sha256: &str| resolved.taken.iter().find(|taken| taken.sha256 == sha256).map(from_index);
    let built = resolved.built.iter().find(|built| built.wheel.digest == wheel.digest);
    let origin = match built.map(|built| &built.made) {
        Some(Made::Distribution { sha256 }) => taken(sha256),
        Some(Made::Path { path, sha256 }) => {
            Some(Origin::Path { path: from_lock(&set.lock, path), sha256: sha256.clone() })
        }
        Some(Made::Git { url, reference, commit, subdirectory }) => Some(Origin::Git {
            url: url.clone(),
            reference: reference.clone(),
            commit: commit.clone(),
            subdirectory: subdirectory.clone(),
        }),
        None => taken(&digest).or_else(|| {
            let name = wheel.filename.to_string();
            let path = set.paths.iter().find(|path| path.rsplit('/').next() == Some(&name))?;
            Some(Origin::Path { path: from_lock(&set.lock, path), sha256: Some(digest) })
        }),
    };
    let name = normalize_name(&wheel.metadata.name);
    let version = wheel.metadata.version.clone();
    match origin {
        Some(origin) => Ok(Entry { name, version, origin }),
        None => Err(Error::NoOrigin { package: format!("{name} {version}") }),
    }
}

fn from_index(taken: &TakenReport) -> Origin {
    // What stood behind a `?` is a secret, or for one time only.
    let url = taken.url.clone().filter(|url| !url.contains('?') && url.contains("://"));
    let file = File {
        name: Some(taken.file.clone()),
        url: url.map(Hidden::new),
        size: taken.size,
        sha256: taken.sha256.clone(),
    };
    match &taken.index {
        None => Origin::Archive(file),
        Some(index) => {
            Origin::Index { index: Some(index.clone()).filter(|index| index.contains("://")), file }
        }
    }
}

/// A path from the folder of the lock.
fn from_lock(lock: &str, path: &str) -> String {
    let folders = lock.matches('/').count();
    let folder = lock.rsplit_once('/').map_or("", |(folder, _)| folder);
    match path.strip_prefix(folder).and_then(|path| path.strip_prefix('/')) {
        Some(path) if folders > 0 => path.to_owned(),
        _ => format!("{}{path}", "../".repeat(folders)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_as_seen_from_the_lock() {
        for (lock, path, expected) in [
            ("pylock.toml", "lib", "lib"),
            ("pylock.toml", "../lib", "../lib"),
            ("a/b/pylock.toml", "lib", "../../lib"),
            ("a/b/pylock.toml", "a/b/lib", "lib"),
            ("a/b/pylock.toml", "a/bc", "../../a/bc"),
        ] {
            assert_eq!(from_lock(lock, path), expected, "{lock} {path}");
        }
    }
}
