//! What a session took from the indexes, what failed, and what it was not given.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::page::words;
use crate::{Digest, Error, SafeUrl};

/// The most refusals that are written down one by one.
const REFUSALS: usize = 1000;
/// The longest path that is written down, in characters.
const PATH: usize = 200;

/// All that happened in a session.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// Files, in the order in which they were taken.
    pub files: Vec<TakenFile>,
    /// What failed, in order.
    pub failures: Vec<Failed>,
    /// What was asked for and not given, in order: a thousand at most.
    pub refused: Vec<Refused>,
}

/// A file that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenFile {
    /// The project's normalised name; none for a file that was named by its address.
    pub project: Option<String>,
    /// The file's name.
    pub name: String,
    /// The version in its name.
    pub version: Option<String>,
    /// Where it is.
    pub url: SafeUrl,
    /// Its SHA-256.
    pub sha256: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The index that lists it.
    pub index: Option<SafeUrl>,
    /// Whether all of it was taken, and not only parts to look at.
    pub whole: bool,
}

/// Something that was asked for and could not be had.
#[derive(Debug, Clone)]
pub struct Failed {
    /// A project's or a file's name.
    pub what: String,
    /// Why.
    pub error: Arc<Error>,
}

/// A request that was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// As it was sent.
    pub method: String,
    /// Its path, cut short, without its query.
    pub path: String,
    /// Why.
    pub reason: &'static str,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.method, self.path, self.reason)
    }
}

impl Refused {
    pub(crate) fn new(method: &str, path: &str, reason: &'static str) -> Self {
        let path = words(path).chars().take(PATH).collect();
        Self { method: words(method).chars().take(PATH).collect(), path, reason }
    }
}

/// Where it is written down as it happens.
#[derive(Debug, Default)]
pub(crate) struct Log(Mutex<Taken>);

impl Log {
    fn with(&self, change: impl FnOnce(&mut Taken)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn take(&self, file: TakenFile) {
        self.with(|taken| {
            let same = |known: &&mut TakenFile| known.name == file.name && known.sha256 == file.sha256;
            match taken.files.iter_mut().find(same) {
                Some(known) => known.whole |= file.whole,
                None => taken.files.push(file),
            }
        });
    }

    pub(crate) fn fail(&self, what: &str, error: Arc<Error>) {
        tracing::debug!(what, %error, "not to be had");
        self.with(|taken| {
            let same = |known: &Failed| known.what == what && known.error.to_string() == error.to_string();
            if !taken.failures.iter().any(same) {
                taken.failures.push(Failed { what: what.to_owned(), error });
            }
        });
    }

    pub(crate) fn refuse(&self, refused: Refused) {
        tracing::debug!(%refused, "not answered");
        self.with(|taken| {
            if taken.refused.len() < REFUSALS {
                taken.refused.push(refused);
            }
        });
    }

    pub(crate) fn read(&self) -> Taken {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
