//! Where a download goes: a thread that hashes and writes, so that neither holds up the network, and a view of its
//! progress for whoever reads along.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::hashes::{Mismatch, Verifier};
use crate::store::{Lock, Store, Stored};
use crate::{Error, Hashes};

/// How much may wait between the network and the disk, in chunks of what a socket gives at once.
const QUEUE: usize = 16;

/// How far a download is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// How much there will be, where that is known.
    pub(crate) total: Option<u64>,
    /// What came and is on the disk, in bytes.
    pub(crate) received: u64,
    /// Where to read along; none before anything can be.
    pub(crate) file: Option<Arc<std::fs::File>>,
    /// What became of it.
    pub(crate) end: Option<Result<Stored, Arc<Error>>>,
}

enum Piece {
    Bytes(Vec<u8>),
    /// What came before is not the beginning of what comes now.
    Restart,
}

pub(crate) struct Sink {
    /// What was sent here since the beginning.
    pub(crate) received: u64,
    queue: mpsc::Sender<Piece>,
    writer: JoinHandle<Result<Result<Stored, Mismatch>, Error>>,
}

impl Sink {
    pub(crate) fn create(
        store: &Store,
        lock: Lock,
        promised: &Hashes,
        progress: &watch::Sender<Progress>,
    ) -> Self {
        let (queue, pieces) = mpsc::channel(QUEUE);
        let (store, promised, progress) = (store.clone(), promised.clone(), progress.clone());
        let writer = tokio::task::spawn_blocking(move || write(&store, lock, &promised, &progress, pieces));
        Self { received: 0, queue, writer }
    }

    /// False when the disk has failed; [`Self::finish`] says how.
    pub(crate) async fn send(&mut self, bytes: Vec<u8>) -> bool {
        self.received += bytes.len() as u64;
        self.queue.send(Piece::Bytes(bytes)).await.is_ok()
    }

    pub(crate) async fn restart(&mut self) -> bool {
        self.received = 0;
        self.queue.send(Piece::Restart).await.is_ok()
    }

    /// Takes away what was written.
    pub(crate) async fn give_up(self) {
        drop(self.queue);
        // That it was not whole is all that it can say.
        let _ = self.writer.await;
    }

    /// The file, under its final name, if it is what was promised.
    pub(crate) async fn finish(self) -> Result<Result<Stored, Mismatch>, Error> {
        // The last of it says that it is whole; a sink that is dropped is one that was given up.
        let _ = self.queue.send(Piece::Bytes(Vec::new())).await;
        drop(self.queue);
        self.writer.await.map_err(std::io::Error::from)?
    }
}

fn write(
    store: &Store,
    lock: Lock,
    promised: &Hashes,
    progress: &watch::Sender<Progress>,
    mut pieces: mpsc::Receiver<Piece>,
) -> Result<Result<Stored, Mismatch>, Error> {
    let mut part = Store::begin(lock)?;
    let reader = Arc::new(part.reader()?);
    progress.send_modify(|progress| progress.file = Some(reader));
    let mut verifier = Verifier::new(promised);
    let mut whole = false;
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Bytes(bytes) if bytes.is_empty() => whole = true,
            Piece::Bytes(bytes) => {
                verifier.update(&bytes);
                part.write(&bytes)?;
                progress.send_modify(|progress| progress.received += bytes.len() as u64);
            }
            Piece::Restart => {
                verifier = Verifier::new(promised);
                part.restart()?;
                progress.send_modify(|progress| progress.received = 0);
            }
        }
    }
    if !whole {
        return Err(std::io::Error::from(std::io::ErrorKind::Interrupted).into());
    }
    match verifier.finish() {
        Ok(digest) => store.commit(part, digest).map(Ok),
        Err(mismatch) => Ok(Err(mismatch)),
    }
}
