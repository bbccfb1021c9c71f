//! What each rule takes, by the path of a file and the shape of its distribution.

use super::policy::Reason;
use super::shape::Shape;

/// What a rule says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Match<'p> {
    /// It is not about it.
    No,
    /// It takes it.
    Takes,
    /// It would take it, and does not.
    Spares(Reason<'p>),
}

/// The names of folders that rules go by.
pub(super) struct Folders {
    pub(super) tests: [&'static str; 2],
    pub(super) docs: [&'static str; 2],
    pub(super) examples: [&'static str; 2],
}

/// These, in lower case alone: a `Tests` is as likely to be a class of things as a folder of tests.
pub(super) const FOLDERS: Folders =
    Folders { tests: ["tests", "test"], docs: ["docs", "doc"], examples: ["examples", "example"] };

impl Folders {
    /// Names of folders that are left alone where they are packages.
    pub(super) fn others(&self) -> [&'static str; 4] {
        [self.docs[0], self.docs[1], self.examples[0], self.examples[1]]
    }

    pub(super) fn is_any(&self, name: &str) -> bool {
        self.tests.contains(&name) || self.others().contains(&name)
    }
}

/// The folders that a path is in, outermost first, each with its own name.
pub(super) fn parents(path: &str) -> impl Iterator<Item = (&str, &str)> {
    path.match_indices('/').map(|(end, _)| {
        let folder = &path[..end];
        (folder, folder.rsplit('/').next().unwrap_or(folder))
    })
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// What follows the last dot of a file's name, if anything is before it.
fn suffix(name: &str) -> &str {
    name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map_or("", |(_, suffix)| suffix)
}

/// Whether Python could import a file of this name, or load it as a library.
pub(super) fn is_module(name: &str) -> bool {
    matches!(suffix(name), "py" | "pyc" | "so") || name.contains(".so.")
}

/// Whether a test runner would take a file of this name for tests.
pub(super) fn is_test_module(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".py") else { return false };
    stem.starts_with("test_") || stem.ends_with("_test") || stem == "conftest"
}

pub(super) fn is_metadata(path: &str) -> bool {
    let top = path.split('/').next().unwrap_or(path);
    top.ends_with(".dist-info") || top.ends_with(".egg-info")
}

pub(super) fn is_bytecode(path: &str) -> bool {
    parents(path).any(|(_, name)| name == "__pycache__")
}

pub(super) fn is_installer_metadata(path: &str) -> bool {
    let Some((folder, file)) = path.split_once('/') else { return false };
    folder.ends_with(".dist-info") && matches!(file, "RECORD" | "INSTALLER" | "REQUESTED" | "direct_url.json")
}

/// In a folder of tests, only what a test runner imports, and data. Other modules there are helpers that code imports, too:
/// `numpy.testing` those of numpy, `h5py` its own. They are a twentieth of the bytes.
pub(super) fn tests<'p>(path: &str, distribution: &str, shape: Option<&Shape>) -> Match<'p> {
    let mut spared = Match::No;
    for (folder, name) in parents(path).filter(|(_, name)| FOLDERS.tests.contains(name)) {
        let Some(shape) = shape else { return Match::Spares(Reason::Unseen) };
        if !shape.is_suite(folder) {
            spared = Match::Spares(Reason::NoTests);
        } else if folder == name {
            return at_the_top(shape, distribution, name);
        } else if is_test_module(file_name(path)) || !is_module(file_name(path)) {
            return Match::Takes;
        } else {
            spared = Match::Spares(Reason::Module);
        }
    }
    spared
}

/// A folder beside packages is there by mistake, and nobody's to import, unless the distribution is just that.
fn at_the_top<'p>(shape: &Shape, distribution: &str, name: &str) -> Match<'p> {
    if distribution == name || !shape.has_other_tops() {
        return Match::Spares(Reason::AllThereIs);
    }
    Match::Takes
}

pub(super) fn docs<'p>(path: &str, distribution: &str, shape: Option<&Shape>) -> Match<'p> {
    if path.starts_with("share/doc/") || path.starts_with("share/man/") {
        return Match::Takes;
    }
    match folder_that_is_no_package(path, distribution, shape, &FOLDERS.docs) {
        Match::Takes if is_module(file_name(path)) => Match::Spares(Reason::Module),
        other => other,
    }
}

pub(super) fn examples<'p>(path: &str, distribution: &str, shape: Option<&Shape>) -> Match<'p> {
    let name = file_name(path);
    match folder_that_is_no_package(path, distribution, shape, &FOLDERS.examples) {
        Match::Takes if is_module(name) && suffix(name) != "py" => Match::Spares(Reason::Module),
        other => other,
    }
}

fn folder_that_is_no_package<'p>(
    path: &str,
    distribution: &str,
    shape: Option<&Shape>,
    names: &[&str],
) -> Match<'p> {
    let Some((folder, name)) = parents(path).find(|(_, name)| names.contains(name)) else {
        return Match::No;
    };
    let Some(shape) = shape else { return Match::Spares(Reason::Unseen) };
    if shape.is_package(folder) {
        return Match::Spares(Reason::Package);
    }
    if folder == name { at_the_top(shape, distribution, name) } else { Match::Takes }
}

/// Catalogs of gettext, by the folders that it looks for them in.
pub(super) fn locales<'p>(path: &str) -> Match<'p> {
    let mut parts = path.rsplit('/');
    let (file, folder, language) = (parts.next(), parts.next(), parts.next());
    let is_catalog = file.is_some_and(|file| matches!(suffix(file), "mo" | "po"));
    match language {
        Some(language) if is_catalog && folder == Some("LC_MESSAGES") && !is_english(language) => {
            Match::Takes
        }
        _ => Match::No,
    }
}

/// `C` and `POSIX` are what a program speaks without a language, which is English.
fn is_english(language: &str) -> bool {
    matches!(language.split(['_', '-', '.', '@']).next(), Some("en" | "C" | "POSIX"))
}

pub(super) fn typing<'p>(path: &str, shape: Option<&Shape>) -> Match<'p> {
    let name = file_name(path);
    let in_stubs = parents(path).next().is_some_and(|(top, _)| top.ends_with("-stubs"));
    if !(in_stubs || suffix(name) == "pyi" || name == "py.typed") {
        return Match::No;
    }
    match shape {
        None => Match::Spares(Reason::Unseen),
        Some(shape) if shape.reads_stubs => Match::Spares(Reason::StubsAreRead),
        Some(_) => Match::Takes,
    }
}

const SOURCES: [&str; 13] =
    ["c", "cc", "cpp", "cxx", "f", "f90", "h", "hh", "hpp", "hxx", "pxd", "pxi", "pyx"];

pub(super) fn sources<'p>(path: &str) -> Match<'p> {
    if SOURCES.contains(&suffix(file_name(path))) { Match::Takes } else { Match::No }
}
