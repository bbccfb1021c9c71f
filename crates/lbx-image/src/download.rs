//! One blob from a registry to a file: hashed and measured while it streams, resumed where it broke off.
//!
//! The order of downloads and what becomes of the file are left to [`crate::pull()`].

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::registry::{Again, Failure, Registry};
use crate::store::Scratch;
use crate::{Digest, Error, PullOptions, Reference};

/// How much may wait between the network and the disk, in chunks of what a socket gives at once.
const QUEUE: usize = 16;

/// When to ask again, and when to give up. Progress makes the count start anew.
#[derive(Debug)]
pub(crate) struct Retry {
    attempts: u32,
    backoff: Duration,
    failed: u32,
}

impl Retry {
    pub(crate) fn new(options: &PullOptions) -> Self {
        Self { attempts: options.attempts.max(1), backoff: options.backoff, failed: 0 }
    }

    pub(crate) fn progress(&mut self) {
        self.failed = 0;
    }

    /// Waits before the next attempt, of which `tell` hears, or returns the error when there is to be none.
    pub(crate) async fn pause(&mut self, failure: Failure, tell: impl Fn(&Error)) -> Result<(), Error> {
        self.failed += 1;
        if failure.again == Again::Never || self.failed >= self.attempts {
            return Err(*failure.error);
        }
        tell(&failure.error);
        let doubled = self.backoff * 2_u32.saturating_pow(self.failed - 1).min(64);
        let pause = match failure.again {
            Again::After(pause) => pause.max(doubled),
            _ => doubled,
        };
        // Up to a quarter more, so that many clients that failed at once don't come back at once. A fresh
        // `RandomState` is the standard library's only source of randomness.
        let jitter = RandomState::new().hash_one(self.failed) % 256;
        tokio::time::sleep(pause + pause.mul_f64(f64::from(u8::try_from(jitter).unwrap_or(0)) / 1024.0))
            .await;
        Ok(())
    }
}

/// What to fetch, and where to.
pub(crate) struct Transfer<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) reference: &'a Reference,
    pub(crate) digest: &'a Digest,
    pub(crate) size: u64,
    pub(crate) scratch: &'a Scratch,
    pub(crate) options: &'a PullOptions,
}

impl Transfer<'_> {
    /// Fetches the blob and returns a synced file that has the declared size and digest.
    pub(crate) async fn run(
        &self,
        progress: impl Fn(u64),
        retrying: impl Fn(&Error),
    ) -> Result<PathBuf, Error> {
        let mut sink = Sink::create(self.scratch);
        let mut retry = Retry::new(self.options);
        while sink.received < self.size {
            let before = sink.received;
            match self.attempt(&mut sink, &progress).await {
                Ok(()) => {}
                Err(Stop::Sink) => return Err(sink.failure().await),
                Err(Stop::Failed(failure)) => {
                    if sink.received > before {
                        retry.progress();
                    }
                    retry.pause(failure, &retrying).await?;
                }
            }
        }
        let (path, found) = sink.finish().await?;
        if found == *self.digest {
            Ok(path)
        } else {
            Err(Error::DigestMismatch { what: self.what(), expected: self.digest.clone(), found })
        }
    }

    /// One request. An end before the declared size may be a connection that broke, so it passes.
    async fn attempt(&self, sink: &mut Sink, progress: &impl Fn(u64)) -> Result<(), Stop> {
        let mut blob = self.registry.blob(self.reference, self.digest, sink.received).await?;
        let mut position = blob.start;
        while let Some(mut chunk) = blob.chunk().await? {
            // The registry may start from the beginning again; what is here already is skipped.
            let known = usize::try_from(sink.received.saturating_sub(position)).unwrap_or(usize::MAX);
            position += chunk.len() as u64;
            if position > self.size {
                return Err(Failure::final_(self.size_error(position)).into());
            }
            chunk.drain(..known.min(chunk.len()));
            if !chunk.is_empty() {
                sink.send(chunk).await?;
                progress(sink.received);
            }
        }
        if sink.received < self.size {
            return Err(Failure::passing(self.size_error(sink.received)).into());
        }
        Ok(())
    }

    fn what(&self) -> String {
        format!("blob {}", self.digest)
    }

    fn size_error(&self, found: u64) -> Error {
        Error::SizeMismatch { what: self.what(), expected: self.size, found }
    }
}

enum Stop {
    Failed(Failure),
    /// The disk; the reason is in the sink.
    Sink,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A thread that hashes and writes, so that neither holds up the network.
struct Sink {
    received: u64,
    path: PathBuf,
    queue: mpsc::Sender<Vec<u8>>,
    writer: JoinHandle<io::Result<Digest>>,
}

impl Sink {
    fn create(scratch: &Scratch) -> Self {
        let path = scratch.path("blob");
        let (queue, chunks) = mpsc::channel(QUEUE);
        let (target, scratch) = (path.clone(), scratch.clone());
        let writer = tokio::task::spawn_blocking(move || {
            // The directory must outlive the file, also when the pull is dropped.
            let _scratch = scratch;
            write_hashed(&target, chunks)
        });
        Self { received: 0, path, queue, writer }
    }

    async fn send(&mut self, chunk: Vec<u8>) -> Result<(), Stop> {
        self.received += chunk.len() as u64;
        self.queue.send(chunk).await.map_err(|_| Stop::Sink)
    }

    async fn finish(self) -> Result<(PathBuf, Digest), Error> {
        drop(self.queue);
        let written = self.writer.await.map_err(io::Error::from)?;
        Ok((self.path, written?))
    }

    async fn failure(self) -> Error {
        self.finish().await.err().unwrap_or(Error::Cancelled)
    }
}

fn write_hashed(path: &Path, mut chunks: mpsc::Receiver<Vec<u8>>) -> io::Result<Digest> {
    let mut file = fs_err::File::create(path)?;
    let mut hasher = Sha256::new();
    while let Some(chunk) = chunks.blocking_recv() {
        hasher.update(&chunk);
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    Ok(Digest::from_hash(&hasher.finalize()))
}
