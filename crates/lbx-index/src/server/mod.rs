//! The one server that pip in the sandbox can reach: all indexes as one, on sockets that somebody else has bound.
//!
//! Every session has a secret that its addresses begin with. Whoever does not know one gets nothing: the port may be
//! reached by other users of the machine, and by build code. A session may read pages and files of the configured
//! indexes, and those files that it was allowed by address; all else is refused and written down.

mod body;
mod exchange;
mod fetch;
mod range;
mod render;
mod respond;
mod session;

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use self::exchange::{Exchange, Exchanged, Given};
pub use self::fetch::{Offer, Wanted};
pub use self::session::Session;

use self::session::State;
use crate::lookup::Lookup;
use crate::taken::Log;
use crate::upstream::client::Upstream;
use crate::upstream::files::Files;
use crate::{Address, Digest, Error, Refused, Settings, Store};

/// How many connections there are at most at once; more have to wait.
const CONNECTIONS: usize = 256;
/// The longest head of a request, in bytes.
const HEAD: usize = 16 << 10;
/// The most fields that a head has.
const FIELDS: usize = 64;
/// How long a client may take to say what it wants, also the next time.
const PATIENCE: Duration = Duration::from_mins(1);

/// All indexes behind one server. Dropping it stops it, and all that it was fetching.
#[derive(Debug)]
pub struct Server {
    inner: Arc<Inner>,
    accepting: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Inner {
    upstream: Arc<Upstream>,
    store: Store,
    files: Arc<Files>,
    /// For what is chosen without pip.
    lookup: Lookup,
    /// By the hash of their secret: looking one up says nothing of what others begin with.
    sessions: Mutex<HashMap<Digest, Arc<State>>>,
    /// What came without a secret.
    attempts: Log,
}

impl Server {
    /// Opens the store, and gets ready to ask the indexes. Nothing is asked yet.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let store = Store::open(&settings.store)?;
        let upstream = Arc::new(Upstream::new(settings)?);
        let files = Arc::new(Files::new(Arc::clone(&upstream), store.clone()));
        let (sessions, attempts) = (Mutex::default(), Log::default());
        let lookup = Lookup::new(Arc::clone(&upstream), store.clone());
        let inner = Arc::new(Inner { upstream, store, files, lookup, sessions, attempts });
        Ok(Self { inner, accepting: Mutex::default() })
    }

    /// Serves a socket that is bound and listens, wherever that is. Must be called in a runtime of tokio.
    pub fn listen(&self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let inner = Arc::clone(&self.inner);
        let mut accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        accepting.spawn(accept(listener, inner));
        Ok(())
    }

    /// Begins a session, which may also have these files by their address. They must be in [`Settings::direct`].
    pub fn session(&self, allowed: &[Address]) -> Result<Session, Error> {
        let (upstream, store) = (Arc::clone(&self.inner.upstream), self.inner.store.clone());
        Ok(Session::begin(&self.inner, State::new(upstream, store, allowed)?))
    }

    /// The same, where what comes of source distributions is handed out in their place. Their hashes are verified here
    /// and shown to nobody.
    pub fn exchanging(&self, allowed: &[Address], exchange: Exchange) -> Result<Session, Error> {
        let (upstream, store) = (Arc::clone(&self.inner.upstream), self.inner.store.clone());
        let state = State::new(upstream, store, allowed)?.exchanging(exchange);
        Ok(Session::begin(&self.inner, state))
    }

    /// Begins a session that may have nothing: all that is asked for is refused, and written down.
    pub fn refusing(&self) -> Result<Session, Error> {
        let (upstream, store) = (Arc::clone(&self.inner.upstream), self.inner.store.clone());
        let state = State::new(upstream, store, &[])?.closed();
        Ok(Session::begin(&self.inner, state))
    }

    /// The store behind the server.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// What was asked for without the secret of a session that is under way.
    pub fn attempts(&self) -> Vec<Refused> {
        self.inner.attempts.read().refused
    }
}

impl Inner {
    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Arc<State>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, secret: &str) -> Option<Arc<State>> {
        self.sessions().get(&Digest::of(secret.as_bytes())).cloned()
    }
}

async fn accept(listener: tokio::net::TcpListener, inner: Arc<Inner>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let inner = Arc::clone(&inner);
                connections.spawn(async move {
                    serve(stream, inner).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection that was none");
                // Out of descriptors, perhaps; the connection is still waiting.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, inner: Arc<Inner>) {
    // Answers are written whole or in large pieces.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let inner = Arc::clone(&inner);
        async move { Ok::<_, std::convert::Infallible>(respond::respond(&inner, &request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD)
        .max_headers(FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended early");
    }
}
