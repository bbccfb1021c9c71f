//! Indexes that lie, flood, and lead astray.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lbx_index::Digest;
use lbx_testkit::images::gzip;
use lbx_testkit::stub::{Reply, Stub};
use serde_json::json;

use crate::support::{JSON, Site, asked, entry, failures, index_of, is_whole, missing, noise, page, text};

const NAME: &str = "a-1.0-py3-none-any.whl";

fn store_is_empty(site: &Site) -> bool {
    let count =
        |folder: &str| fs_err::read_dir(site.home.path().join("store").join(folder)).expect(folder).count();
    count("files/sha256") == 0 && count("tmp") == 0
}

#[tokio::test]
async fn other_bytes_than_were_promised_are_cut_before_their_end_and_never_kept() {
    let bytes = noise(500_000);
    let body = [&bytes[..499_999], &[!bytes[499_999]]].concat();
    let (expected, found) = (Digest::of(&bytes), Digest::of(&body));
    let stub = index_of(NAME, Some(bytes), move |_| Reply::new(200, &body));
    let site = Site::before(&stub);
    let answer = site.file("a", NAME).await;
    assert!(!is_whole(&answer) && answer.body.len() < 500_000, "{}", answer.body.len());
    assert!(store_is_empty(&site));
    let taken = site.finish();
    let host = stub.address();
    assert_eq!(failures(&taken), [format!("{NAME} from {host} has the sha256 {found}, expected {expected}")]);
    assert!(taken.files.is_empty());
}

#[tokio::test]
async fn every_promise_counts_and_not_only_the_best_known_one() {
    let stub = Stub::start(|request| match request.path.as_str() {
        "/simple/a/" => {
            page(&[json!({"filename": NAME, "url": "/f", "hashes": {"sha512": "0".repeat(128)}})])
        }
        _ => Reply::new(200, b"x"),
    });
    let site = Site::before(&stub);
    assert!(!is_whole(&site.file("a", NAME).await));
    assert!(failures(&site.finish())[0].contains(&format!("expected {}", "0".repeat(128))));
}

/// Asks for a file of an index that says that it has `size` bytes, and gets this reply.
async fn sized(size: Option<u64>, limit: Option<u64>, reply: Reply) -> Vec<String> {
    let stub = Stub::start(move |request| match request.path.as_str() {
        "/simple/a/" => {
            let mut file = entry(NAME, "/f", Some(b"ten bytes!"));
            if let Some(size) = size {
                file["size"] = json!(size);
            }
            page(&[file])
        }
        _ => reply.clone(),
    });
    let index = format!("http://{}/simple", stub.address());
    let site = Site::new(&index, |settings| settings.limits.file = limit.unwrap_or(settings.limits.file));
    let (path, start) = (site.path("a", NAME).await, Instant::now());
    let answer = site.get(&path).await;
    assert!(!is_whole(&answer));
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(store_is_empty(&site));
    failures(&site.finish()).into_iter().map(|text| text.replace(stub.address(), "HOST")).collect()
}

#[tokio::test]
async fn more_or_less_than_was_said_is_an_error_that_says_how_much() {
    let declared = |zeros: u64| Reply { zeros, ..Reply::new(200, b"") };
    let endless = || Reply { unsized_body: true, ..declared(10 << 30) };
    let all = |size: u64| format!("{NAME} from HOST has {size} bytes, expected 10");
    assert_eq!(sized(Some(10), None, declared(10 << 30)).await, [all(10 << 30)]);
    assert_eq!(sized(Some(10), None, declared(9)).await, [all(9)]);
    let said = sized(Some(10), None, endless()).await;
    assert!(
        said[0].starts_with(&format!("{NAME} from HOST has ")) && said[0].ends_with("expected 10"),
        "{said:?}"
    );
    let limited = format!("{NAME} is larger than 1000000 bytes");
    assert_eq!(sized(None, Some(1_000_000), declared(1_000_001)).await, std::slice::from_ref(&limited));
    assert_eq!(sized(None, Some(1_000_000), endless()).await, [limited]);
}

#[tokio::test]
async fn what_comes_after_the_declared_length_is_not_read() {
    // A megabyte is declared, ten gigabytes are sent.
    let reply = Reply { unsized_body: true, zeros: 10 << 30, ..Reply::new(200, b"") };
    let said = sized(None, None, reply.with_header("Content-Length", "1048576")).await;
    assert!(said[0].contains("has the sha256"), "{said:?}");
}

#[tokio::test]
async fn pages_have_a_limit_declared_or_not_and_also_when_they_are_compressed() {
    let ask = async |reply: Reply| {
        let stub = Stub::start(move |_| reply.clone());
        let index = format!("http://{}/simple", stub.address());
        let site = Site::new(&index, |settings| settings.limits.page = 1 << 20);
        assert_eq!(site.page("a").await.status, 424);
        failures(&site.finish()).concat()
    };
    let html = |reply: Reply| reply.with_header("Content-Type", "text/html");
    let large = "/simple/a/ is larger than 1048576 bytes";
    let declared = html(Reply { zeros: 10 << 30, ..Reply::new(200, b"") });
    assert!(ask(declared.clone()).await.ends_with(large));
    assert!(ask(Reply { unsized_body: true, ..declared }).await.ends_with(large));
    let bomb = html(Reply::new(200, &gzip(&vec![b' '; 2 << 20]))).with_header("Content-Encoding", "gzip");
    assert!(ask(bomb).await.ends_with(large));
    let odd = html(Reply::new(200, b"")).with_header("Content-Encoding", "br");
    assert!(ask(odd).await.ends_with("expected gzip or no encoding, found `br`"));
    let broken = html(Reply::new(200, b"no gzip")).with_header("Content-Encoding", "gzip");
    assert!(ask(broken).await.contains("its compression is broken"));
}

#[tokio::test]
async fn a_hundred_thousand_links_are_read_and_served() {
    let mut text = String::from("<!DOCTYPE html><html><body>");
    for number in 0..100_000 {
        write!(text, "<a href=\"../../f/a-{number}.tar.gz#sha256={number:064}\">a-{number}.tar.gz</a>")
            .expect("text");
    }
    let stub =
        Stub::start(move |_| Reply::new(200, text.as_bytes()).with_header("Content-Type", "text/html"));
    let (site, start) = (Site::before(&stub), Instant::now());
    assert_eq!(site.files("a").await.len(), 100_000);
    assert!(start.elapsed() < Duration::from_mins(1), "{:?}", start.elapsed());
}

/// What an index gets that sends its clients on to somewhere.
async fn sent_to(target: &str) -> String {
    let location = target.to_owned();
    let stub = Stub::start(move |_| Reply::new(302, b"").with_header("Location", &location));
    let site = Site::before(&stub);
    assert_eq!(site.page("a").await.status, 424, "{target}");
    failures(&site.finish()).concat().replace(stub.address(), "HOST")
}

#[tokio::test]
async fn nobody_is_sent_to_this_machine_or_its_cloud() {
    let refused = "an address of this machine, or one that only its cloud answers";
    for target in ["169.254.169.254", "[fd00:ec2::254]", "localhost:1", "127.0.0.2", "[::1]:1", "0.0.0.0"] {
        let said = sent_to(&format!("http://{target}/latest/meta-data/")).await;
        assert_eq!(said, format!("HOST sends its clients to {target}, {refused}"));
    }
    assert_eq!(
        sent_to("http://2852039166/").await,
        format!("HOST sends its clients to 169.254.169.254, {refused}")
    );
    assert_eq!(
        sent_to("file:///etc/passwd").await,
        "HOST sends its clients to somewhere, which is no web address"
    );
    assert_eq!(sent_to("http://").await, "HOST sends its clients to somewhere, which is no web address");
    assert!(sent_to("http://index.test/").await.contains("is plain HTTP"));
}

#[tokio::test]
async fn links_lead_nowhere_else_either() {
    let stub = Stub::start(|request| match request.path.as_str() {
        "/simple/a/" => page(&[entry(NAME, "http://169.254.169.254/latest/a-1.0-py3-none-any.whl", None)]),
        _ => missing(),
    });
    let site = Site::before(&stub);
    assert_eq!(site.file("a", NAME).await.status, 424);
    let said = failures(&site.finish());
    assert!(said[0].contains("169.254.169.254 is not asked: it is an address of this machine"), "{said:?}");
}

#[tokio::test]
async fn redirects_are_followed_up_to_a_number() {
    let stub = Stub::start(|request| match request.path.as_str() {
        "/simple/a/" => Reply::new(301, b"").with_header("Location", "/moved/9"),
        "/moved/0" => page(&[entry(NAME, "a.whl", None)]),
        "/moved/x" => Reply::new(302, b"").with_header("Location", "/moved/x"),
        "/simple/b/" => Reply::new(308, b"").with_header("Location", "../../moved/x"),
        path => match path.strip_prefix("/moved/").and_then(|number| number.parse::<u32>().ok()) {
            Some(number) => Reply::new(307, b"").with_header("Location", &format!("{}", number - 1)),
            None => missing(),
        },
    });
    let site = Site::before(&stub);
    assert_eq!(site.files("a").await.len(), 1);
    assert_eq!(site.page("b").await.status, 424);
    assert_eq!(asked(&stub, "/moved/x"), 10);
    assert!(failures(&site.finish())[0].ends_with("after too many others"));
}

#[tokio::test]
async fn what_is_quarantined_is_not_offered_and_what_is_yanked_is_marked() {
    let stub = Stub::start(|request| match request.path.as_str() {
        "/simple/a/" => {
            let text = json!({
                "project-status": {"status": "quarantined", "reason": "it\u{1b}[31m bites"},
                "files": [entry(NAME, "/f", None)]
            });
            Reply::new(200, text.to_string().as_bytes()).with_header("Content-Type", JSON)
        }
        "/simple/b/" => {
            let mut yanked = entry("b-1.0.tar.gz", "/g", None);
            yanked["yanked"] = json!(true);
            page(&[yanked])
        }
        _ => missing(),
    });
    let site = Site::before(&stub);
    assert_eq!(site.files("a").await.len(), 0);
    assert_eq!(site.files("b").await[0]["yanked"], true);
    let said = failures(&site.finish());
    assert_eq!(said, [format!("a is quarantined by http://{}/simple: it [31m bites", stub.address())]);
}

#[tokio::test]
async fn what_is_no_page_is_an_error_that_names_it() {
    let ask = async |content_type: &'static str, body: &'static str| {
        let stub =
            Stub::start(move |_| Reply::new(200, body.as_bytes()).with_header("Content-Type", content_type));
        let site = Site::before(&stub);
        assert_eq!(site.page("a").await.status, 424);
        assert_eq!(stub.seen().len(), 1, "asking again would not help");
        failures(&site.finish()).concat()
    };
    assert!(ask(JSON, "{").await.contains("/simple/a/ is malformed: EOF"));
    assert!(ask("image/png", "x").await.contains("found the type `image/png`"));
    assert!(ask("application/vnd.pypi.simple.v2+json", "{}").await.contains("speaks version 2"));
}

#[tokio::test]
async fn a_range_that_is_not_the_one_asked_for_is_refused() {
    let bytes = noise(100_000);
    let body = bytes.clone();
    let stub = index_of(NAME, Some(bytes), move |request| match request.header("range") {
        None => Reply { cut_after: Some(50_000), ..Reply::new(200, &body) },
        Some(_) => Reply::new(206, &body[10..]).with_header("Content-Range", "bytes 10-99999/100000"),
    });
    let site = Site::before(&stub);
    assert!(!is_whole(&site.file("a", NAME).await));
    assert!(failures(&site.finish())[0].contains("expected bytes from 50000, found `bytes 10-99999/100000`"));
}

#[tokio::test]
async fn a_file_that_is_listed_and_not_there_is_named() {
    let stub = index_of(NAME, Some(b"x".to_vec()), |_| missing());
    let site = Site::before(&stub);
    assert_eq!(site.file("a", NAME).await.status, 404);
    let host = stub.address();
    assert_eq!(failures(&site.finish()), [format!("{host} has no http://{host}/files/{NAME}")]);
}

#[tokio::test]
async fn a_damaged_file_of_the_store_is_fetched_again() {
    let stub = index_of(NAME, Some(b"x".to_vec()), |_| Reply::new(200, b"x"));
    let site = Site::before(&stub);
    site.file("a", NAME).await;
    fs_err::write(site.server.store().path(&Digest::of(b"x")), b"y").expect("damage");
    let index = format!("http://{}/simple", stub.address());
    let later = Site::at(Arc::clone(&site.home), &index, |_| ());
    assert_eq!(text(&later.file("a", NAME).await), "x");
    assert_eq!(asked(&stub, &format!("/files/{NAME}")), 2);
}
