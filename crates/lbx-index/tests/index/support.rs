//! A server with one session before an index that a test has made up, and a client of it.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lbx_index::{Address, Digest, Error, Server, Session, Settings, Taken};
use lbx_testkit::registry::{Answer, request};
use lbx_testkit::stub::{Reply, Request, Stub};
use serde_json::{Value, json};

pub(crate) const JSON: &str = "application/vnd.pypi.simple.v1+json";

/// A server, a session, and the folder with its store.
pub(crate) struct Site {
    pub(crate) home: Arc<tempfile::TempDir>,
    pub(crate) server: Server,
    pub(crate) session: Session,
    pub(crate) address: String,
}

pub(crate) fn address(text: &str) -> Address {
    Address::parse("an address", text).expect(text)
}

/// Patient enough for a busy machine, and quick to give up what hangs.
pub(crate) fn settings(index: &str, home: &Path) -> Settings {
    let mut settings = Settings::new(address(index), home.join("store"));
    settings.backoff = Duration::from_millis(10);
    settings.attempts = 3;
    settings.timeouts.stall = Duration::from_secs(2);
    settings
}

impl Site {
    /// Before an index on loopback that answers at `/simple`.
    pub(crate) fn before(stub: &Stub) -> Self {
        Self::new(&format!("http://{}/simple", stub.address()), |_| ())
    }

    pub(crate) fn new(index: &str, change: impl FnOnce(&mut Settings)) -> Self {
        Self::at(Arc::new(tempfile::tempdir().expect("a directory")), index, change)
    }

    /// With a store that was used before.
    pub(crate) fn at(home: Arc<tempfile::TempDir>, index: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings(index, home.path());
        change(&mut settings);
        let allowed = settings.direct.clone();
        let server = Server::new(settings).expect("a server");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("an address").to_string();
        server.listen(listener).expect("a runtime");
        let session = server.session(&allowed).expect("a session");
        Self { home, server, session, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}{}", self.address, self.session.index_path())
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let (address, method, path) = (self.address.clone(), method.to_owned(), path.to_owned());
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let asked = tokio::task::spawn_blocking(move || {
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            request(&address, &method, &path, &headers, &[])
        });
        asked.await.expect("no panic").expect("an answer")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[]).await
    }

    /// A project's page, in JSON.
    pub(crate) async fn page(&self, project: &str) -> Answer {
        let path = format!("{}{project}/", self.session.index_path());
        self.ask("GET", &path, &[("Accept", JSON)]).await
    }

    /// The files of a project's page.
    pub(crate) async fn files(&self, project: &str) -> Vec<Value> {
        let page = self.page(project).await;
        assert_eq!(page.status, 200, "{}", text(&page));
        let page: Value = serde_json::from_slice(&page.body).expect("JSON");
        page["files"].as_array().expect("files").clone()
    }

    /// The path of a project's file.
    pub(crate) async fn path(&self, project: &str, name: &str) -> String {
        let files = self.files(project).await;
        let file = files.iter().find(|file| file["filename"] == name).unwrap_or_else(|| panic!("no {name}"));
        file["url"].as_str().expect("an address").to_owned()
    }

    pub(crate) async fn file(&self, project: &str, name: &str) -> Answer {
        self.get(&self.path(project, name).await).await
    }

    pub(crate) fn finish(self) -> Taken {
        self.session.finish()
    }
}

pub(crate) fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// Whether it is a file, and all of it came.
pub(crate) fn is_whole(answer: &Answer) -> bool {
    answer.status == 200 && answer.header("content-length") == Some(&answer.body.len().to_string())
}

/// The errors that a session wrote down, with their causes.
pub(crate) fn failures(taken: &Taken) -> Vec<String> {
    taken.failures.iter().map(|failed| chain(&failed.error)).collect()
}

pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// An entry of a page, with its SHA-256 when the bytes are given.
pub(crate) fn entry(name: &str, url: &str, bytes: Option<&[u8]>) -> Value {
    let hashes = bytes.map_or(json!({}), |bytes| json!({"sha256": Digest::of(bytes).to_string()}));
    json!({"filename": name, "url": url, "hashes": hashes})
}

pub(crate) fn page(entries: &[Value]) -> Reply {
    let text = json!({"meta": {"api-version": "1.0"}, "name": "a", "files": entries}).to_string();
    Reply::new(200, text.as_bytes()).with_header("Content-Type", JSON)
}

pub(crate) fn missing() -> Reply {
    Reply::new(404, b"")
}

/// An index with one project `a`, one file of it, and whatever answers for the file.
pub(crate) fn index_of(
    file: &'static str,
    bytes: Option<Vec<u8>>,
    answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> Stub {
    Stub::start(move |request| match request.path.as_str() {
        "/simple/a/" => page(&[entry(file, &format!("/files/{file}"), bytes.as_deref())]),
        path if path.starts_with("/files/") => answer(request),
        _ => missing(),
    })
}

/// How often a path was asked for.
pub(crate) fn asked(stub: &Stub, path: &str) -> usize {
    stub.seen().iter().filter(|request| request.path == path).count()
}

/// Bytes without a pattern, always the same.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}
