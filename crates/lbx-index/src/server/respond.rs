//! One request, and its answer.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName,
    HeaderValue, IF_RANGE, PROXY_AUTHORIZATION, RANGE,
};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use tokio::sync::watch;

use super::body::{Body, Watcher, coming, full, stored, words};
use super::exchange::{Exchange, Given};
use super::range::{Wanted, wanted};
use super::session::State;
use super::{Inner, render};
use crate::lookup::Listed;
use crate::name::normalize;
use crate::store::Stored;
use crate::taken::{Log, Refused, TakenFile};
use crate::upstream::files::{Files, Found, Place, Want};
use crate::upstream::pages::blocking;
use crate::upstream::sink::Progress;
use crate::{Error, SafeUrl};

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked<'p> {
    Project(String),
    File { id: &'p str, name: String },
    Direct { id: &'p str, name: String },
    Nothing,
}

/// The secret that a path begins with, and what comes after it.
fn split(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix('/')?.split_once('/')
}

fn asked(rest: &str) -> Asked<'_> {
    let mut parts = rest.split('/');
    let decoded = |part: &str| percent_decode_str(part).decode_utf8().ok().map(std::borrow::Cow::into_owned);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("simple"), Some(name), None | Some(""), None) => {
            decoded(name).and_then(|name| normalize(&name)).map_or(Asked::Nothing, Asked::Project)
        }
        (Some(kind @ ("files" | "url")), Some(id), Some(name), None) => match (kind, decoded(name)) {
            ("files", Some(name)) => Asked::File { id, name },
            (_, Some(name)) => Asked::Direct { id, name },
            _ => Asked::Nothing,
        },
        _ => Asked::Nothing,
    }
}

pub(super) async fn respond(inner: &Inner, request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let found = split(path).and_then(|(secret, rest)| Some((inner.find(secret)?, rest)));
    let Some((state, rest)) = found else {
        if let Some(host) = request.uri().authority() {
            return elsewhere(inner, request, host.as_str());
        }
        inner.attempts.refuse(Refused::new(request.method().as_str(), path, "it has no session's secret"));
        return plain(StatusCode::NOT_FOUND, b"there is nothing here\n".to_vec());
    };
    let refuse = |reason| state.log.refuse(Refused::new(request.method().as_str(), rest, reason));
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        refuse("only GET and HEAD are answered");
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, b"only GET and HEAD\n".to_vec());
        set(&mut response, ALLOW, "GET, HEAD");
        return response;
    }
    if state.closed {
        refuse("what is built may have nothing");
        return plain(StatusCode::FORBIDDEN, b"what is built may have nothing\n".to_vec());
    }
    let response = match asked(rest) {
        Asked::Project(name) => page(&state, request, &name).await,
        Asked::File { id, name } => match state.shown(id) {
            Some(listed) => listed_file(inner, &state, request, &listed, &name).await,
            None => None,
        },
        Asked::Direct { id, name } => match state.allowed(id) {
            Some(listed) if listed.want.name == name => {
                Some(file(inner, &state, request, &listed, false).await)
            }
            _ => {
                refuse("the address is not one of those that are allowed");
                return plain(StatusCode::FORBIDDEN, b"this address is not allowed\n".to_vec());
            }
        },
        Asked::Nothing => None,
    };
    let response = response.unwrap_or_else(|| {
        refuse("it is neither a project nor a file of one");
        plain(StatusCode::NOT_FOUND, b"there is nothing here\n".to_vec())
    });
    if request.method() == Method::HEAD { without_body(response) } else { response }
}

/// The answer to what was meant for another host, which a proxy would ask. It is written down by that host's name, for
/// the session whose secret is the password.
fn elsewhere(inner: &Inner, request: &Request<Incoming>, host: &str) -> Response<Body> {
    // Never with what may be before it.
    let host = host.rsplit('@').next().unwrap_or_default();
    let refused = Refused::new(request.method().as_str(), host, "only package indexes can be reached");
    let known = header(request, &PROXY_AUTHORIZATION).and_then(proxy_password);
    let known = known.and_then(|secret| inner.find(&secret));
    known.as_ref().map_or(&inner.attempts, |state| &state.log).refuse(refused);
    plain(StatusCode::FORBIDDEN, format!("{host} cannot be reached from here\n").into_bytes())
}

/// The password of basic authentication.
fn proxy_password(header: &str) -> Option<String> {
    let encoded = header.strip_prefix("Basic ").or_else(|| header.strip_prefix("basic "))?;
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    Some(decoded.split_once(':')?.1.to_owned())
}

/// A project's page.
async fn page(state: &Arc<State>, request: &Request<Incoming>, name: &str) -> Option<Response<Body>> {
    let project = match state.lookup.project(name).await {
        Ok(project) => project,
        Err(error) => return Some(failed(&state.log, name, Arc::new(error))),
    };
    for warning in &project.warnings {
        state.log.fail(name, Arc::clone(warning));
    }
    if !project.exists {
        return Some(plain(StatusCode::NOT_FOUND, format!("no index has {name}\n").into_bytes()));
    }
    state.show(&project);
    let accept = header(request, &ACCEPT).unwrap_or_default();
    let (content_type, bytes) = if render::wants_json(accept) {
        (render::JSON, render::json(&state.prefix(), name, &project, state.exchange.is_some()))
    } else {
        (render::HTML, render::html(&state.prefix(), name, &project, state.exchange.is_some()))
    };
    let mut response = answer(StatusCode::OK, bytes.len() as u64, full(bytes));
    set(&mut response, CONTENT_TYPE, content_type);
    Some(response)
}

/// A file of a page, or its metadata.
async fn listed_file(
    inner: &Inner,
    state: &Arc<State>,
    request: &Request<Incoming>,
    listed: &Arc<Listed>,
    name: &str,
) -> Option<Response<Body>> {
    if listed.want.name == name {
        return Some(file(inner, state, request, listed, false).await);
    }
    let is_metadata = name.strip_suffix(".metadata") == Some(&listed.want.name) && listed.metadata.is_some();
    if is_metadata { Some(file(inner, state, request, listed, true).await) } else { None }
}

async fn file(
    inner: &Inner,
    state: &Arc<State>,
    request: &Request<Incoming>,
    listed: &Arc<Listed>,
    metadata: bool,
) -> Response<Body> {
    let metadata_of = if metadata { listed.metadata(state.metadata_limit) } else { None };
    let want = metadata_of.unwrap_or_else(|| listed.want.clone());
    let kept = Kept { state: Arc::clone(state), listed: Arc::clone(listed), whole: true, metadata };
    if let Some(exchange) = state.exchange(&listed.want.name).filter(|_| !metadata) {
        return exchanged(inner, exchange, &want, kept).await;
    }
    match find(&inner.files, &want, request).await {
        Ok(Ready::Known(size)) => {
            let mut response = answer(StatusCode::OK, size, full(Vec::new()));
            set(&mut response, ACCEPT_RANGES, "bytes");
            response
        }
        Ok(Ready::Here(found)) => part(request, found, kept),
        Ok(Ready::Coming(total, progress)) => {
            let mut response = Response::new(coming(progress, Arc::new(kept)));
            if let Some(total) = total {
                set(&mut response, CONTENT_LENGTH, &total.to_string());
            }
            dress(&mut response);
            response
        }
        Err(error) => failed(&state.log, &want.name, error),
    }
}

/// What a source distribution is exchanged for.
async fn exchanged(inner: &Inner, exchange: &Exchange, want: &Want, kept: Kept) -> Response<Body> {
    let found = match whole(&inner.files, want).await {
        Ok(stored) => stored,
        Err(error) => return failed(&kept.state.log, &want.name, error),
    };
    kept.sent(&found);
    let given = Given { name: want.name.clone(), fragment: kept.fragment(), stored: found };
    let made = match exchange.of(given).await {
        Ok(path) => blocking(move || Stored::of(&path)).await,
        Err(words) => return plain(StatusCode::FAILED_DEPENDENCY, words.into_bytes()),
    };
    match made {
        Ok(made) => {
            let size = made.size;
            let mut response = answer(StatusCode::OK, size, stored(made, 0, size, Arc::new(Silent)));
            dress(&mut response);
            response
        }
        Err(error) => failed(&kept.state.log, &want.name, Arc::new(error)),
    }
}

/// A file, once all of it is here.
pub(super) async fn whole(files: &Arc<Files>, want: &Want) -> Result<Stored, Arc<Error>> {
    let mut progress = match files.find(want).await.map_err(Arc::new)? {
        Found::Here(stored) => return Ok(stored),
        Found::Coming(progress) => progress,
    };
    let gone = |_| Arc::new(Error::Io(std::io::Error::other("the download was given up")));
    let now = progress.wait_for(|progress| progress.end.is_some()).await.map_err(gone)?.clone();
    now.end.unwrap_or_else(|| Err(Arc::new(Error::Io(std::io::Error::other("the download was given up")))))
}

/// Nobody watches what was made here.
struct Silent;

impl Watcher for Silent {
    fn sent(&self, _stored: &Stored) {}
    fn failed(&self, _error: Arc<Error>) {}
}

/// How a file can be answered.
enum Ready {
    Here(Stored),
    /// Of which so much is known that it can be sent as it comes.
    Coming(Option<u64>, watch::Receiver<Progress>),
    /// Nobody wants the bytes.
    Known(u64),
}

async fn find(files: &Arc<Files>, want: &Want, request: &Request<Incoming>) -> Result<Ready, Arc<Error>> {
    let is_head = request.method() == Method::HEAD;
    if let (true, Some(size)) = (is_head, want.size) {
        return Ok(Ready::Known(size));
    }
    let mut progress = match files.find(want).await.map_err(Arc::new)? {
        Found::Here(stored) => return Ok(Ready::Here(stored)),
        Found::Coming(progress) => progress,
    };
    // A part is cut from the whole, and what cannot be verified may begin anew.
    let in_one = header(request, &RANGE).is_some() || !want.hashes.can_be_verified() || is_head;
    let gone = |_| Arc::new(Error::Io(std::io::Error::other("the download was given up")));
    // When the first bytes are here, the server has said how many there will be, if it ever does.
    let ready = |progress: &Progress| progress.end.is_some() || (!in_one && progress.received > 0);
    let now = progress.wait_for(ready).await.map_err(gone)?.clone();
    match now.end {
        Some(end) => end.map(Ready::Here),
        None => Ok(Ready::Coming(now.total, progress)),
    }
}

/// A file that is here, or the part of it that is wanted.
fn part(request: &Request<Incoming>, found: Stored, kept: Kept) -> Response<Body> {
    // What a client already has a part of is always the same here, but it may not believe that.
    let range = header(request, &RANGE).filter(|_| header(request, &IF_RANGE).is_none());
    let size = found.size;
    let mut response = match wanted(range, size) {
        Wanted::Whole => answer(StatusCode::OK, size, stored(found, 0, size, Arc::new(kept))),
        Wanted::Part(from, to) => {
            let kept = Kept { whole: from == 0 && to == size, ..kept };
            let mut response =
                answer(StatusCode::PARTIAL_CONTENT, to - from, stored(found, from, to, Arc::new(kept)));
            set(&mut response, CONTENT_RANGE, &format!("bytes {from}-{}/{size}", to - 1));
            response
        }
        Wanted::Nothing => {
            let mut response = answer(StatusCode::RANGE_NOT_SATISFIABLE, 0, full(Vec::new()));
            set(&mut response, CONTENT_RANGE, &format!("bytes */{size}"));
            response
        }
    };
    dress(&mut response);
    response
}

/// Writes down that a file was taken.
struct Kept {
    state: Arc<State>,
    listed: Arc<Listed>,
    whole: bool,
    metadata: bool,
}

impl Kept {
    /// What stands after `#` in the file's address.
    fn fragment(&self) -> Option<String> {
        match &self.listed.want.place {
            Place::Web { address, .. } => address.url().fragment().map(str::to_owned),
            Place::Folder(_) => None,
        }
    }
}

impl Watcher for Kept {
    fn sent(&self, stored: &Stored) {
        // Metadata is looked at before a file is chosen.
        if self.metadata {
            return;
        }
        let (listed, url): (_, SafeUrl) = (&self.listed, self.listed.want.place.safe());
        self.state.log.take(TakenFile {
            project: listed.project.clone(),
            name: listed.want.name.clone(),
            version: listed.version(),
            url,
            sha256: stored.digest,
            size: stored.size,
            index: listed.index.as_deref().cloned(),
            whole: self.whole,
        });
    }

    fn failed(&self, error: Arc<Error>) {
        self.state.log.fail(&self.listed.want.name, error);
    }
}

/// The answer to what an index, or the store, does not give. pip asks again where the fault is a server's (5xx), but
/// that was done here already.
fn failed(log: &Log, what: &str, error: Arc<Error>) -> Response<Body> {
    let status = match *error {
        Error::NotFound { .. } => StatusCode::NOT_FOUND,
        _ => StatusCode::FAILED_DEPENDENCY,
    };
    let text = words(&error, what);
    log.fail(what, error);
    plain(status, text)
}

fn plain(status: StatusCode, text: Vec<u8>) -> Response<Body> {
    let mut response = answer(status, text.len() as u64, full(text));
    set(&mut response, CONTENT_TYPE, "text/plain; charset=utf-8");
    response
}

fn answer(status: StatusCode, length: u64, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    set(&mut response, CONTENT_LENGTH, &length.to_string());
    // It is kept here, once for all, and its address is good for this session only.
    set(&mut response, CACHE_CONTROL, "no-store");
    response
}

fn dress(response: &mut Response<Body>) {
    set(response, CACHE_CONTROL, "no-store");
    set(response, ACCEPT_RANGES, "bytes");
    // pip takes any other type of a `.tar.gz` for its encoding.
    set(response, CONTENT_TYPE, "application/octet-stream");
}

fn without_body(response: Response<Body>) -> Response<Body> {
    response.map(|_| full(Vec::new()))
}

fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn header<'r>(request: &'r Request<Incoming>, name: &HeaderName) -> Option<&'r str> {
    request.headers().get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_a_project_a_file_or_nothing() {
        let project = |name: &str| Asked::Project(name.to_owned());
        assert_eq!(asked("simple/Foo_Bar/"), project("foo-bar"));
        assert_eq!(asked("simple/foo"), project("foo"));
        let name = "a+b.zip".to_owned();
        assert_eq!(asked("files/id/a%2Bb.zip"), Asked::File { id: "id", name: name.clone() });
        assert_eq!(asked("url/id/a+b.zip"), Asked::Direct { id: "id", name });
        for nothing in
            ["", "simple", "simple/", "simple/a/b", "simple/..%2fa/", "files/id", "x/y/z", "files/a/b/c"]
        {
            assert_eq!(asked(nothing), Asked::Nothing, "{nothing}");
        }
        assert_eq!(split("/secret/simple/a/"), Some(("secret", "simple/a/")));
        assert_eq!((split("/secret"), split("*")), (None, None));
    }

    proptest! {
        #[test]
        fn any_path_is_something(path in "[ -~é]{0,80}") {
            if let Some((_, rest)) = split(&path) {
                asked(rest);
            }
        }
    }
}
