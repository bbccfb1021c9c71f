//! Locks: which packages exactly, in the formats of all tools that write them, for one target.
//!
//! A lock is read into [`Locked`]: the packages that the target gets, each with where it is and what its files' hashes
//! are. Markers are evaluated for the target and never for the host. What a format leaves open, such as addresses, stays
//! open here; whoever fetches asks an index.

mod covers;
mod environment;
mod hashed;
mod pdm;
mod pipfile;
mod poetry;
mod project;
mod pylock;
mod selection;
mod uv;

pub use self::covers::{Missing, covers};
pub use self::environment::Environment;
pub use self::hashed::is_hashed;
pub use self::project::requirements;
pub use self::pylock::{Entry, Origin, Resolved, fingerprint, write};
pub use self::selection::Selection;

use crate::hidden::Hidden;
use crate::position::Position;
use crate::requirements::RequirementsError;

/// A tool's way to write a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `pylock.toml` and `pylock.NAME.toml` (PEP 751).
    Pylock,
    /// `uv.lock`.
    Uv,
    /// `poetry.lock`.
    Poetry,
    /// `pdm.lock`.
    Pdm,
    /// `Pipfile.lock`.
    Pipfile,
}

impl Format {
    /// The format of a file, which its name tells, whatever is wanted of it.
    pub fn of(named: &str) -> Option<Self> {
        Self::of_path(Selection::split(named).0)
    }

    fn of_path(path: &str) -> Option<Self> {
        match path.rsplit('/').next()? {
            "uv.lock" => Some(Self::Uv),
            "poetry.lock" => Some(Self::Poetry),
            "pdm.lock" => Some(Self::Pdm),
            "Pipfile.lock" => Some(Self::Pipfile),
            "pylock.toml" => Some(Self::Pylock),
            name => {
                let middle = name.strip_prefix("pylock.")?.strip_suffix(".toml")?;
                (!middle.is_empty() && !middle.contains('.')).then_some(Self::Pylock)
            }
        }
    }
}

/// What a target gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locked {
    /// The packages, by name; a name may be there once only.
    pub packages: Vec<Package>,
    /// The [`fingerprint`] of what it was made from, if it says so.
    pub made_from: Option<String>,
}

/// One package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its normalised name.
    pub name: String,
    /// Its version, where the lock says it.
    pub version: Option<String>,
    /// Where it is.
    pub source: Source,
}

/// Where a package is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// One of these files, from an index or from where they say.
    Files(Vec<File>),
    /// One archive by its address.
    Archive(File),
    /// A folder or an archive, relative to the project; it may begin with `..`.
    Path {
        /// The path.
        path: String,
        /// The folder in it that is the project; empty for the top.
        subdirectory: String,
    },
    /// A commit of a repository.
    Git {
        /// The repository's address, without `git+` and without a commit.
        url: Hidden,
        /// The commit.
        commit: String,
        /// The folder in it that is the project; empty for the top.
        subdirectory: String,
    },
}

/// A file of a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// Its name, where the lock says it.
    pub name: Option<String>,
    /// Its address, where the lock says it.
    pub url: Option<Hidden>,
    /// Its size in bytes, where the lock says it.
    pub size: Option<u64>,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
}

impl File {
    /// Whether its name says that it is a wheel.
    pub fn is_wheel(&self) -> bool {
        self.name.as_ref().is_some_and(|name| name.rsplit('.').next() == Some("whl"))
    }

    /// A file whose name is the end of its address, unless it is said otherwise.
    fn new(
        name: Option<String>,
        url: Option<String>,
        size: Option<u64>,
        hash: Option<&str>,
    ) -> Result<Self, String> {
        let ending = url.as_deref().and_then(|url| {
            let path = url.split(['?', '#']).next()?;
            Some(path.rsplit('/').next()?.to_owned()).filter(|name| !name.is_empty())
        });
        let name = name.or(ending);
        let what = name.clone().unwrap_or_else(|| "a file".to_owned());
        let hash = hash.ok_or_else(|| format!("{what} has no SHA-256, so it cannot be verified"))?;
        let sha256 = hash.strip_prefix("sha256:").unwrap_or(hash).to_ascii_lowercase();
        if sha256.len() != 64 || !sha256.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(format!("`{hash}` is no SHA-256 of {what}"));
        }
        Ok(Self { name, url: url.map(Hidden::new), size, sha256 })
    }
}

/// A lock as it was read from a file.
#[derive(Clone, Copy, Debug)]
pub struct Text<'t> {
    /// The file, relative to the project, with what is wanted of it.
    pub path: &'t str,
    /// What it says.
    pub text: &'t str,
    /// What the `pyproject.toml` beside it says, which some formats need.
    pub project: Option<&'t str>,
}

impl Text<'_> {
    fn error(&self, message: impl Into<String>, hint: Option<&str>) -> RequirementsError {
        RequirementsError {
            position: Position::line(self.path, 0),
            message: message.into(),
            hint: hint.map(str::to_owned),
        }
    }

    fn selection(&self) -> Selection {
        Selection::split(self.path).1
    }

    /// Refuses what is wanted and is not there.
    fn none(&self, kind: &str, name: &str, known: impl IntoIterator<Item = String>) -> RequirementsError {
        let known: Vec<String> = known.into_iter().collect();
        let hint = if known.is_empty() {
            "it has none".to_owned()
        } else {
            format!("there are {}", known.join(", "))
        };
        self.error(format!("it has no {kind} `{name}`"), Some(&hint))
    }

    fn toml<T: serde::de::DeserializeOwned>(&self) -> Result<T, RequirementsError> {
        toml::from_str(self.text).map_err(|error| RequirementsError {
            position: Position::of(self.path, self.text, error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
            hint: None,
        })
    }

    /// Markers that nobody understands are an error: left out, they would let everything in.
    fn holds(
        &self,
        environment: &Environment,
        marker: Option<&str>,
        wanted: &Selection,
    ) -> Result<bool, RequirementsError> {
        let Some(marker) = marker.filter(|marker| !marker.trim().is_empty()) else { return Ok(true) };
        environment
            .holds(marker, wanted)
            .map_err(|why| self.error(format!("the marker `{marker}` cannot be understood: {why}"), None))
    }

    /// Refuses a lock whose `requires-python` leaves the target out.
    fn python(&self, environment: &Environment, requires: Option<&str>) -> Result<(), RequirementsError> {
        let Some(requires) = requires.filter(|requires| !requires.trim().is_empty()) else { return Ok(()) };
        match environment.python_in(requires) {
            Some(true) => Ok(()),
            Some(false) => Err(self.error(
                format!("the lock is for Python {requires}, and the runtime has {}", environment.python()),
                Some("choose another `runtime`, or make a lock for this one"),
            )),
            None => Err(self.error(format!("`{requires}` names no versions of Python"), None)),
        }
    }

    /// What the packages are, sorted, each name once.
    fn locked(&self, mut packages: Vec<Package>) -> Result<Locked, RequirementsError> {
        packages.sort_by(|left, right| left.name.cmp(&right.name));
        packages.dedup();
        if let Some(pair) = packages.windows(2).find(|pair| pair[0].name == pair[1].name) {
            let version = |one: &Package| one.version.clone().unwrap_or_else(|| "no version".to_owned());
            return Err(self.error(
                format!("there are two of {}: {} and {}", pair[0].name, version(&pair[0]), version(&pair[1])),
                Some("their markers hold for this runtime and CPU at once; lock again"),
            ));
        }
        Ok(Locked { packages, made_from: None })
    }

    /// A path that the lock has, which is relative to the lock, from the project.
    fn beside(&self, path: &str) -> Result<String, RequirementsError> {
        if path.starts_with('/') {
            return Err(self.error(
                format!("`{path}` is a place on one machine alone"),
                Some("make it a path from the lock, and lock again"),
            ));
        }
        let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        Ok(crate::requirements::from_project(&format!("{folder}/{path}")))
    }
}

/// Reads a lock for a target.
pub fn read(lock: Text<'_>, environment: &Environment) -> Result<Locked, RequirementsError> {
    match Format::of(lock.path) {
        Some(Format::Pylock) => pylock::read(&lock, environment),
        Some(Format::Uv) => uv::read(&lock, environment),
        Some(Format::Poetry) => poetry::read(&lock, environment),
        Some(Format::Pdm) => pdm::read(&lock, environment),
        Some(Format::Pipfile) => pipfile::read(&lock, environment),
        None => hashed::read(&lock, environment),
    }
}

/// A name as indexes compare names: runs of `-`, `_` and `.` are one `-`, and case does not count.
pub(crate) fn normalized(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for character in name.chars() {
        if matches!(character, '-' | '_' | '.') {
            if !out.ends_with('-') {
                out.push('-');
            }
        } else {
            out.extend(character.to_lowercase());
        }
    }
    out
}

#[cfg(test)]
mod tests;
