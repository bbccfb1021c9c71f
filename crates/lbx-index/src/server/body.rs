//! A file's bytes on their way to pip, also while they still come from the index.
//!
//! The end of a file goes out only when all of it is here and is what was promised. One that is not is a connection
//! that breaks: no client takes that for a whole file.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use tokio::sync::watch;

use crate::Error;
use crate::store::Stored;
use crate::upstream::pages::blocking;
use crate::upstream::sink::Progress;

/// How much goes out at once, in bytes.
const PIECE: u64 = 256 << 10;
/// What is held back until a file is known to be right, in bytes: the end of a zip, without which it is none.
const HELD_BACK: u64 = 1 << 10;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

pub(super) fn full(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes)).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// What is done when all was sent, or when there is no more to come.
pub(super) trait Watcher: Send + Sync + 'static {
    /// All that was asked for is on its way out.
    fn sent(&self, stored: &Stored);
    /// The file turned out not to be to be had.
    fn failed(&self, error: Arc<Error>);
}

/// A part of a file of the store.
pub(super) fn stored(stored: Stored, from: u64, to: u64, watcher: Arc<dyn Watcher>) -> Body {
    if from >= to {
        watcher.sent(&stored);
        return full(Vec::new());
    }
    let stream = stream::try_unfold(from, move |at| {
        let (stored, watcher) = (stored.clone(), Arc::clone(&watcher));
        async move { Ok((at < to).then_some(piece_of(&stored, at, to, watcher.as_ref()).await?)) }
    });
    boxed(stream)
}

/// The next piece of a file that is here, and where the one after it begins. The last one is the end of all, as far as
/// anybody here hears of it: nobody asks for more than was announced.
async fn piece_of(stored: &Stored, at: u64, to: u64, watcher: &dyn Watcher) -> io::Result<(Bytes, u64)> {
    let bytes = read(&stored.file, at, PIECE.min(to.saturating_sub(at))).await?;
    let next = at + bytes.len() as u64;
    if !bytes.is_empty() && next >= to {
        watcher.sent(stored);
    }
    Ok((bytes, next))
}

/// A whole file that is still coming.
pub(super) fn coming(progress: watch::Receiver<Progress>, watcher: Arc<dyn Watcher>) -> Body {
    let stream = stream::try_unfold((0, progress), move |(at, progress)| {
        let watcher = Arc::clone(&watcher);
        async move { next_of_coming(at, progress, watcher.as_ref()).await }
    });
    boxed(stream)
}

type Next = Option<(Bytes, (u64, watch::Receiver<Progress>))>;

async fn next_of_coming(
    at: u64,
    mut progress: watch::Receiver<Progress>,
    watcher: &dyn Watcher,
) -> io::Result<Next> {
    loop {
        let now = progress.borrow_and_update().clone();
        match now.end {
            Some(Ok(stored)) if at >= stored.size => return Ok(None),
            Some(Ok(stored)) => {
                let (bytes, next) = piece_of(&stored, at, stored.size, watcher).await?;
                return Ok(Some((bytes, (next, progress))));
            }
            Some(Err(error)) => {
                watcher.failed(Arc::clone(&error));
                return Err(io::Error::other(error.to_string()));
            }
            None => {}
        }
        let known = now.received.saturating_sub(HELD_BACK);
        if let Some(file) = now.file.filter(|_| known > at) {
            let bytes = read(&file, at, PIECE.min(known - at)).await?;
            let next = at + bytes.len() as u64;
            return Ok(Some((bytes, (next, progress))));
        }
        if progress.changed().await.is_err() {
            return Err(io::Error::other("the download was given up"));
        }
    }
}

async fn read(file: &Arc<std::fs::File>, at: u64, count: u64) -> io::Result<Bytes> {
    let file = Arc::clone(file);
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let bytes = blocking(move || {
        let mut bytes = vec![0; count];
        file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    });
    bytes.await.map(Bytes::from).map_err(|error| match error {
        Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    })
}

fn boxed(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(stream.map(|piece| piece.map(Frame::data))).boxed_unsync()
}

/// What a message for pip says of an error: it prints the first line.
pub(super) fn words(error: &Error, what: &str) -> Vec<u8> {
    let mut text = format!("{what}: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    if let Some(hint) = error.hint() {
        text.push_str("\nhint: ");
        text.push_str(&hint);
    }
    text.push('\n');
    text.into_bytes()
}
