//! Files: from the store where it has them, else from where they are, once at a time, resumed where a connection
//! broke, and kept only when they are what was promised.
//!
//! A download runs by itself. Whoever wants the file reads along; who goes away stops nothing.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::{Answer, Ask, Upstream};
use super::pages::{LOCK_STEP, blocking, odd, text};
use super::retry::{Failure, Retry};
use super::sink::{Progress, Sink};
use crate::hashes::Mismatch;
use crate::store::{Lock, Stored};
use crate::{Address, Digest, Error, Hashes, SafeUrl, Store};

/// A file that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    pub(crate) name: String,
    pub(crate) place: Place,
    /// Whose login may go along. An index has thousands of files.
    pub(crate) index: Option<Arc<Address>>,
    pub(crate) hashes: Hashes,
    pub(crate) size: Option<u64>,
    /// The most that is taken when nobody says how large it is.
    pub(crate) limit: u64,
}

/// Where a file is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Web {
        address: Address,
        /// Its page came over HTTPS.
        encrypted: bool,
    },
    Folder(PathBuf),
}

impl Place {
    pub(crate) fn safe(&self) -> SafeUrl {
        match self {
            Self::Web { address, .. } => address.safe(),
            Self::Folder(path) => SafeUrl::folder(path),
        }
    }
}

impl Want {
    /// What is the same for the same file: what was promised of it, or else where it is.
    pub(crate) fn key(&self) -> String {
        if let Some(digest) = self.hashes.sha256() {
            return digest.to_string();
        }
        let index = self.index.as_ref().map(|index| index.safe().to_string()).unwrap_or_default();
        let promise = self.hashes.best().unwrap_or_default();
        let parts = [index, self.place.safe().to_string(), self.name.clone(), promise];
        Digest::of(parts.join("\0").as_bytes()).to_string()
    }

    fn host(&self) -> String {
        match &self.place {
            Place::Web { address, .. } => address.origin().authority(),
            Place::Folder(path) => path.parent().unwrap_or(path).display().to_string(),
        }
    }

    fn mismatch(&self, mismatch: Mismatch) -> Error {
        let Mismatch { algorithm, expected, found } = mismatch;
        Error::HashMismatch { file: self.name.clone(), host: self.host(), algorithm, expected, found }
    }

    fn size_mismatch(&self, expected: u64, found: u64) -> Error {
        Error::SizeMismatch { file: self.name.clone(), host: self.host(), expected, found }
    }
}

/// All files.
#[derive(Debug)]
pub(crate) struct Files {
    upstream: Arc<Upstream>,
    store: Store,
    coming: Mutex<HashMap<String, watch::Receiver<Progress>>>,
    /// Dropping it stops them all.
    running: Mutex<JoinSet<()>>,
}

/// A file that is here, or on its way.
pub(crate) enum Found {
    Here(Stored),
    Coming(watch::Receiver<Progress>),
}

impl Files {
    pub(crate) fn new(upstream: Arc<Upstream>, store: Store) -> Self {
        Self { upstream, store, coming: Mutex::default(), running: Mutex::default() }
    }

    /// The file, or the download of it, which is begun if need be.
    pub(crate) async fn find(self: &Arc<Self>, want: &Want) -> Result<Found, Error> {
        if let Some(stored) = self.stored(want).await? {
            return Ok(Found::Here(stored));
        }
        if self.upstream.settings.offline && matches!(want.place, Place::Web { .. }) {
            return Err(Error::Offline { what: format!("{} from {}", want.name, want.host()) });
        }
        let key = want.key();
        let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(progress) = coming.get(&key) {
            return Ok(Found::Coming(progress.clone()));
        }
        let total = want.size;
        let (sender, receiver) = watch::channel(Progress { total, ..Progress::default() });
        coming.insert(key.clone(), receiver.clone());
        let (files, want) = (Arc::downgrade(self), want.clone());
        let (upstream, store) = (Arc::clone(&self.upstream), self.store.clone());
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while running.try_join_next().is_some() {}
        running.spawn(async move {
            let end = Download { upstream, store, want, progress: &sender }.run(&key).await.map_err(Arc::new);
            // Whoever comes now finds it in the store, or begins anew.
            if let Some(files) = files.upgrade() {
                files.coming.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            }
            sender.send_modify(|progress| progress.end = Some(end));
        });
        Ok(Found::Coming(receiver))
    }

    async fn stored(&self, want: &Want) -> Result<Option<Stored>, Error> {
        stored(&self.store, want, self.upstream.settings.offline).await
    }
}

/// What the store has of a file. Without a promise, that is only believed when nobody can be asked.
async fn stored(store: &Store, want: &Want, offline: bool) -> Result<Option<Stored>, Error> {
    let (store, key, digest) = (store.clone(), want.key(), want.hashes.sha256());
    let believed = want.hashes.can_be_verified() || (offline && matches!(want.place, Place::Web { .. }));
    blocking(move || {
        let digest = digest.or_else(|| store.known(&key).filter(|_| believed));
        digest.map_or(Ok(None), |digest| store.file(&digest))
    })
    .await
}

/// One download.
struct Download<'p> {
    upstream: Arc<Upstream>,
    store: Store,
    want: Want,
    progress: &'p watch::Sender<Progress>,
}

/// Why an attempt ended.
enum Stop {
    Failed(Failure),
    /// The disk; the sink says how.
    Sink,
}

impl<T: Into<Failure>> From<T> for Stop {
    fn from(failure: T) -> Self {
        Self::Failed(failure.into())
    }
}

impl Download<'_> {
    async fn run(&self, key: &str) -> Result<Stored, Error> {
        let lock = self.lock(key).await?;
        // Another process was faster.
        if let Some(found) = stored(&self.store, &self.want, false).await? {
            return Ok(found);
        }
        let found = match &self.want.place {
            Place::Web { address, encrypted } => self.fetch(lock, address, *encrypted).await?,
            Place::Folder(path) => {
                let (store, path, promised) = (self.store.clone(), path.clone(), self.want.hashes.clone());
                blocking(move || store.copy(lock, &path, &promised)).await?
            }
        };
        let stored = found.map_err(|mismatch| self.want.mismatch(mismatch))?;
        if self.want.hashes.sha256().is_none() {
            let (store, key, digest) = (self.store.clone(), key.to_owned(), stored.digest);
            blocking(move || store.put_known(&key, digest)).await?;
        }
        Ok(stored)
    }

    /// Waits for other processes that make the same.
    async fn lock(&self, key: &str) -> Result<Lock, Error> {
        loop {
            if let Some(lock) = self.store.try_lock(key)? {
                return Ok(lock);
            }
            tokio::time::sleep(LOCK_STEP).await;
        }
    }

    async fn fetch(
        &self,
        lock: Lock,
        address: &Address,
        encrypted: bool,
    ) -> Result<Result<Stored, Mismatch>, Error> {
        let mut sink = Sink::create(&self.store, lock, &self.want.hashes, self.progress);
        let mut retry = Retry::new(&self.upstream.settings);
        let mut etag = None;
        loop {
            let before = sink.received;
            match self.attempt(&mut sink, address, encrypted, &mut etag).await {
                Ok(()) => return sink.finish().await,
                Err(Stop::Sink) => {
                    return Err(sink.finish().await.err().unwrap_or_else(|| {
                        std::io::Error::other("the disk failed, and then did not").into()
                    }));
                }
                Err(Stop::Failed(failure)) => {
                    if sink.received > before {
                        retry.progress();
                    }
                    if let Err(error) = retry.pause(failure).await {
                        sink.give_up().await;
                        return Err(error);
                    }
                }
            }
        }
    }

    /// One request, for what is missing. It may break off at any time.
    async fn attempt(
        &self,
        sink: &mut Sink,
        address: &Address,
        encrypted: bool,
        etag: &mut Option<String>,
    ) -> Result<(), Stop> {
        // What cannot be verified in the end must come from one state of the file.
        if sink.received > 0 && !self.want.hashes.can_be_verified() && etag.is_none() && !sink.restart().await
        {
            return Err(Stop::Sink);
        }
        let headers = headers(sink.received, etag.as_deref());
        let index = self.want.index.as_deref();
        let answer = self.upstream.ask(&Ask { address, index, encrypted, headers }).await?;
        let start = self.start(&answer, sink.received)?;
        if start == 0 && sink.received > 0 && !self.want.hashes.can_be_verified() && !sink.restart().await {
            return Err(Stop::Sink);
        }
        // A weak one does not say that the bytes are the same.
        *etag = text(&answer, &ETAG).filter(|etag| !etag.starts_with("W/"));
        let most = self.most(&answer, start)?;
        self.transfer(sink, answer, start, most).await
    }

    /// The offset of the first byte that comes.
    fn start(&self, answer: &Answer, wanted: u64) -> Result<u64, Failure> {
        let what = || self.want.place.safe();
        match answer.response.status().as_u16() {
            200 => Ok(0),
            206 if wanted > 0 => {
                let range = text(answer, &CONTENT_RANGE).unwrap_or_default();
                let start = range.strip_prefix("bytes ").and_then(|range| range.split_once('-'));
                if start.and_then(|(start, _)| start.parse().ok()) == Some(wanted) {
                    Ok(wanted)
                } else {
                    let problem =
                        format!("expected bytes from {wanted}, found `{}`", crate::page::words(&range));
                    Err(Error::Malformed { what: what(), problem }.into())
                }
            }
            404 | 410 => {
                let host = crate::Origin::of(&answer.url).authority();
                Err(Error::NotFound { host, what: what() }.into())
            }
            status => Err(odd(answer, status, what())),
        }
    }

    /// How many bytes may come in all, which is how many must come where it is known.
    fn most(&self, answer: &Answer, start: u64) -> Result<u64, Error> {
        let declared = answer.response.content_length().map(|length| length.saturating_add(start));
        if let (Some(expected), Some(found)) = (self.want.size, declared)
            && expected != found
        {
            return Err(self.want.size_mismatch(expected, found));
        }
        let total = self.want.size.or(declared);
        if self.want.size.is_none() && declared.is_some_and(|declared| declared > self.want.limit) {
            return Err(self.too_large());
        }
        self.progress.send_modify(|progress| progress.total = total);
        Ok(total.unwrap_or(self.want.limit))
    }

    fn too_large(&self) -> Error {
        Error::TooLarge { what: self.want.name.clone(), limit: self.want.limit }
    }

    async fn transfer(&self, sink: &mut Sink, answer: Answer, start: u64, most: u64) -> Result<(), Stop> {
        let Answer { mut response, url } = answer;
        let mut position = start;
        while let Some(chunk) = response.chunk().await.map_err(|error| self.upstream.failure(&url, error))? {
            // The server may start from the beginning again; what is here already is skipped.
            let known = usize::try_from(sink.received.saturating_sub(position)).unwrap_or(usize::MAX);
            position += chunk.len() as u64;
            if position > most {
                return Err(match self.want.size {
                    Some(expected) => self.want.size_mismatch(expected, position).into(),
                    None => self.too_large().into(),
                });
            }
            let fresh = &chunk[known.min(chunk.len())..];
            if !fresh.is_empty() && !sink.send(fresh.to_vec()).await {
                return Err(Stop::Sink);
            }
        }
        match self.want.size {
            // A connection that broke without a word, perhaps.
            Some(expected) if position < expected => {
                Err(Failure::passing(self.want.size_mismatch(expected, position)).into())
            }
            _ => Ok(()),
        }
    }
}

fn headers(from: u64, etag: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if from > 0
        && let Ok(range) = HeaderValue::from_str(&format!("bytes={from}-"))
    {
        headers.insert(RANGE, range);
        if let Some(etag) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
            headers.insert(IF_RANGE, etag);
        }
    }
    headers
}
