//! A session: one secret, one view of the indexes, and what was taken of them.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::rand::{GetRandomFlags, getrandom};

use super::{Exchange, Inner, render};
use crate::lookup::{Listed, Lookup, Project, direct};
use crate::taken::Log;
use crate::upstream::client::Upstream;
use crate::{Address, Digest, Error, Store, Taken};

/// How long a secret is, in bytes.
const SECRET: usize = 24;

/// A session that is under way. Dropping it ends it.
pub struct Session {
    server: Weak<Inner>,
    state: Arc<State>,
}

/// What a session may have and has had.
pub(super) struct State {
    secret: String,
    pub(super) lookup: Lookup,
    pub(super) log: Log,
    /// Files that pages have shown, by what tells them apart.
    shown: Mutex<HashMap<String, Arc<Listed>>>,
    /// Files that are allowed by address.
    allowed: Vec<(Address, Arc<Listed>)>,
    pub(super) metadata_limit: u64,
    /// What source distributions are exchanged for.
    pub(super) exchange: Option<Exchange>,
    /// Whether nothing at all may be had.
    pub(super) closed: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("state", &self.state).finish_non_exhaustive()
    }
}

impl State {
    pub(super) fn new(upstream: Arc<Upstream>, store: Store, allowed: &[Address]) -> Result<Self, Error> {
        let (file, metadata_limit) = (upstream.settings.limits.file, upstream.settings.limits.metadata);
        let known = &upstream.settings.direct;
        let allowed = allowed.iter().map(|address| {
            let setting = |problem: &str| Error::Setting {
                what: format!("the address {}", address.safe()),
                problem: problem.to_owned(),
            };
            if !known.contains(address) {
                return Err(setting("is not one of those that the server was told of"));
            }
            let listed =
                direct(address, file).ok_or_else(|| setting("is not one of a wheel or an archive"))?;
            Ok((address.clone(), Arc::new(listed)))
        });
        let allowed = allowed.collect::<Result<_, _>>()?;
        let (secret, lookup) = (secret()?, Lookup::new(upstream, store));
        Ok(Self {
            secret,
            lookup,
            log: Log::default(),
            shown: Mutex::default(),
            allowed,
            metadata_limit,
            exchange: None,
            closed: false,
        })
    }

    pub(super) fn exchanging(self, exchange: Exchange) -> Self {
        Self { exchange: Some(exchange), ..self }
    }

    pub(super) fn closed(self) -> Self {
        Self { closed: true, ..self }
    }

    pub(super) fn prefix(&self) -> String {
        format!("/{}", self.secret)
    }

    /// What a file is exchanged for, if it is one that is not handed out itself.
    pub(super) fn exchange(&self, name: &str) -> Option<&Exchange> {
        self.exchange.as_ref().filter(|_| !is_wheel(name))
    }

    /// Remembers where the files of a page are.
    pub(super) fn show(&self, project: &Project) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for listed in &project.files {
            shown.insert(listed.id.clone(), Arc::clone(listed));
        }
    }

    pub(super) fn shown(&self, id: &str) -> Option<Arc<Listed>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(super) fn allowed(&self, id: &str) -> Option<Arc<Listed>> {
        self.allowed.iter().map(|(_, listed)| listed).find(|listed| listed.id == id).cloned()
    }
}

impl Session {
    pub(super) fn begin(server: &Arc<Inner>, state: State) -> Self {
        let state = Arc::new(state);
        server.sessions().insert(Digest::of(state.secret.as_bytes()), Arc::clone(&state));
        Self { server: Arc::downgrade(server), state }
    }

    /// The path of the index that pip is told of, after the address of whatever socket it reaches.
    pub fn index_path(&self) -> String {
        format!("{}/simple/", self.state.prefix())
    }

    /// The path of a file that is allowed by address; none for any other.
    pub fn direct_path(&self, address: &Address) -> Option<String> {
        let (_, listed) = self.state.allowed.iter().find(|(allowed, _)| allowed == address)?;
        let hash = listed.want.hashes.best().filter(|_| self.state.exchange(&listed.want.name).is_none());
        let hash = hash.map(|hash| format!("#{hash}")).unwrap_or_default();
        Some(format!("{}{hash}", render::path(&self.state.prefix(), "url", listed)))
    }

    /// The word that its addresses begin with. As the password of a proxy, it says in whose name something is asked for
    /// that is not to be had.
    pub fn secret(&self) -> &str {
        &self.state.secret
    }

    /// Whether a source distribution is being exchanged now.
    pub fn is_exchanging(&self) -> bool {
        self.state.exchange.as_ref().is_some_and(Exchange::is_busy)
    }

    /// A text of whoever was told of the session, without its secret.
    pub fn redact(&self, text: &str) -> String {
        text.replace(&self.state.secret, "…")
    }

    /// What was taken so far.
    pub fn taken(&self) -> Taken {
        self.state.log.read()
    }

    /// Ends the session, and says what was taken. What is still being sent does not count.
    pub fn finish(self) -> Taken {
        self.taken()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(server) = self.server.upgrade() {
            server.sessions().remove(&Digest::of(self.state.secret.as_bytes()));
        }
    }
}

/// Whether a file is a wheel by its name.
pub(super) fn is_wheel(name: &str) -> bool {
    std::path::Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("whl"))
}

fn secret() -> Result<String, Error> {
    let mut bytes = [0; SECRET];
    let mut filled = 0;
    while filled < SECRET {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty()).map_err(io::Error::from)?;
    }
    Ok(hex::encode(bytes))
}
