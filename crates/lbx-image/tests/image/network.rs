//! The way to a registry: TLS, proxies, token services, and where none of them may lead.
//!
//! `0.0.0.0` reaches this machine and is no loopback address to lbx, so it stands for a registry elsewhere.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lbx_image::{CertificateProblem, Error, ProxyOptions, PullOptions};
use lbx_testkit::images::{Image, Layer, Tar};
use lbx_testkit::proxy::{Proxy, tls_only};
use lbx_testkit::registry::Registry;
use lbx_testkit::stub::{Reply, Request, Stub};
use lbx_testkit::tls::{self, Certificate};

use crate::support::{Home, noise, options};

/// Names of everything that this machine is called here.
const NAMES: &str = "IP:127.0.0.1,IP:0.0.0.0,DNS:localhost,DNS:registry.test";

fn image() -> Image {
    let noise = noise(1, 50_000);
    Image::new("amd64", vec![Layer::gzip(&Tar::new().file("noise", 0o644, &noise).finish())])
}

/// A registry over TLS with an image, and the authority that signed its certificate.
struct Secure {
    server: Registry,
    authority: Certificate,
    directory: tempfile::TempDir,
}

impl Secure {
    fn start(certificate: impl Fn(&Path, &Certificate) -> Certificate) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("data");
        Registry::start(&data).push_image("a", "1", &image());
        let authority = tls::authority(directory.path());
        let server = Registry::start_tls(&data, &certificate(directory.path(), &authority));
        Self { server, authority, directory }
    }

    fn trusted() -> Self {
        Self::start(|directory, authority| tls::server(directory, NAMES, authority))
    }

    fn port(&self) -> &str {
        self.server.address().rsplit_once(':').expect("a port").1
    }

    fn reference(&self, host: &str) -> String {
        format!("{host}:{}/a:1", self.port())
    }

    fn options(&self) -> PullOptions {
        PullOptions { extra_ca_pem: vec![self.authority.pem()], ..options() }
    }
}

async fn pull(reference: &str, options: &PullOptions) -> Result<lbx_image::Image, Error> {
    Home::new().pull(reference, options).await
}

#[tokio::test]
async fn a_registry_over_tls_is_read_with_its_authority_here_and_elsewhere() {
    let secure = Secure::trusted();
    for host in ["0.0.0.0", "127.0.0.1", "localhost"] {
        let pulled = pull(&secure.reference(host), &secure.options()).await;
        assert!(pulled.is_ok(), "{host}: {pulled:?}");
    }
    // A server that hangs up on plain HTTP without a word.
    let silent = tls_only(secure.server.address());
    pull(&format!("{silent}/a:1"), &secure.options()).await.expect("a pull");
    let plain = PullOptions { plain_http: true, ..secure.options() };
    let error = pull(&secure.reference("127.0.0.1"), &plain).await.expect_err("plain HTTP was demanded");
    assert!(matches!(error, Error::Status { status: 400, .. }), "{error}");
}

#[tokio::test]
async fn without_the_authority_the_certificate_is_named_with_what_to_do() {
    let secure = Secure::trusted();
    for host in ["0.0.0.0", "127.0.0.1"] {
        let error = pull(&secure.reference(host), &options()).await.expect_err("unknown authority");
        assert_eq!(
            error.to_string(),
            format!(
                "the certificate of {host}:{} is not trusted: its issuer is not known here",
                secure.port()
            )
        );
        assert!(error.hint().expect("a hint").contains("SSL_CERT_FILE"));
    }
    let problem = |error: Error| match error {
        Error::Certificate { problem, .. } => problem,
        other => panic!("expected a certificate's problem, found {other}"),
    };
    let other = Secure::start(|directory, authority| tls::server(directory, "DNS:other.test", authority));
    let error = pull(&other.reference("0.0.0.0"), &other.options()).await.expect_err("another name");
    assert_eq!(problem(error), CertificateProblem::OtherName);
    let own = Secure::start(|directory, _| tls::self_signed(directory, NAMES));
    let pem = fs_err::read(own.directory.path().join("self-signed.pem")).expect("a certificate");
    let trusting = PullOptions { extra_ca_pem: vec![pem], ..options() };
    let error = pull(&own.reference("0.0.0.0"), &trusting).await.expect_err("an authority as a server");
    assert!(error.hint().expect("a hint").contains("CA:FALSE"), "{error}");
    assert_eq!(problem(error), CertificateProblem::Authority);
}

#[tokio::test]
async fn a_bundle_may_hold_what_cannot_be_used_but_not_only_that() {
    let secure = Secure::trusted();
    let odd = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n# comment\n\
                -----BEGIN CERTIFICATE-----\nno base64!\n-----END CERTIFICATE-----\n"
        .to_vec();
    let bundle = [odd.clone(), secure.authority.pem(), odd.clone()].concat().repeat(100);
    let mixed = PullOptions { extra_ca_pem: vec![bundle.clone(), bundle], ..options() };
    pull(&secure.reference("0.0.0.0"), &mixed).await.expect("a pull");
    let useless = PullOptions { extra_ca_pem: vec![odd], ..options() };
    let error = pull(&secure.reference("0.0.0.0"), &useless).await.expect_err("no certificate");
    assert!(matches!(error, Error::Setup { .. }) && error.hint().is_some(), "{error}");
    // Plain HTTP reads no certificates, so a bad bundle is in nobody's way.
    let stub = Stub::registry(image(), |_, reply| reply);
    pull(&format!("{}/a:1", stub.address()), &useless).await.expect("a pull");
}

fn proxied(http: Option<&str>, https: Option<&str>, no_proxy: Option<&str>) -> ProxyOptions {
    let owned = |text: Option<&str>| text.map(|text| format!("http://{text}"));
    ProxyOptions { http: owned(http), https: owned(https), no_proxy: no_proxy.map(str::to_owned) }
}

#[tokio::test]
async fn https_goes_through_a_proxys_tunnel_unless_no_proxy_names_the_host() {
    let secure = Secure::trusted();
    let proxy = Proxy::start(secure.server.address());
    let mut options = secure.options();
    options.proxy = Some(proxied(None, Some(proxy.address()), None));
    pull("registry.test/a:1", &options).await.expect("a pull");
    pull("registry.test:5000/a:1", &options).await.expect("a pull");
    let seen = proxy.seen();
    assert!(seen.contains(&"CONNECT registry.test:443".to_owned()), "{seen:?}");
    assert!(seen.contains(&"CONNECT registry.test:5000".to_owned()), "{seen:?}");
    // Directly: named by the user, or on this machine.
    options.proxy = Some(proxied(None, Some(proxy.address()), Some("other.test,0.0.0.0")));
    pull(&secure.reference("0.0.0.0"), &options).await.expect("a pull");
    pull(&secure.reference("127.0.0.1"), &options).await.expect("a pull");
    assert_eq!(proxy.seen().len(), seen.len());
}

#[tokio::test]
async fn plain_http_goes_through_its_proxy_and_not_when_it_is_on_this_machine() {
    let stub = Stub::registry(image(), |_, reply| reply);
    let proxy = Proxy::start(stub.address());
    let mut options = PullOptions { plain_http: true, ..options() };
    options.proxy = Some(proxied(Some(proxy.address()), None, None));
    pull("registry.test/a:1", &options).await.expect("a pull");
    let seen = proxy.seen();
    assert!(seen.contains(&"GET http://registry.test/v2/a/manifests/1".to_owned()), "{seen:?}");
    assert_eq!(seen.iter().filter(|request| request.contains("/blobs/")).count(), 2);
    pull(&format!("{}/a:1", stub.address()), &options).await.expect("a pull");
    assert_eq!(proxy.seen().len(), seen.len());
}

#[tokio::test]
async fn a_proxy_that_is_down_or_refuses_is_named_without_its_password() {
    for scheme in ["https", "http"] {
        let mut options = PullOptions { plain_http: scheme == "http", ..options() };
        let mut error = async |address: &str, status: &str| {
            let proxy = Some(format!("http://user:secret@{address}"));
            options.proxy = Some(ProxyOptions { http: proxy.clone(), https: proxy, no_proxy: None });
            let error = pull("registry.test/a:1", &options).await.expect_err(status);
            assert_eq!(
                error.to_string(),
                format!("cannot reach registry.test through the proxy http://{address}"),
                "{scheme}"
            );
            assert!(error.hint().expect("a hint").contains("no_proxy"));
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        };
        error("127.0.0.1:1", "nobody listens").await;
        error(Proxy::refusing(407).address(), "no access").await;
    }
}

/// A token service and a registry that sends its clients there, both in plain HTTP on ports of their own.
fn with_tokens(service: &Stub, change: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) -> Stub {
    let realm = format!("http://{}/token", service.address());
    Stub::registry(image(), move |request, reply| {
        if request.header("authorization") == Some("Bearer anonymous") {
            return change(request, reply);
        }
        let challenge = format!("Bearer realm=\"{realm}\",service=\"stub\",scope=\"repository:a:pull\"");
        Reply::new(401, b"{}").with_header("WWW-Authenticate", &challenge)
    })
}

#[tokio::test]
async fn an_anonymous_token_comes_from_a_service_on_another_port() {
    let service = Stub::start(|_| Reply::new(200, br#"{"access_token": "anonymous", "expires_in": 300}"#));
    let cdn = Stub::registry(image(), |_, reply| reply);
    let elsewhere = cdn.address().to_owned();
    let registry = with_tokens(&service, move |request, reply| {
        if request.is_blob() {
            Reply::new(307, b"").with_header("Location", &format!("http://{elsewhere}{}", request.path))
        } else {
            reply
        }
    });
    pull(&format!("{}/a:1", registry.address()), &options()).await.expect("a pull");
    assert_eq!(service.seen().len(), 1);
    assert_eq!(service.seen()[0].path, "/token?scope=repository%3Aa%3Apull&service=stub");
    let refused = registry.seen().iter().filter(|request| request.header("authorization").is_none()).count();
    assert_eq!(refused, 1, "the token is asked for once, and used from then on");
    assert_eq!(cdn.seen().len(), 2);
    let told = |stub: &Stub| stub.seen().iter().any(|request| request.header("authorization").is_some());
    assert!(!told(&service) && !told(&cdn), "nobody else sees a token");
}

#[tokio::test]
async fn a_token_service_that_is_or_leads_to_a_cloud_machines_keys_is_refused() {
    let error = |realm: String| async move {
        let registry = Stub::start(move |_| {
            let challenge = format!("Bearer realm=\"{realm}\"");
            Reply::new(401, b"{}").with_header("WWW-Authenticate", &challenge)
        });
        pull(&format!("{}/a:1", registry.address()), &options()).await.expect_err("refused")
    };
    let leads = Stub::start(|_| Reply::new(302, b"").with_header("Location", "http://169.254.169.254/token"));
    for realm in [
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://[fe80::1]/token".to_owned(),
        "http://[::ffff:169.254.169.254]/token".to_owned(),
        format!("http://{}/token", leads.address()),
    ] {
        let error = error(realm.clone()).await;
        assert!(matches!(error, Error::Misdirected { .. }), "{realm}: {error}");
        assert!(error.to_string().contains("an address of this machine or its cloud"), "{error}");
    }
    let error = error("file:///etc/passwd".to_owned()).await;
    assert!(matches!(error, Error::Misdirected { .. }), "{error}");
    assert!(error.to_string().ends_with("file:///etc/passwd, which is no web address"), "{error}");
}

#[tokio::test]
async fn a_token_service_that_fails_for_a_moment_or_says_too_much() {
    let calls = AtomicUsize::new(0);
    let flaky = Stub::start(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(503, b"later"),
        _ => Reply::new(200, br#"{"token": "anonymous"}"#),
    });
    let registry = with_tokens(&flaky, |_, reply| reply);
    pull(&format!("{}/a:1", registry.address()), &options()).await.expect("a pull");
    let endless = Stub::start(|_| Reply { zeros: 1 << 40, unsized_body: true, ..Reply::new(200, b"") });
    let registry = with_tokens(&endless, |_, reply| reply);
    let error = pull(&format!("{}/a:1", registry.address()), &options()).await.expect_err("too much");
    assert!(matches!(error, Error::Denied { .. }), "{error}");
}

#[tokio::test]
async fn a_token_that_expires_in_the_middle_of_a_pull_is_renewed() {
    let issued = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&issued);
    let service = Stub::start(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        Reply::new(200, format!("{{\"token\": \"token{number}\"}}").as_bytes())
    });
    let realm = format!("http://{}/token", service.address());
    let registry = Stub::registry(image(), move |request, reply| {
        let wanted = if request.is_blob() { "Bearer token2" } else { "Bearer token1" };
        if request.header("authorization") == Some(wanted) {
            return reply;
        }
        Reply::new(401, b"{}").with_header("WWW-Authenticate", &format!("Bearer realm=\"{realm}\""))
    });
    pull(&format!("{}/a:1", registry.address()), &options()).await.expect("a pull");
    assert_eq!(issued.load(Ordering::SeqCst), 2, "and each is asked for once");
}

#[tokio::test]
async fn a_token_that_would_split_a_header_is_refused_whenever_it_comes() {
    let service = Stub::start(|_| Reply::new(200, br#"{"token": "a\r\nHost: b"}"#));
    let registry = with_tokens(&service, |_, reply| reply);
    let error = pull(&format!("{}/a:1", registry.address()), &options()).await.expect_err("refused");
    assert!(error.to_string().contains("malformed token"), "{error}");
    // At first it wants none.
    let realm = format!("http://{}/token", service.address());
    let asked = AtomicUsize::new(0);
    let late = Stub::registry(image(), move |_, reply| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => reply,
        _ => Reply::new(401, b"{}").with_header("WWW-Authenticate", &format!("Bearer realm=\"{realm}\"")),
    });
    let error = pull(&format!("{}/a:1", late.address()), &options()).await.expect_err("refused");
    assert!(error.to_string().contains("malformed token"), "{error}");
}

#[tokio::test]
async fn a_plain_registry_here_may_send_blobs_to_https_elsewhere() {
    let secure = Secure::trusted();
    let target = secure.server.address().to_owned();
    let registry = Stub::registry(image(), move |request, reply| {
        if request.is_blob() {
            Reply::new(307, b"").with_header("Location", &format!("https://{target}{}", request.path))
        } else {
            reply
        }
    });
    pull(&format!("{}/a:1", registry.address()), &secure.options()).await.expect("a pull");
}

#[tokio::test]
async fn a_registry_that_speaks_no_tls_elsewhere_is_told_from_one_that_is_down() {
    let data = tempfile::tempdir().expect("a directory");
    let server = Registry::start(data.path());
    let port = server.address().rsplit_once(':').expect("a port").1;
    let error = pull(&format!("0.0.0.0:{port}/a:1"), &options()).await.expect_err("plain HTTP elsewhere");
    let source = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(source.contains("does not speak TLS"), "{error:?}: {source}");
}

#[tokio::test]
async fn an_ipv6_address_is_for_plain_http() {
    let error = pull("[2001:db8::1]:5000/a:1", &options()).await.expect_err("a limit of the library");
    assert!(error.to_string().contains("use a name"), "{error}");
}

#[tokio::test]
async fn a_slow_registry_here_is_not_taken_for_one_that_wants_tls() {
    let mut options = options();
    options.stall_timeout = Duration::from_millis(200);
    options.attempts = 1;
    let registry = Stub::start(|_| Reply { pause: Duration::from_secs(2), ..Reply::new(200, b"late") });
    let error = pull(&format!("{}/a:1", registry.address()), &options).await.expect_err("too slow");
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    let seen = registry.seen();
    assert!(seen.iter().all(|request| request.method == "GET"), "{seen:?}");
    assert_eq!(seen.iter().filter(|request| request.is_manifest()).count(), 1);
}
