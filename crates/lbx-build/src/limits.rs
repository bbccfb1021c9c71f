//! How long a command in the sandbox may run, and how long it may say nothing. A build that left a process behind can
//! keep pip waiting for its output for ever.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a clock is looked at.
const TICK: Duration = Duration::from_millis(200);

/// The limits of one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// From start to end.
    pub total: Duration,
    /// Without a line of output.
    pub silence: Duration,
}

impl Default for TimeLimits {
    /// Four hours, and half an hour: pip says something at least each minute while a build says anything at all.
    fn default() -> Self {
        Self { total: Duration::from_hours(4), silence: Duration::from_mins(30) }
    }
}

/// A limit that was reached, with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// It ran for too long.
    Total(Duration),
    /// It was silent for too long.
    Silence(Duration),
}

impl std::fmt::Display for Breach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Total(limit) => write!(f, "stopped after {}, the time limit", words(*limit)),
            Self::Silence(limit) => write!(f, "stopped after {} without a word", words(*limit)),
        }
    }
}

/// A duration as people say it.
fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} minutes", seconds / 60),
        _ => format!("{} hours", seconds / 3600),
    }
}

/// Hears each line, and knows when there was none for too long.
#[derive(Debug)]
pub(crate) struct Watch {
    limits: TimeLimits,
    started: Instant,
    heard: Mutex<Instant>,
}

impl Watch {
    pub(crate) fn start(limits: TimeLimits) -> Self {
        let now = Instant::now();
        Self { limits, started: now, heard: Mutex::new(now) }
    }

    /// Something was said.
    pub(crate) fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until the other end of `ended` goes, or a limit is reached.
    pub(crate) fn wait(&self, ended: &Receiver<()>) -> Option<Breach> {
        loop {
            match ended.recv_timeout(TICK) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return None,
            }
            let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            if self.started.elapsed() >= self.limits.total {
                return Some(Breach::Total(self.limits.total));
            }
            if heard.elapsed() >= self.limits.silence {
                return Some(Breach::Silence(self.limits.silence));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_with_its_value() {
        assert_eq!(
            Breach::Total(Duration::from_hours(4)).to_string(),
            "stopped after 4 hours, the time limit"
        );
        assert_eq!(
            Breach::Silence(Duration::from_mins(30)).to_string(),
            "stopped after 30 minutes without a word"
        );
        assert_eq!(Breach::Silence(Duration::from_secs(2)).to_string(), "stopped after 2 s without a word");
    }

    #[test]
    fn an_end_comes_before_any_limit() {
        let watch = Watch::start(TimeLimits { total: Duration::ZERO, silence: Duration::ZERO });
        let (end, ended) = std::sync::mpsc::channel::<()>();
        drop(end);
        assert_eq!(watch.wait(&ended), None);
    }
}
