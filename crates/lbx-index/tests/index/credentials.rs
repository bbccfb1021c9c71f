//! Logins: who gets one, who does not, and that nobody sees it.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lbx_index::{Credentials, Keyring, Login, Netrc, Origin, Settings};
use lbx_testkit::stub::{Reply, Request, Stub};

use crate::support::{Site, address, entry, failures, page, text};

const NAME: &str = "a-1.0-py3-none-any.whl";
/// `me:pl4nted`.
const GOOD: &str = "Basic bWU6cGw0bnRlZA==";

fn guarded(request: &Request) -> Reply {
    if request.header("authorization") != Some(GOOD) {
        return Reply::new(401, b"who are you?").with_header("WWW-Authenticate", "Basic realm=\"x\"");
    }
    match request.path.as_str() {
        "/simple/a/" => page(&[entry(NAME, "/f/a.whl", Some(b"x"))]),
        _ => Reply::new(200, b"x"),
    }
}

async fn served(stub: &Stub, user_info: &str, change: impl FnOnce(&mut Settings)) -> bool {
    let site = Site::new(&format!("http://{user_info}{}/simple", stub.address()), change);
    site.page("a").await.status == 200 && text(&site.file("a", NAME).await) == "x"
}

#[tokio::test]
async fn a_login_is_found_in_the_address_by_host_in_netrc_and_in_a_keyring() {
    let stub = Stub::start(guarded);
    let host = stub.address().to_owned();
    assert!(served(&stub, "me:pl4nted@", |_| ()).await);
    let origin = Origin::parse(&format!("http://{host}")).expect("an origin");
    let hosts = vec![(origin, Login::new("me", "pl4nted"))];
    assert!(served(&stub, "", |settings| settings.credentials.hosts = hosts).await);
    let netrc = Netrc::parse("machine 127.0.0.1 login me password pl4nted").expect("a file");
    assert!(served(&stub, "", |settings| settings.credentials.netrc = netrc).await);
    let default = Netrc::parse("default login me password pl4nted").expect("a file");
    assert!(served(&stub, "me@", |settings| settings.credentials.netrc = default).await);
    let script = format!("[ \"$3\" = me ] && [ \"$2\" = '{host}' ] && echo pl4nted");
    let keyring = Keyring::new(["sh", "-c", &script, "keyring"]);
    let seen = stub.seen().len();
    assert!(served(&stub, "me@", |settings| settings.credentials.keyring = Some(keyring)).await);
    assert_eq!(stub.seen().len() - seen, 3, "it is asked when the server wants a login, and once");
}

#[tokio::test]
async fn without_a_good_login_the_error_names_the_host_and_what_to_do() {
    let stub = Stub::start(guarded);
    let host = stub.address();
    let ask = async |user_info: &str, keyring: Option<Keyring>| {
        let index = format!("http://{user_info}{host}/simple");
        let site = Site::new(&index, |settings| settings.credentials.keyring = keyring);
        let answer = site.page("a").await;
        assert_eq!(answer.status, 424);
        assert!(
            text(&answer).contains(&format!("hint: give a user and a password for {host}")),
            "{}",
            text(&answer)
        );
        failures(&site.finish()).concat()
    };
    let refused = format!("{host} refused access to http://{host}/simple/a/ (401): ");
    assert_eq!(ask("", None).await, format!("{refused}it was given no login"));
    assert_eq!(ask("me:wrong@", None).await, format!("{refused}the login that it was given is not good"));
    let slow = Keyring { deadline: Duration::from_millis(300), ..Keyring::new(["sh", "-c", "sleep 60"]) };
    assert_eq!(ask("me@", Some(slow)).await, format!("{refused}the login that it was given is not good"));
    let forbidden = Stub::start(|_| Reply::new(403, b""));
    let site = Site::before(&forbidden);
    site.page("a").await;
    assert!(failures(&site.finish())[0].ends_with("(403): it was given no login"));
}

#[tokio::test]
async fn a_login_does_not_follow_a_redirect_or_a_link_to_another_host() {
    let other = Stub::start(|request| match request.path.as_str() {
        "/a/" => page(&[entry(NAME, "/f/a.whl", Some(b"x"))]),
        _ => Reply::new(200, b"x"),
    });
    let away = other.address().to_owned();
    let stub = Stub::start(move |request| match request.path.as_str() {
        "/simple/a/" => {
            // Also when the address that it sends to has one in it.
            let target = format!("http://their:own@{away}/a/");
            Reply::new(302, b"").with_header("Location", &target)
        }
        "/simple/b/" => page(&[entry("b-1.0.tar.gz", &format!("http://u:p@{away}/b-1.0.tar.gz"), None)]),
        _ => Reply::new(404, b""),
    });
    let netrc = Netrc::parse("default login me password pl4nted").expect("a file");
    let site = Site::new(&format!("http://me:pl4nted@{}/simple", stub.address()), |settings| {
        settings.credentials = Credentials { netrc, ..Credentials::default() };
    });
    assert_eq!(site.files("a").await.len(), 1);
    assert_eq!(site.files("b").await.len(), 1);
    assert!(stub.seen().iter().all(|request| request.header("authorization") == Some(GOOD)));
    assert!(!other.seen().is_empty());
    assert!(
        other.seen().iter().all(|request| request.header("authorization").is_none()),
        "{:?}",
        other.seen()
    );
}

#[tokio::test]
async fn two_indexes_on_one_host_have_a_login_each() {
    let stub = Stub::start(|request| {
        let expected = if request.path.starts_with("/one/") { "Basic b25lOjE=" } else { "Basic dHdvOjI=" };
        if request.header("authorization") != Some(expected) {
            return Reply::new(401, b"");
        }
        let name = if request.path.starts_with("/one/") { "a-1.0.tar.gz" } else { "a-2.0.tar.gz" };
        let root = request.path.split('/').nth(1).unwrap_or_default();
        if request.path.ends_with("/a/") {
            page(&[entry(name, &format!("/{root}/{name}"), None)])
        } else {
            Reply::new(200, b"x")
        }
    });
    let site = Site::new(&format!("http://one:1@{}/one/simple", stub.address()), |settings| {
        settings.extra = vec![address(&format!("http://two:2@{}/two/simple", stub.address()))];
    });
    for name in ["a-1.0.tar.gz", "a-2.0.tar.gz"] {
        assert_eq!(text(&site.file("a", name).await), "x", "{name}");
    }
}

/// Where all that the libraries say goes.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Every file below a folder, with its name.
fn everything(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs_err::read_dir(folder).expect("a listing") {
        let path = entry.expect("an entry").path();
        all.extend_from_slice(path.display().to_string().as_bytes());
        all.extend(if path.is_dir() { everything(&path) } else { fs_err::read(&path).expect("a file") });
    }
    all
}

#[test]
fn a_planted_secret_is_found_nowhere() {
    let heard = Heard::default();
    let writer = heard.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    let subscriber = subscriber.with_writer(move || writer.clone()).finish();
    // One thread, so that all of it is heard.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let shown = tracing::subscriber::with_default(subscriber, || runtime.block_on(with_secrets()));
    let heard = heard.0.lock().expect("no panic").clone();
    assert!(heard.len() > 1000, "something was said");
    for (place, bytes) in [("what is shown", shown.as_bytes()), ("the log", &heard)] {
        for secret in ["pl4nted", "bWU6cGw0bnRlZA", "cGw0bnRlZA"] {
            let found = bytes.windows(secret.len()).position(|window| window == secret.as_bytes());
            let around =
                found.map(|at| String::from_utf8_lossy(&bytes[at.saturating_sub(200)..at + 20]).into_owned());
            assert_eq!(around, None, "{secret} in {place}");
        }
    }
}

/// Succeeds and fails with secrets everywhere, and returns all that can be shown of it.
async fn with_secrets() -> String {
    let stub = Stub::start(|request| match request.path.as_str() {
        "/broken/a/" => Reply::new(500, b""),
        "/denied/a/" => Reply::new(403, b""),
        "/astray/a/" => {
            Reply::new(302, b"").with_header("Location", "http://me:pl4nted@169.254.169.254/?k=pl4nted")
        }
        "/signed/a/" => page(&[entry(NAME, "/f/a.whl?key=pl4nted#x=pl4nted", Some(b"other"))]),
        "/cut/a/" => Reply { status: 0, ..Reply::default() },
        "/simple/a/" => page(&[entry(NAME, "/f/a.whl?key=pl4nted", Some(b"x"))]).with_header("ETag", "\"1\""),
        _ => Reply::new(200, b"x"),
    });
    let host = stub.address().to_owned();
    let mut shown = String::new();
    for path in ["simple", "broken", "denied", "astray", "signed", "cut", "simple?token=pl4nted"] {
        let direct = address(&format!("http://me:pl4nted@{host}/d/b-1.0.zip?key=pl4nted#pl4nted"));
        let site = Site::new(&format!("http://me:pl4nted@{host}/{path}"), |settings| {
            settings.attempts = 2;
            settings.direct = vec![direct.clone()];
            let proxy = || Some("http://me:pl4nted@proxy.test:3128".to_owned());
            settings.proxy = Some(lbx_net::ProxyOptions { http: proxy(), https: proxy(), no_proxy: None });
            settings.client_certificate = Some(lbx_index::ClientCertificate::new(b"pl4nted".to_vec()));
            settings.credentials = Credentials {
                hosts: vec![(Origin::parse("x.test").expect("an origin"), Login::new("me", "pl4nted"))],
                netrc: Netrc::parse(
                    "machine x.test login me password pl4nted\ndefault login a password pl4nted",
                )
                .expect("a file"),
                keyring: None,
            };
            write!(shown, "{settings:?}").expect("memory");
        });
        let answer = site.page("a").await;
        write!(shown, "{answer:?} {}", text(&answer)).expect("memory");
        if answer.status == 200 {
            let file = site.file("a", NAME).await;
            write!(shown, "{file:?}").expect("memory");
        }
        let path = site.session.direct_path(&direct).expect("allowed");
        assert!(!path.contains("pl4nted"), "{path}");
        assert_eq!(text(&site.get(&path).await), "x");
        write!(shown, "{:?} {:?} {path}", site.server, site.session).expect("memory");
        shown.push_str(&String::from_utf8_lossy(&everything(site.home.path())));
        let taken = site.finish();
        assert!(!taken.files.is_empty());
        write!(shown, "{taken:?}").expect("memory");
        for failed in &taken.failures {
            write!(shown, "{} {:?}", crate::support::chain(&failed.error), failed.error.hint())
                .expect("memory");
        }
    }
    assert!(stub.seen().iter().any(|request| request.header("authorization") == Some(GOOD)));
    shown
}
