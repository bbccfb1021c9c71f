//! What a build measures of itself: how long its stages took, and what was done already. It is another one each time, and
//! no byte of an artifact depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lbx_sandbox::{Backend, Claims, Level};
use schemars::JsonSchema;
use serde::Serialize;

use crate::resolve::ResolvedSet;

/// What was measured, or depends on the host.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Measured {
    /// How the image's programs and all build code were isolated; none when nothing had to run.
    pub sandbox: Option<SandboxReport>,
    /// How long the stages took.
    pub seconds: Seconds,
    /// What was done already, and what was not.
    pub cache: CacheReport,
}

/// How build code was isolated.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SandboxReport {
    /// The way.
    #[schemars(with = "String")]
    pub backend: Backend,
    /// How much that is.
    #[schemars(with = "String")]
    pub level: Level,
    /// What was promised of it.
    #[schemars(with = "BTreeMap<String, bool>")]
    pub claims: Claims,
}

/// How long the stages of a build took, in seconds. They follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Seconds {
    /// Reading what is there: sources, locks, the store.
    pub prepare: f64,
    /// Fetching the image and preparing it, before anything else could begin.
    pub image: f64,
    /// Resolving, fetching and building packages.
    pub resolve: f64,
    /// Making the zips.
    pub package: f64,
    /// Checking them.
    pub check: f64,
    /// All of it, up to the moment when the report was written; the zips are renamed into their places after that.
    pub total: f64,
}

/// What was done already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CacheReport {
    /// The wheels of all sets: verified and indexed before, or by this build.
    pub wheels: Reuse,
    /// What the zips begin with, each once for all zips that do: packed before, or by this build.
    pub parts: Reuse,
    /// The user's own files, of each zip: copied from the zip before, or compressed.
    pub files: Reuse,
}

/// How many there were of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Reuse {
    /// Done already.
    pub reused: usize,
    /// Done by this build.
    pub made: usize,
}

impl Reuse {
    /// How many there were.
    pub fn all(self) -> usize {
        self.reused + self.made
    }
}

/// Things counted from several threads.
#[derive(Debug, Default)]
pub(crate) struct Count {
    reused: AtomicUsize,
    made: AtomicUsize,
}

impl Count {
    /// So many were done already.
    pub(crate) fn reuse(&self, number: usize) {
        self.reused.fetch_add(number, Ordering::Relaxed);
    }

    /// So many were not.
    pub(crate) fn make(&self, number: usize) {
        self.made.fetch_add(number, Ordering::Relaxed);
    }

    /// What there was until now.
    pub(crate) fn get(&self) -> Reuse {
        Reuse { reused: self.reused.load(Ordering::Relaxed), made: self.made.load(Ordering::Relaxed) }
    }
}

/// The wheels of all sets, each once, by whether they are among those that the store has taken in since it was opened.
pub(crate) fn wheels(sets: &[ResolvedSet], taken_in: &BTreeSet<lbx_wheel::Digest>) -> Reuse {
    let all: BTreeSet<_> = sets.iter().flat_map(|set| &set.wheels).map(|wheel| wheel.digest).collect();
    let made = all.intersection(taken_in).count();
    Reuse { reused: all.len() - made, made }
}

/// A watch for the stages, one after the other.
#[derive(Debug)]
pub(crate) struct Laps {
    begun: Instant,
    last: Instant,
    seconds: Seconds,
}

impl Laps {
    /// Begins with the first stage.
    pub(crate) fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, last: now, seconds: Seconds::default() }
    }

    /// A stage ends, and the next one begins.
    pub(crate) fn end(&mut self, stage: impl FnOnce(&mut Seconds) -> &mut f64) {
        let now = Instant::now();
        *stage(&mut self.seconds) = rounded(now - self.last);
        self.last = now;
    }

    /// How long they took.
    pub(crate) fn seconds(&self) -> Seconds {
        Seconds { total: rounded(self.begun.elapsed()), ..self.seconds }
    }
}

/// Seconds, to the millisecond.
fn rounded(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_follow_each_other_and_come_to_no_more_than_the_whole() {
        let mut laps = Laps::begin();
        std::thread::sleep(Duration::from_millis(3));
        laps.end(|seconds| &mut seconds.prepare);
        laps.end(|seconds| &mut seconds.resolve);
        let seconds = laps.seconds();
        assert!(seconds.prepare >= 0.003 && seconds.resolve <= seconds.total, "{seconds:?}");
        assert!(seconds.prepare <= seconds.total && seconds.image.abs() < f64::EPSILON, "{seconds:?}");
        assert_eq!(rounded(Duration::from_micros(1_234_567)).to_string(), "1.235");
    }

    #[test]
    fn what_is_counted_is_counted_once() {
        let count = Count::default();
        count.reuse(2);
        count.make(1);
        assert_eq!((count.get(), count.get().all()), (Reuse { reused: 2, made: 1 }, 3));
    }
}
