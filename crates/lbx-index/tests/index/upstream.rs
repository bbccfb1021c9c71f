//! Indexes that are busy, slow, broken off or out of reach, and what is kept of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lbx_index::{Digest, TrustedHost};
use lbx_testkit::proxy::Proxy;
use lbx_testkit::stub::{Reply, Request, Stub};
use lbx_testkit::tls;

use crate::support::{Site, address, asked, entry, failures, index_of, is_whole, missing, noise, page, text};

const NAME: &str = "a-1.0-py3-none-any.whl";

/// What a request's range begins with.
fn from(request: &Request) -> Option<usize> {
    request.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

fn partial(bytes: &[u8], from: usize) -> Reply {
    let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
    Reply::new(206, &bytes[from..]).with_header("Content-Range", &range)
}

#[tokio::test]
async fn an_index_that_is_asked_too_often_gets_the_rest_it_wants() {
    let count = AtomicUsize::new(0);
    let stub = Stub::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(429, b"").with_header("Retry-After", "1"),
        1 => Reply::new(503, b""),
        _ => page(&[entry(NAME, "/f", None)]),
    });
    let (site, start) = (Site::before(&stub), Instant::now());
    assert_eq!(site.files("a").await.len(), 1);
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(stub.seen().len(), 3);
    assert!(site.finish().failures.is_empty());
}

#[tokio::test]
async fn a_rest_is_no_longer_than_it_may_be() {
    let count = AtomicUsize::new(0);
    let stub = Stub::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(429, b"").with_header("Retry-After", "86400"),
        _ => page(&[]),
    });
    let index = format!("http://{}/simple", stub.address());
    let site = Site::new(&index, |settings| settings.timeouts.longest_wait = Duration::from_millis(100));
    assert_eq!(site.page("a").await.status, 200);
}

#[tokio::test]
async fn an_index_with_a_problem_of_its_own_is_asked_again_and_then_given_up() {
    let stub = Stub::start(|_| Reply::new(502, b""));
    let site = Site::before(&stub);
    let answer = site.page("a").await;
    assert_eq!(answer.status, 424);
    let host = stub.address();
    let said = format!(
        "a: {host} answered 502 to a request for http://{host}/simple/a/\nhint: the index has a problem"
    );
    assert!(text(&answer).starts_with(&said), "{}", text(&answer));
    assert_eq!(stub.seen().len(), 3);
    assert_eq!(site.page("a").await.status, 424, "a failure is not remembered");
    assert_eq!(failures(&site.finish()).len(), 1, "and told once");
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke_off() {
    let bytes = noise(300_000);
    let body = bytes.clone();
    let stub = index_of(NAME, Some(bytes.clone()), move |request| match from(request) {
        None => Reply { cut_after: Some(100_000), ..Reply::new(200, &body) }.with_header("ETag", "\"1\""),
        Some(start) => {
            assert_eq!(request.header("if-range"), Some("\"1\""));
            partial(&body, start)
        }
    });
    let site = Site::before(&stub);
    let answer = site.file("a", NAME).await;
    assert!(is_whole(&answer) && answer.body == bytes);
    let ranges: Vec<_> = stub.seen().iter().filter_map(from).collect();
    assert_eq!(ranges, [100_000]);
}

#[tokio::test]
async fn a_server_that_knows_no_ranges_sends_all_again_and_what_is_here_is_skipped() {
    let bytes = noise(300_000);
    let body = bytes.clone();
    let count = AtomicUsize::new(0);
    let stub = index_of(NAME, Some(bytes.clone()), move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply { cut_after: Some(123_456), ..Reply::new(200, &body) },
        _ => Reply::new(200, &body),
    });
    assert_eq!(Site::before(&stub).file("a", NAME).await.body, bytes);
}

#[tokio::test]
async fn what_nobody_can_verify_is_not_put_together_from_two_states() {
    let (old, new) = (noise(200_000), vec![7; 200_000]);
    let (first, second) = (old.clone(), new.clone());
    let count = AtomicUsize::new(0);
    let stub = index_of(NAME, None, move |request| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            return Reply { cut_after: Some(100_000), ..Reply::new(200, &first) };
        }
        assert_eq!(from(request), None, "without a hash or an ETag nothing is resumed");
        Reply::new(200, &second)
    });
    let site = Site::before(&stub);
    assert_eq!(site.file("a", NAME).await.body, new);
    assert_eq!(site.finish().files[0].sha256, Digest::of(&new));
}

#[tokio::test]
async fn bytes_go_in_while_they_come_but_for_the_end() {
    let bytes = noise(400_000);
    let body = bytes.clone();
    // All but the last piece, then a pause, in which nothing more can come.
    let stub = index_of(NAME, Some(bytes.clone()), move |request| match from(request) {
        None => Reply { cut_after: Some(399_000), ..Reply::new(200, &body) },
        Some(start) => Reply { pause: Duration::from_millis(1500), ..partial(&body, start) },
    });
    let site = Site::before(&stub);
    let path = site.path("a", NAME).await;
    let (address, start) = (site.address.clone(), Instant::now());
    let read = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(address).expect("a server");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
        let mut early = vec![0; 390_000];
        stream.read_exact(&mut early).expect("most of it");
        let early = start.elapsed();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the rest");
        (early, start.elapsed(), rest.len())
    });
    let (early, whole, rest) = read.await.expect("no panic");
    assert!(
        early < Duration::from_millis(1400) && whole >= Duration::from_millis(1500),
        "{early:?} {whole:?}"
    );
    assert!(rest > 10_000);
}

#[tokio::test]
async fn a_page_that_is_the_same_is_not_sent_again() {
    let stub = Stub::start(|request| {
        if request.header("if-none-match") == Some("\"1\"") {
            assert_eq!(request.header("if-modified-since"), Some("Thu, 01 Jan 2026 00:00:00 GMT"));
            return Reply::new(304, b"");
        }
        page(&[entry(NAME, "/f", Some(b"x"))])
            .with_header("ETag", "\"1\"")
            .with_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
    });
    let index = format!("http://{}/simple", stub.address());
    let first = Site::before(&stub);
    let files = first.files("a").await.len();
    let second = Site::at(Arc::clone(&first.home), &index, |_| ());
    assert_eq!((files, second.files("a").await.len()), (1, 1));
    let conditional = stub.seen().iter().filter(|request| request.header("if-none-match").is_some()).count();
    assert_eq!((stub.seen().len(), conditional), (2, 1));
}

#[tokio::test]
async fn a_page_with_signed_links_is_asked_for_again_and_its_signatures_are_not_kept() {
    let stub = Stub::start(|request| match request.path.as_str() {
        "/simple/a/" => page(&[entry(NAME, "/f?signature=quiet", Some(b"x"))]).with_header("ETag", "\"1\""),
        "/f?signature=quiet" => Reply::new(200, b"x"),
        _ => missing(),
    });
    let index = format!("http://{}/simple", stub.address());
    let first = Site::before(&stub);
    assert_eq!(text(&first.file("a", NAME).await), "x");
    let second = Site::at(Arc::clone(&first.home), &index, |_| ());
    second.files("a").await;
    assert!(stub.seen().iter().all(|request| request.header("if-none-match").is_none()));
    assert_eq!(asked(&stub, "/simple/a/"), 2);
    let pages = fs_err::read_dir(first.home.path().join("store/pages")).expect("pages");
    for page in pages {
        let kept = fs_err::read_to_string(page.expect("a page").path()).expect("text");
        assert!(kept.contains(NAME) && !kept.contains("quiet"), "{kept}");
    }
}

#[tokio::test]
async fn offline_all_comes_from_the_store_and_what_is_missing_is_named() {
    let stub = Stub::start(|request| match request.path.as_str() {
        "/simple/a/" => page(&[
            entry(NAME, "/f", Some(b"x")),
            entry("a-2.0.tar.gz", "/g", None),
            entry("a-3.0.tar.gz", "/h", Some(b"z")),
        ]),
        "/f" => Reply::new(200, b"x"),
        "/g" => Reply::new(200, b"without a hash"),
        _ => missing(),
    });
    let index = format!("http://{}/simple", stub.address());
    let online = Site::before(&stub);
    online.file("a", NAME).await;
    online.file("a", "a-2.0.tar.gz").await;
    assert_eq!(online.page("absent").await.status, 404);
    let before = stub.seen().len();
    let offline = Site::at(Arc::clone(&online.home), &index, |settings| settings.offline = true);
    assert_eq!(text(&offline.file("a", NAME).await), "x");
    assert_eq!(text(&offline.file("a", "a-2.0.tar.gz").await), "without a hash");
    assert_eq!(offline.page("absent").await.status, 404, "that it is absent is known, too");
    assert_eq!(offline.file("a", "a-3.0.tar.gz").await.status, 424);
    assert_eq!(offline.page("b").await.status, 424);
    let host = stub.address();
    assert_eq!(
        failures(&offline.finish()),
        [
            format!("a-3.0.tar.gz from {host} is not in the store, and the network is off"),
            format!("the page http://{host}/simple/b/ is not in the store, and the network is off"),
        ]
    );
    assert_eq!(stub.seen().len(), before);
}

#[tokio::test]
async fn with_a_hash_the_store_answers_whoever_lists_the_file() {
    let first = index_of(NAME, Some(b"x".to_vec()), |_| Reply::new(200, b"x"));
    let second = index_of(NAME, Some(b"x".to_vec()), |_| Reply::new(500, b""));
    let site = Site::before(&first);
    site.file("a", NAME).await;
    let index = format!("http://{}/simple", second.address());
    let other = Site::at(Arc::clone(&site.home), &index, |_| ());
    assert_eq!(text(&other.file("a", NAME).await), "x");
}

#[tokio::test]
async fn two_who_want_one_file_at_once_fetch_it_once() {
    let bytes = noise(200_000);
    let body = bytes.clone();
    let stub = index_of(NAME, Some(bytes.clone()), move |_| Reply {
        pause: Duration::from_millis(600),
        ..Reply::new(200, &body)
    });
    let site = Site::before(&stub);
    let index = format!("http://{}/simple", stub.address());
    // Another server on the same store is as good as another process: it knows nothing of the first one's work.
    let other = Site::at(Arc::clone(&site.home), &index, |_| ());
    let (path, elsewhere) = (site.path("a", NAME).await, other.path("a", NAME).await);
    let (one, two, three) = tokio::join!(site.get(&path), site.get(&path), other.get(&elsewhere));
    let said = [site.session.taken(), other.session.taken()].map(|taken| failures(&taken).concat()).concat();
    assert_eq!(said, "");
    for answer in [one, two, three] {
        assert!(is_whole(&answer) && answer.body == bytes);
    }
    assert_eq!(asked(&stub, &format!("/files/{NAME}")), 1);
    assert_eq!(fs_err::read_dir(site.home.path().join("store/tmp")).expect("tmp").count(), 0);
}

#[tokio::test]
async fn an_index_that_falls_silent_is_an_error_and_no_hang() {
    let stub = Stub::start(|_| Reply { pause: Duration::from_secs(20), ..page(&[]) });
    let index = format!("http://{}/simple", stub.address());
    let site = Site::new(&index, |settings| {
        settings.attempts = 1;
        settings.timeouts.stall = Duration::from_secs(1);
    });
    let start = Instant::now();
    assert_eq!(site.page("a").await.status, 424);
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(failures(&site.finish()), [format!("{} sent nothing for 1 s", stub.address())]);
}

#[tokio::test]
async fn an_index_that_is_not_there_is_named() {
    let site = Site::new("http://127.0.0.1:1/simple", |settings| settings.attempts = 1);
    let answer = site.page("a").await;
    assert!(text(&answer).contains("hint: check the network"), "{}", text(&answer));
    let said = failures(&site.finish());
    assert!(said[0].starts_with("cannot reach 127.0.0.1:1: "), "{said:?}");
    assert!(said[0].contains("refused"), "{said:?}");
}

#[tokio::test]
async fn an_index_is_reached_through_the_proxy_that_is_set_and_a_refusal_names_it() {
    let stub = index_of(NAME, Some(b"x".to_vec()), |_| Reply::new(200, b"x"));
    let proxy = Proxy::start(stub.address());
    let through = |proxy: &str| {
        let options = lbx_net::ProxyOptions {
            http: Some(proxy.to_owned()),
            https: Some(proxy.to_owned()),
            no_proxy: None,
        };
        Site::new("http://index.test/simple", |settings| {
            settings.proxy = Some(options);
            settings.attempts = 1;
            settings.trusted_hosts = vec![TrustedHost::parse("index.test").expect("a host")];
        })
    };
    let site = through(&format!("http://me:hush@{}", proxy.address()));
    assert_eq!(text(&site.file("a", NAME).await), "x");
    assert!(proxy.seen().contains(&"GET http://index.test/simple/a/".to_owned()), "{:?}", proxy.seen());
    let asked = stub.seen();
    assert!(asked.iter().all(|request| request.header("proxy-authorization").is_some()), "{asked:?}");
    let dead = through("http://127.0.0.1:1");
    dead.page("a").await;
    let said = failures(&dead.finish());
    assert!(
        said[0].starts_with("cannot reach index.test through the proxy http://127.0.0.1:1: "),
        "{said:?}"
    );
}

/// Serves TLS in front of a stub with a certificate for these names. Returns the port.
fn over_tls(stub: &Stub, certificate: &tls::Certificate, authority: Option<&tls::Certificate>) -> u16 {
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::rustls::server::WebPkiClientVerifier;
    use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};
    let provider = Arc::new(ring::default_provider());
    let chain = CertificateDer::pem_slice_iter(&certificate.pem()).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_file(&certificate.key).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let config = config.with_safe_default_protocol_versions().expect("versions");
    let config = match authority {
        None => config.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            let found = CertificateDer::pem_slice_iter(&authority.pem()).collect::<Result<Vec<_>, _>>();
            roots.add_parsable_certificates(found.expect("certificates"));
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            config.with_client_cert_verifier(verifier.expect("a verifier"))
        }
    };
    let config = config.with_single_cert(chain.expect("certificates"), key).expect("a certificate");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.set_nonblocking(true).expect("no blocking");
    let port = listener.local_addr().expect("an address").port();
    let (listener, to) =
        (tokio::net::TcpListener::from_std(listener).expect("a socket"), stub.address().to_owned());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, to) = (acceptor.clone(), to.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut inner = tokio::net::TcpStream::connect(to).await.expect("the stub");
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut inner).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn a_certificate_counts_by_its_authority_and_a_trusted_hosts_whatever_it_is() {
    let home = tempfile::tempdir().expect("a directory");
    let authority = tls::authority(home.path());
    let certificate = tls::server(home.path(), "DNS:localhost", &authority);
    let stub = index_of(NAME, Some(b"x".to_vec()), |_| Reply::new(200, b"x"));
    let port = over_tls(&stub, &certificate, None);
    let index = |host: &str| format!("https://{host}:{port}/simple");
    let trusting = Site::new(&index("localhost"), |settings| settings.ca_pem = vec![authority.pem()]);
    assert_eq!(text(&trusting.file("a", NAME).await), "x");
    let careful = Site::new(&index("localhost"), |_| ());
    careful.page("a").await;
    let said = failures(&careful.finish());
    assert_eq!(
        said,
        [format!("the certificate of localhost:{port} is not trusted: its issuer is not known here")]
    );
    let other = Site::new(&index("127.0.0.1"), |settings| settings.ca_pem = vec![authority.pem()]);
    other.page("a").await;
    assert!(failures(&other.finish())[0].ends_with("it is for another name"));
    let host = |text: &str| vec![TrustedHost::parse(text).expect("a host")];
    let lenient = Site::new(&index("localhost"), |settings| settings.trusted_hosts = host("localhost"));
    assert_eq!(text(&lenient.file("a", NAME).await), "x");
    for wrong in ["localhost:1", "127.0.0.1"] {
        let strict = Site::new(&index("localhost"), |settings| settings.trusted_hosts = host(wrong));
        assert_eq!(strict.page("a").await.status, 424, "{wrong}");
    }
    assert!(stub.seen().len() == 4, "nothing was asked without trust");
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_is_shown_the_users() {
    let home = tempfile::tempdir().expect("a directory");
    let authority = tls::authority(home.path());
    let certificate = tls::server(home.path(), "DNS:localhost", &authority);
    let stub = Stub::start(|_| page(&[]));
    let port = over_tls(&stub, &certificate, Some(&authority));
    let mine = [certificate.pem(), fs_err::read(&certificate.key).expect("a key")].concat();
    let site = |own: Option<Vec<u8>>| {
        Site::new(&format!("https://localhost:{port}/simple"), |settings| {
            settings.ca_pem = vec![authority.pem()];
            settings.client_certificate = own.map(lbx_index::ClientCertificate::new);
            settings.attempts = 1;
        })
    };
    assert_eq!(site(Some(mine)).page("a").await.status, 200);
    assert_eq!(site(None).page("a").await.status, 424);
}

#[tokio::test]
async fn an_index_in_the_clear_is_refused_before_it_is_asked() {
    let home = tempfile::tempdir().expect("a directory");
    let mut settings = crate::support::settings("http://index.test/simple", home.path());
    let refused = lbx_index::Server::new(settings.clone()).expect_err("in the clear").to_string();
    assert!(refused.contains("http://index.test/simple is plain HTTP"), "{refused}");
    settings.index = Some(address("https://index.test/simple"));
    settings.direct = vec![address("http://files.test/a-1.0.zip")];
    assert!(lbx_index::Server::new(settings).is_err());
}
