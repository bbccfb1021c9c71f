//! Registries that lie, break off, stall and send elsewhere: each gives one typed error, or is overcome.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lbx_image::{Error, PullOptions};
use lbx_testkit::images::{Image, Layer, Tar, sha256};
use lbx_testkit::stub::{Reply, Request, Stub};
use serde_json::json;

use crate::support::{Home, noise, options};

fn image() -> Image {
    // Noise, so that the layer stays large when it is compressed.
    let noise = noise(1, 400_000);
    Image::new("amd64", vec![Layer::gzip(&Tar::new().file("noise", 0o644, &noise).finish())])
}

/// Pulls from a registry whose answers are changed; returns the requests too.
async fn pull(
    change: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
    options: &PullOptions,
) -> (Result<lbx_image::Image, Error>, Vec<Request>) {
    pull_image(image(), change, options).await
}

async fn pull_image(
    image: Image,
    change: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
    options: &PullOptions,
) -> (Result<lbx_image::Image, Error>, Vec<Request>) {
    let (home, stub) = (Home::new(), Stub::registry(image, change));
    let result = home.pull(&format!("{}/a:1", stub.address()), options).await;
    if result.is_err() {
        let (_, layers, under_way) = home.contents();
        assert_eq!((layers, under_way), (0, 0), "a failed pull leaves nothing");
    }
    (result, stub.seen())
}

/// Whether this is the layer: the only large blob.
fn is_layer(request: &Request, reply: &Reply) -> bool {
    request.is_blob() && reply.body.len() > 10_000
}

/// The requests for the configuration and the layer.
fn blobs(seen: &[Request]) -> Vec<&Request> {
    seen.iter().filter(|request| request.is_blob()).collect()
}

/// Changes the first answers about the layer and lets the rest through.
fn first(count: usize, change: impl Fn(Reply) -> Reply) -> impl Fn(&Request, Reply) -> Reply {
    let seen = AtomicUsize::new(0);
    move |request, reply| {
        if is_layer(request, &reply) && seen.fetch_add(1, Ordering::SeqCst) < count {
            change(reply)
        } else {
            reply
        }
    }
}

#[tokio::test]
async fn a_flipped_byte_is_a_digest_mismatch_wherever_it_is() {
    let flip = |mut reply: Reply| {
        let middle = reply.body.len() / 2;
        reply.body[middle] ^= 1;
        reply
    };
    let (result, _) =
        pull(move |request, reply| if is_layer(request, &reply) { flip(reply) } else { reply }, &options())
            .await;
    assert!(matches!(result, Err(Error::DigestMismatch { .. })), "{result:?}");
    let config = move |request: &Request, reply: Reply| {
        if request.is_blob() && !is_layer(request, &reply) { flip(reply) } else { reply }
    };
    assert!(matches!(pull(config, &options()).await.0, Err(Error::DigestMismatch { .. })));
    let header = |request: &Request, reply: Reply| {
        let other = sha256(b"other");
        if request.is_manifest() { reply.with_header("Docker-Content-Digest", &other) } else { reply }
    };
    assert!(matches!(pull(header, &options()).await.0, Err(Error::DigestMismatch { .. })));
}

#[tokio::test]
async fn a_manifest_that_is_not_the_pinned_one_is_refused() {
    let (home, stub) = (Home::new(), Stub::registry(image(), |_, reply| reply));
    let error = home.pull(&format!("{}/a@{}", stub.address(), sha256(b"other")), &options()).await;
    assert!(matches!(error, Err(Error::DigestMismatch { .. })), "{error:?}");
}

#[tokio::test]
async fn more_bytes_than_declared_are_not_read() {
    let more = |request: &Request, mut reply: Reply| {
        if is_layer(request, &reply) {
            reply.zeros = 1 << 40;
        }
        reply
    };
    let (result, seen) = pull(more, &options()).await;
    assert!(matches!(result, Err(Error::SizeMismatch { .. })), "{result:?}");
    assert_eq!(blobs(&seen).len(), 2, "asking again would not help");
}

#[tokio::test]
async fn a_layer_that_is_declared_larger_than_it_may_become_is_not_asked_for() {
    let mut image = image();
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).expect("a manifest");
    manifest["layers"][0]["size"] = json!(1_u64 << 62);
    image.manifest = manifest.to_string().into_bytes();
    let (result, seen) = pull_image(image, |_, reply| reply, &options()).await;
    assert!(matches!(result, Err(Error::TooLarge { .. })), "{result:?}");
    assert!(blobs(&seen).is_empty());
}

#[tokio::test]
async fn a_transfer_that_breaks_off_is_resumed_where_it_was() {
    let cut = |mut reply: Reply| {
        reply.cut_after = Some(100_000);
        reply
    };
    let (result, seen) = pull(first(2, cut), &options()).await;
    assert!(result.is_ok(), "{result:?}");
    let ranges: Vec<Option<&str>> = blobs(&seen)[1..].iter().map(|request| request.header("range")).collect();
    assert_eq!(ranges[0], None);
    assert!(
        ranges[1..].iter().all(|range| range.is_some_and(|range| range.starts_with("bytes="))),
        "{ranges:?}"
    );
    assert_eq!(ranges.len(), 3);
}

#[tokio::test]
async fn a_registry_without_ranges_is_read_from_the_start_again() {
    let seen = AtomicUsize::new(0);
    let whole = image().layers[0].blob.clone();
    let change = move |request: &Request, mut reply: Reply| {
        if request.is_blob() && reply.body.len() > 1000 {
            reply = Reply::new(200, &whole);
            reply.cut_after = (seen.fetch_add(1, Ordering::SeqCst) == 0).then_some(100_000);
        }
        reply
    };
    let (result, _) = pull(change, &options()).await;
    assert!(result.is_ok(), "{result:?}");
}

#[tokio::test]
async fn a_blob_that_is_always_too_short_ends_as_that() {
    let short = |request: &Request, mut reply: Reply| {
        if request.is_blob() && reply.body.len() > 1000 {
            reply.body.truncate(1000);
            reply.status = 200;
            reply.headers.clear();
        }
        reply
    };
    assert!(matches!(pull(short, &options()).await.0, Err(Error::SizeMismatch { found: 1000, .. })));
}

#[tokio::test]
async fn passing_errors_are_retried_and_a_registry_asked_too_often_gets_a_rest() {
    for status in [429, 500, 503] {
        let (result, _) = pull(first(2, move |_| Reply::new(status, b"")), &options()).await;
        assert!(result.is_ok(), "{status}: {result:?}");
    }
    let started = Instant::now();
    let wait = |_| Reply::new(429, b"");
    assert!(pull(first(1, wait), &options()).await.0.is_ok());
    assert!(started.elapsed() >= Duration::from_secs(1));
    let (result, seen) = pull(|_, _| Reply::new(500, b""), &options()).await;
    assert!(matches!(result, Err(Error::Status { status: 500, .. })), "{result:?}");
    assert_eq!(seen.iter().filter(|request| request.is_manifest()).count(), 3);
    let (result, seen) = pull(|_, _| Reply::default(), &options()).await;
    assert!(matches!(result, Err(Error::Unreachable { .. })), "{result:?}");
    assert!(seen.len() >= 3);
}

#[tokio::test]
async fn a_registry_that_stalls_is_given_up() {
    let mut options = options();
    options.stall_timeout = Duration::from_millis(100);
    options.attempts = 2;
    let stall = |request: &Request, mut reply: Reply| {
        if is_layer(request, &reply) {
            reply.pause = Duration::from_secs(5);
        }
        reply
    };
    let started = Instant::now();
    let (result, _) = pull(stall, &options).await;
    assert!(matches!(result, Err(Error::Unreachable { .. })), "{result:?}");
    assert!(started.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_huge_manifest_is_not_read_with_or_without_a_length() {
    for unsized_body in [false, true] {
        let huge = move |request: &Request, mut reply: Reply| {
            if request.is_manifest() {
                reply.zeros = 1 << 30;
                reply.unsized_body = unsized_body;
            }
            reply
        };
        let started = Instant::now();
        assert!(matches!(pull(huge, &options()).await.0, Err(Error::TooLarge { .. })));
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_refusal_without_end_is_not_read_to_the_end() {
    let mut options = options();
    options.stall_timeout = Duration::from_millis(200);
    options.attempts = 1;
    let endless = |request: &Request, reply: Reply| {
        if is_layer(request, &reply) {
            Reply { zeros: 1 << 40, unsized_body: true, ..Reply::new(404, b"") }
        } else {
            reply
        }
    };
    let started = Instant::now();
    let (result, _) = pull(endless, &options).await;
    assert!(matches!(result, Err(Error::Unreachable { .. })), "{result:?}");
    assert!(started.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_token_is_fetched_once_and_never_sent_to_another_host() {
    let cdn = Stub::registry(image(), |_, reply| reply);
    let elsewhere = cdn.address().to_owned();
    let change = move |request: &Request, reply: Reply| {
        let host = request.header("host").unwrap_or_default().to_owned();
        if request.path.starts_with("/token") {
            return Reply::new(200, br#"{"token": "secret"}"#);
        }
        if request.header("authorization") != Some("Bearer secret") {
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"stub\"");
            return Reply::new(401, b"{}").with_header("WWW-Authenticate", &challenge);
        }
        if is_layer(request, &reply) {
            return Reply::new(307, b"")
                .with_header("Location", &format!("http://{elsewhere}{}", request.path));
        }
        reply
    };
    let (result, seen) = pull(change, &options()).await;
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(seen.iter().filter(|request| request.path.starts_with("/token")).count(), 1);
    assert!(seen.iter().any(|request| request.path.contains("repository%3Aa%3Apull")));
    assert_eq!(cdn.seen().len(), 1);
    assert_eq!(cdn.seen()[0].header("authorization"), None);
}

#[tokio::test]
async fn a_refused_token_is_an_error_that_says_so() {
    let change = |request: &Request, _: Reply| {
        let host = request.header("host").unwrap_or_default();
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"stub\"");
        if request.path.starts_with("/token") {
            Reply::new(500, b"token service is down")
        } else {
            Reply::new(401, b"{}").with_header("WWW-Authenticate", &challenge)
        }
    };
    let (result, _) = pull(change, &options()).await;
    assert!(matches!(&result, Err(Error::Denied { reason, .. }) if reason.contains("down")), "{result:?}");
    let basic =
        |_: &Request, _: Reply| Reply::new(401, b"{}").with_header("WWW-Authenticate", "Basic realm=\"x\"");
    assert!(matches!(pull(basic, &options()).await.0, Err(Error::Denied { .. })));
}

#[tokio::test]
async fn a_redirect_to_a_cloud_machines_keys_is_refused_and_circles_end() {
    let keys =
        |_: &Request, _: Reply| Reply::new(302, b"").with_header("Location", "http://169.254.169.254/latest");
    assert!(matches!(pull(keys, &options()).await.0, Err(Error::Misdirected { .. })));
    let files = |_: &Request, _: Reply| Reply::new(302, b"").with_header("Location", "ftp://127.0.0.1/layer");
    let (result, seen) = pull(files, &options()).await;
    assert!(matches!(result, Err(Error::Misdirected { .. })), "{result:?}");
    assert_eq!(seen.len(), 1, "and it is not asked again");
    let circle = |request: &Request, _: Reply| Reply::new(302, b"").with_header("Location", &request.path);
    let (result, seen) = pull(circle, &options()).await;
    assert!(matches!(result, Err(Error::Misdirected { .. })), "{result:?}");
    assert!(seen.len() <= 12, "{}", seen.len());
}

#[tokio::test]
async fn foreign_urls_of_a_layer_are_never_asked() {
    let bait = Stub::start(|_| Reply::new(200, b"bait"));
    let mut image = image();
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).expect("a manifest");
    manifest["layers"][0]["urls"] = json!([format!("http://{}/bait", bait.address())]);
    image.manifest = manifest.to_string().into_bytes();
    assert!(pull_image(image, |_, reply| reply, &options()).await.0.is_ok());
    assert!(bait.seen().is_empty());
}

#[tokio::test]
async fn layers_that_are_not_the_configurations_are_refused() {
    let good = image();
    let mut liar = good.layers[0].clone();
    liar.diff_id = sha256(b"other");
    let (result, _) = pull_image(Image::new("amd64", vec![liar]), |_, reply| reply, &options()).await;
    assert!(matches!(result, Err(Error::Unpack { .. })), "{result:?}");
    let config = json!({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": []}});
    let counted = Image::with_config(&config, good.layers);
    assert!(matches!(
        pull_image(counted, |_, reply| reply, &options()).await.0,
        Err(Error::Malformed { .. })
    ));
}
