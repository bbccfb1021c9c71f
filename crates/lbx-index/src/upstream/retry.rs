//! When to ask again, and when to give up.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use crate::{Error, Settings};

/// A failed request, and whether another one may do better.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Box<Error>,
    pub(crate) again: Again,
}

/// Whether to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    Never,
    Later,
    /// The server said when.
    After(Duration),
}

impl Failure {
    pub(crate) fn passing(error: Error) -> Self {
        Self { error: Box::new(error), again: Again::Later }
    }
}

/// What fails here fails again.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error: Box::new(error), again: Again::Never }
    }
}

/// How often a request has failed. Progress makes the count start anew.
#[derive(Debug)]
pub(crate) struct Retry {
    attempts: u32,
    backoff: Duration,
    longest: Duration,
    failed: u32,
}

impl Retry {
    pub(crate) fn new(settings: &Settings) -> Self {
        let (backoff, longest) = (settings.backoff, settings.timeouts.longest_wait);
        Self { attempts: settings.attempts.max(1), backoff, longest, failed: 0 }
    }

    pub(crate) fn progress(&mut self) {
        self.failed = 0;
    }

    /// Waits before the next attempt, or returns the error when there is to be none.
    pub(crate) async fn pause(&mut self, failure: Failure) -> Result<(), Error> {
        self.failed += 1;
        if failure.again == Again::Never || self.failed >= self.attempts {
            return Err(*failure.error);
        }
        let pause = self.length(failure.again);
        tracing::debug!(error = %failure.error, ?pause, "asking again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn length(&self, again: Again) -> Duration {
        let doubled = self.backoff * 2_u32.saturating_pow(self.failed.saturating_sub(1)).min(64);
        let pause = match again {
            Again::After(pause) => pause.max(doubled),
            _ => doubled,
        };
        // Up to a quarter more, so that many clients that failed at once don't come back at once. A fresh
        // `RandomState` is the standard library's only source of randomness.
        let jitter = u8::try_from(RandomState::new().hash_one(self.failed) % 256).unwrap_or(0);
        pause.min(self.longest) + pause.min(self.longest).mul_f64(f64::from(jitter) / 1024.0)
    }
}

/// When a server says that it wants to be asked again: after so many seconds, or at a time, which counts from what
/// the server takes for now.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok();
    let said = text(RETRY_AFTER)?.trim();
    if let Ok(seconds) = said.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time = |text: &str| -> Option<SystemTime> { httpdate::parse_http_date(text).ok() };
    time(said)?.duration_since(time(text(DATE)?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(failed: u32) -> Retry {
        let (backoff, longest) = (Duration::from_millis(100), Duration::from_secs(8));
        Retry { attempts: 3, backoff, longest, failed }
    }

    #[test]
    fn pauses_double_and_a_server_may_ask_for_longer_ones_up_to_a_limit() {
        let within = |pause: Duration, least: u64| {
            let least = Duration::from_millis(least);
            assert!(pause >= least && pause <= least.mul_f64(1.25), "{pause:?} {least:?}");
        };
        within(retry(1).length(Again::Later), 100);
        within(retry(4).length(Again::Later), 800);
        within(retry(1).length(Again::After(Duration::from_secs(2))), 2000);
        within(retry(1).length(Again::After(Duration::from_hours(24))), 8000);
        within(retry(90).length(Again::Later), 6400);
    }

    #[test]
    fn a_server_says_when_in_seconds_or_as_a_time() {
        let after = |said: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, said.parse().expect("a header"));
            if let Some(date) = date {
                headers.insert(DATE, date.parse().expect("a header"));
            }
            retry_after(&headers).map(|pause| pause.as_secs())
        };
        assert_eq!(after("7", None), Some(7));
        let (now, then) = ("Thu, 01 Jan 2026 00:00:00 GMT", "Thu, 01 Jan 2026 00:00:30 GMT");
        assert_eq!(after(then, Some(now)), Some(30));
        for (said, date) in [("soon", None), ("-1", None), (then, None), (now, Some(then))] {
            assert_eq!(after(said, date), None, "{said}");
        }
    }
}
