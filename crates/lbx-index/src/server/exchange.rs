//! Source distributions in exchange for something that takes no building: what is built is built elsewhere, and pip is
//! handed what comes of it.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::store::Stored;

/// A source distribution that pip has asked for.
#[derive(Debug, Clone)]
pub struct Given {
    /// The file's name.
    pub name: String,
    /// What stood after `#` in its address, when a requirement named it by that.
    pub fragment: Option<String>,
    /// The file.
    pub stored: Stored,
}

/// What comes of it: a file, or words for pip about why there is none.
pub type Exchanged = Pin<Box<dyn Future<Output = Result<PathBuf, String>> + Send>>;

/// Makes a file that pip is handed in the place of a source distribution, under its name.
#[derive(Clone)]
pub struct Exchange {
    make: Arc<dyn Fn(Given) -> Exchanged + Send + Sync>,
    /// How many are being made.
    busy: Arc<AtomicUsize>,
}

/// One that is being made, until it goes.
struct Busy<'b>(&'b AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Exchange {
    /// Takes a function in.
    pub fn new(exchange: impl Fn(Given) -> Exchanged + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(exchange), busy: Arc::default() }
    }

    pub(super) async fn of(&self, given: Given) -> Result<PathBuf, String> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        let _busy = Busy(&self.busy);
        (self.make)(given).await
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exchange(…)")
    }
}
