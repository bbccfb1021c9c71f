//! What is wrong with an artifact, as far as can be told before it runs: its size, its libraries, its files.
//!
//! Every file is looked into once, where it is read anyway or once for each wheel, and what is found there ([`Facts`]) is
//! kept. The rest are pure functions of that.

mod elf;
mod facts;
mod files;
mod known;
mod limits;
mod suffixes;

use std::collections::{BTreeMap, BTreeSet};

use lbx_plan::Runtime;
use lbx_plan::prune::{Decision, Set};
use schemars::JsonSchema;
use serde::Serialize;

pub(crate) use self::facts::{ElfFacts, FACTS, Facts, LARGEST, has_facts, look};
pub(crate) use self::files::MODES;
pub(crate) use self::known::Known;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It will not work, or must not be published.
    Error,
    /// It may be meant.
    Warning,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Lambda's limits.
    Limits,
    /// Machine code.
    Elf,
    /// Names and modes.
    Files,
    /// What should be known to nobody else.
    Secrets,
    /// What is left to the runtime.
    Runtime,
    /// The import of the handler.
    Import,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at.
    pub check: Check,
    /// The file, if it is one file.
    pub path: Option<String>,
    /// Whose file it is.
    pub owner: Option<String>,
    /// What is wrong.
    pub message: String,
    /// More of it, in lines, such as Python's traceback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
    /// What can be done about it.
    pub hint: Option<String>,
    /// Who may know more.
    #[serde(skip)]
    pub(crate) lead: Option<Lead>,
}

/// Who may know more about something that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lead {
    /// An image: it may have the library.
    Image,
    /// An index: it may have another version of the package whose wheels fit.
    Index,
}

impl Finding {
    pub(crate) fn new(severity: Severity, check: Check, message: String) -> Self {
        Self { severity, check, path: None, owner: None, message, details: None, hint: None, lead: None }
    }

    fn about(self, file: &File<'_>) -> Self {
        // No index has another version of what is the user's own.
        let lead = self.lead.filter(|lead| !file.own || *lead != Lead::Index);
        Self { path: Some(file.path.to_owned()), owner: Some(file.owner.to_owned()), lead, ..self }
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(crate) fn with_lead(self, lead: Lead) -> Self {
        Self { lead: Some(lead), ..self }
    }

    pub(crate) fn with_details(self, details: Option<String>) -> Self {
        Self { details, ..self }
    }
}

/// One file of an artifact.
#[derive(Clone, Copy, Debug)]
pub(crate) struct File<'f> {
    pub(crate) path: &'f str,
    /// Whose it is, in words.
    pub(crate) owner: &'f str,
    /// Whether it is the user's own.
    pub(crate) own: bool,
    /// Bytes once unpacked.
    pub(crate) size: u64,
    /// The permission bits, where something else than lbx may have set them.
    pub(crate) mode: Option<u32>,
    /// The set of rules that would leave it out.
    pub(crate) offered: Option<Set>,
    pub(crate) facts: Option<&'f Facts>,
}

#[cfg(test)]
impl<'f> File<'f> {
    /// A file of a package, of which nothing is known.
    fn of_package(path: &'f str) -> Self {
        Self { path, owner: "x 1", own: false, size: 1, mode: None, offered: None, facts: None }
    }
}

/// An artifact.
#[derive(Clone, Debug)]
pub(crate) struct Subject<'s> {
    pub(crate) name: &'s str,
    /// Bytes of the zip; none for a folder.
    pub(crate) zip_size: Option<u64>,
    pub(crate) is_layer: bool,
    pub(crate) files: Vec<File<'s>>,
    /// Further paths of files, by their place in the list: of links that lead to them.
    pub(crate) names: Vec<(&'s str, usize)>,
}

impl Subject<'_> {
    fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// Where an artifact is to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'t> {
    pub(crate) runtime: &'t Runtime,
    pub(crate) arch: lbx_plan::Architecture,
    /// The libraries of the image, where one is open.
    pub(crate) image: Option<&'t ImageLibraries>,
}

/// The libraries of an image, which may be more than every image of the runtime has.
#[derive(Clone, Debug)]
pub(crate) struct ImageLibraries {
    /// The image, as it was asked for.
    pub(crate) image: String,
    /// Whether it is the runtime's own, so that functions have them, too.
    pub(crate) is_runtimes: bool,
    pub(crate) names: BTreeSet<String>,
}

/// Looks at an artifact, with the layers that it runs with. What is found is sorted, the worst first.
///
/// Where nothing is known of a layer, `layers` is none, and what might be in it is not missed.
pub(crate) fn check(
    subject: &Subject<'_>,
    layers: Option<&[&Subject<'_>]>,
    target: &Target<'_>,
) -> Vec<Finding> {
    let mut found = limits::check(subject, layers.unwrap_or_default());
    found.extend(elf::check(subject, layers, target));
    found.extend(suffixes::check(subject, target.runtime));
    found.extend(files::check(subject, target.runtime));
    found.sort();
    found
}

/// What is to be said where the AWS SDK was to be left to the runtime.
pub(crate) fn of_the_sdk(decision: Option<&Decision>) -> Option<Finding> {
    let Decision::Kept { why, .. } = decision? else { return None };
    let message = format!("the AWS SDK is not left to the runtime: {why}");
    Some(Finding::new(Severity::Warning, Check::Runtime, message))
}

/// Numbers summed by a name, the largest first.
fn largest<'n>(all: impl Iterator<Item = (&'n str, u64)>) -> Vec<(&'n str, u64)> {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, size) in all {
        *sums.entry(name).or_default() += size;
    }
    let mut sums: Vec<_> = sums.into_iter().filter(|(_, size)| *size > 0).collect();
    sums.sort_by_key(|&(name, size)| (std::cmp::Reverse(size), name));
    sums
}
