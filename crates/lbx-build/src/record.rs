//! What a build leaves for the next one: from what it followed, so that one that would come to the same need not begin, and
//! where the compressed bytes of own files are.
//!
//! Kept in the store under `builds/v1/`, by project and output. It is only ever a shortcut: a record that is not there, or
//! cannot be read or written, costs time and nothing else. It has a checksum, because what it says of bytes is believed.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt;
use lbx_plan::locks::{Selection, Source};
use lbx_plan::prune::RuntimeProvided;
use lbx_plan::{Artifact, Bytecode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::builder::cache::key;
use crate::digest::checksum;
use crate::engine::{Context, Destination};
use crate::own::Before;
use crate::project::Project;
use crate::report::Report;
use crate::resolve::ResolvedSet;
use crate::stamp::Stamp;

/// The form of records, counted up whenever it or the meaning of its content changes.
const FORM: &[u8] = b"lbx build 4\n";

/// The moment before a command looks at anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start(Option<Stamp>);

impl Start {
    /// Now, by the clock of the file system, which is the one that stamps files.
    pub fn now(cache_dir: &Path) -> Self {
        let stamp = || {
            let folder = folder(cache_dir);
            fs_err::create_dir_all(&folder).ok()?;
            let file = tempfile::tempfile_in(folder).ok()?;
            Some(Stamp::of(&file.metadata().ok()?))
        };
        Self(stamp())
    }

    /// Whether whatever happens to a file from now on shows in its stamp.
    pub(crate) fn is_after(&self, stamp: &Stamp) -> bool {
        self.0.is_some_and(|start| stamp.is_older(&start))
    }
}

/// What an artifact followed from, as far as that is files; none when there is more to it.
#[derive(Clone, Debug, Default)]
pub struct Basis(Option<Files>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Files {
    present: Vec<(String, Stamp)>,
    absent: Vec<String>,
    /// What was made.
    made: Vec<(String, Stamp)>,
    zips: Vec<String>,
    reports: Vec<String>,
    /// How much the checks found.
    findings: usize,
}

/// What the last build has left, as far as it is to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unchanged {
    /// The zips.
    pub zips: Vec<PathBuf>,
    /// The reports, one for each CPU.
    pub reports: Vec<PathBuf>,
    /// How much the checks found. It is in the reports.
    pub findings: usize,
}

#[derive(Serialize, Deserialize)]
struct Record {
    question: Vec<String>,
    files: Files,
}

/// What the last build of which `question` was asked has left, all in its place and as it was, if it would come to the same
/// again. `question` is all that is not in files.
pub fn unchanged(cache_dir: &Path, question: &[String]) -> Option<Unchanged> {
    let record: Record = read(&path(cache_dir, question))?;
    let Files { present, absent, made, zips, reports, findings } = record.files;
    let is_same = record.question == question
        && absent.iter().all(|path| fs_err::symlink_metadata(path).is_err())
        && made.iter().chain(&present).all(|(path, stamp)| stamp_of(Path::new(path)).as_ref() == Some(stamp));
    let paths = |texts: Vec<String>| texts.into_iter().map(PathBuf::from).collect();
    is_same.then(|| Unchanged { zips: paths(zips), reports: paths(reports), findings })
}

/// Remembers what came of `question`. `more` are files that were read beside those that builds know of.
pub fn remember(cache_dir: &Path, question: &[String], start: Start, more: &[PathBuf], bases: &[Basis]) {
    let mut all = Files::default();
    for basis in bases {
        let Some(files) = &basis.0 else { return };
        all.present.extend_from_slice(&files.present);
        all.absent.extend_from_slice(&files.absent);
        all.made.extend_from_slice(&files.made);
        all.zips.extend_from_slice(&files.zips);
        all.reports.extend_from_slice(&files.reports);
        all.findings += files.findings;
    }
    for path in more {
        let (Some(text), Some(stamp)) = (path.to_str(), stamp_of(path)) else { return };
        all.present.push((text.to_owned(), stamp));
    }
    if all.present.iter().all(|(_, stamp)| start.is_after(stamp)) {
        write(&path(cache_dir, question), &Record { question: question.to_vec(), files: all });
    }
}

fn folder(cache_dir: &Path) -> PathBuf {
    cache_dir.join("builds/v1")
}

fn path(cache_dir: &Path, question: &[String]) -> PathBuf {
    let words: Vec<&str> = question.iter().map(String::as_str).collect();
    folder(cache_dir).join(format!("{}.noop", key(&words)))
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    fs_err::metadata(path).ok().map(|metadata| Stamp::of(&metadata))
}

/// The kind of record by which a build knows a folder that it has made.
pub(crate) const TREE: &str = "tree";

/// The bytes of a file that a build has left, which may be anything by now: nothing where it is no file, and nothing is waited
/// for.
pub(crate) fn left(path: &Path) -> Option<Vec<u8>> {
    let no_wait = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut file = fs_err::OpenOptions::new().read(true).custom_flags(no_wait).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Where what is known of a path is kept.
pub(crate) fn path_of(cache_dir: &Path, path: &str, kind: &str) -> PathBuf {
    folder(cache_dir).join(format!("{}.{kind}", key(&[path])))
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = fs_err::read(path).ok()?;
    let value = decode(&bytes);
    if value.is_none() {
        tracing::debug!(path = %path.display(), "a record is not as it was written, or another lbx's");
    }
    value
}

/// A line, a checksum of the rest, and the value.
fn encode<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    let value = postcard::to_allocvec(value).ok()?;
    Some([FORM, &checksum(&value).to_le_bytes(), &value].concat())
}

/// None for anything but what [`encode`] gave.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (sum, value) = bytes.strip_prefix(FORM)?.split_at_checked(4)?;
    (checksum(value).to_le_bytes() == *sum).then(|| postcard::from_bytes(value).ok())?
}

pub(crate) fn write<T: Serialize>(path: &Path, value: &T) {
    let try_write = || {
        let folder = path.parent()?;
        fs_err::create_dir_all(folder).ok()?;
        let mut file = tempfile::NamedTempFile::new_in(folder).ok()?;
        std::io::Write::write_all(&mut file, &encode(value)?).ok()?;
        file.persist(path).ok()
    };
    if try_write().is_none() {
        tracing::debug!(path = %path.display(), "no record of this build is kept");
    }
}

impl Basis {
    /// What the artifacts of a build followed from. It is not files alone where something was resolved, was built from
    /// folders, or has the value of a variable in it.
    pub(crate) fn of(
        context: &Context,
        sets: &[ResolvedSet],
        report: &Report,
        published: BTreeMap<PathBuf, Stamp>,
    ) -> Self {
        let is_resolved = |set: &ResolvedSet| set.lock.is_none();
        let options = &context.options;
        // Where something was built, the image counts, and its tag may lead to another one.
        let is_built = |set: &ResolvedSet| !set.built.is_empty();
        let is_provided = |artifact: &Artifact| artifact.prune.runtime_provided == RuntimeProvided::Drop;
        let has_bytecode = |artifact: &Artifact| artifact.bytecode != Bytecode::Without;
        let artifacts = &context.plan.artifacts;
        let counts_the_image = sets.iter().any(is_built)
            || artifacts.iter().any(|artifact| is_provided(artifact) || has_bytecode(artifact));
        if counts_the_image
            || options.rebuild
            || options.from.is_some()
            || sets.iter().any(is_resolved)
            || has_more(context)
        {
            return Self::default();
        }
        let mut files = files(context);
        if let Some(files) = &mut files {
            files.findings = report.stable.artifacts.iter().map(|artifact| artifact.findings.len()).sum();
            let text = |(path, stamp): (PathBuf, Stamp)| Some((path.to_str()?.to_owned(), stamp));
            files.made = published.into_iter().filter_map(text).collect();
        }
        Self(files)
    }
}

/// Whether a set has what is not in one file.
fn has_more(context: &Context) -> bool {
    let is_folder = |source: &Source| matches!(source, Source::Path { .. });
    let locked = context.locks.iter().filter_map(|lock| lock.locked.as_ref());
    locked.flat_map(|locked| &locked.packages).any(|package| is_folder(&package.source))
        || context.plan.sets.iter().any(|set| !set.paths.is_empty())
        || context
            .project
            .files
            .paths()
            .any(|path| context.project.files.get(path).is_some_and(|text| text.contains("${")))
}

fn files(context: &Context) -> Option<Files> {
    let mut files = Files::default();
    for path in read_of_project(context) {
        let text = path.to_str()?.to_owned();
        match stamp_of(&path) {
            Some(stamp) => files.present.push((text, stamp)),
            None => files.absent.push(text),
        }
    }
    for part in context.parts.iter().flatten() {
        for (folder, stamp) in &part.tree.folders {
            files.present.push((folder.to_str()?.to_owned(), *stamp));
        }
        for file in &part.tree.files {
            files.present.push((file.location.to_str()?.to_owned(), file.stamp));
        }
    }
    for artifact in &context.plan.artifacts {
        let zip = context.options.destination.zip(&artifact.name);
        files.zips.push(zip.to_str()?.to_owned());
    }
    files.reports.push(context.options.destination.report().to_str()?.to_owned());
    files.present.sort_by(|left, right| left.0.cmp(&right.0));
    files.present.dedup();
    Some(files)
}

/// The files that the configuration leads to, whether they are there or not.
fn read_of_project(context: &Context) -> Vec<PathBuf> {
    let Project { root, config, files } = &context.project;
    let mut paths = Vec::new();
    if !config.origin.file.is_empty() {
        paths.push(root.join(&config.origin.file));
    }
    paths.extend(files.paths().map(|path| root.join(Selection::split(path).0)));
    for lock in &context.locks {
        let lock = root.join(Selection::split(&lock.path).0);
        paths.push(lock.with_file_name("pyproject.toml"));
        paths.push(lock);
    }
    paths.sort();
    paths.dedup();
    paths
}

/// What the builds of a project into one place know of its artifacts' own files.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) artifacts: BTreeMap<String, Before>,
}

impl Known {
    fn path(cache_dir: &Path, project: &Project, destination: &Destination) -> PathBuf {
        let words =
            [project.root.to_string_lossy(), destination.report().to_string_lossy().into_owned().into()];
        folder(cache_dir).join(format!("{}.own", key(&words.each_ref().map(|word| &**word))))
    }

    /// What is known.
    pub(crate) fn load(cache_dir: &Path, project: &Project, destination: &Destination) -> Self {
        read(&Self::path(cache_dir, project, destination)).unwrap_or_default()
    }

    /// Puts what a build has found out beside what is known of artifacts that it has not built.
    pub(crate) fn keep(
        mut self,
        context: &Context,
        found: Vec<(String, Before)>,
        published: &BTreeMap<PathBuf, Stamp>,
    ) {
        let destination = &context.options.destination;
        for (name, before) in found {
            let zip = published.get(&destination.zip(&name)).copied();
            self.artifacts.insert(name, Before { zip, ..before });
        }
        write(&Self::path(&context.ground.host.cache_dir, &context.project, destination), &self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_was_changed_or_cut_off_is_none() {
        let value =
            Record { question: vec!["build".to_owned()], files: Files { findings: 7, ..Files::default() } };
        let bytes = encode(&value).unwrap();
        let read = |bytes: &[u8]| decode::<Record>(bytes).map(|record| (record.question, record.files));
        assert_eq!(read(&bytes), Some((value.question, value.files)));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(read(&changed).is_none() && read(&bytes[..at]).is_none(), "byte {at}");
        }
    }
}
