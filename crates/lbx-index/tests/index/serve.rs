//! What clients are given, and what not.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use lbx_index::{Digest, Error, FindLinks, Strategy};
use lbx_testkit::images::gzip;
use lbx_testkit::stub::{Reply, Stub};
use serde_json::json;

use crate::support::{JSON, Site, address, asked, entry, failures, index_of, is_whole, missing, page, text};

const NAME: &str = "a-1.0-py3-none-any.whl";

#[tokio::test]
async fn a_file_is_found_by_its_page_and_what_was_taken_is_written_down() {
    let bytes = b"the bytes of a wheel".to_vec();
    let body = bytes.clone();
    let stub = index_of(NAME, Some(bytes.clone()), move |_| Reply::new(200, &body));
    let site = Site::before(&stub);
    let answer = site.file("a", NAME).await;
    assert_eq!((answer.status, &answer.body), (200, &bytes));
    assert!(is_whole(&answer));
    assert!(site.server.store().path(&Digest::of(&bytes)).is_file());
    site.file("a", NAME).await;
    assert_eq!(asked(&stub, &format!("/files/{NAME}")), 1, "the second time from the store");
    assert_eq!(asked(&stub, "/simple/a/"), 1, "a session's view stays the same");
    let taken = site.finish();
    let [file] = &taken.files[..] else { panic!("{taken:?}") };
    assert_eq!((file.project.as_deref(), file.version.as_deref()), (Some("a"), Some("1.0")));
    assert_eq!((file.sha256, file.size, file.whole), (Digest::of(&bytes), 20, true));
    assert_eq!(file.url.as_str(), format!("http://{}/files/{NAME}", stub.address()));
    assert_eq!(file.index.as_ref().expect("an index").as_str(), format!("http://{}/simple", stub.address()));
    assert!(taken.failures.is_empty() && taken.refused.is_empty(), "{taken:?}");
}

#[tokio::test]
async fn without_the_secret_there_is_nothing_and_it_is_written_down() {
    let stub = index_of(NAME, None, |_| Reply::new(200, b"x"));
    let site = Site::before(&stub);
    for path in ["/", "/simple/a/", "/0123/simple/a/", "/../etc/passwd", "/%2e%2e/x"] {
        assert_eq!(site.get(path).await.status, 404, "{path}");
    }
    let path = site.path("a", NAME).await;
    let other = site.server.session(&[]).expect("a session");
    let elsewhere = other.index_path().replace("/simple/", path.split_once("/files").expect("a path").1);
    assert_eq!(site.get(&elsewhere).await.status, 404, "another session");
    let attempts: Vec<_> = site.server.attempts().iter().map(ToString::to_string).collect();
    assert_eq!(attempts.len(), 5, "{attempts:?}");
    assert_eq!(attempts[1], "GET /simple/a/: it has no session's secret");
    let over = site.session.index_path();
    let (address, server) = (site.address.clone(), site.server);
    drop(site.session);
    let late = tokio::task::spawn_blocking(move || {
        lbx_testkit::registry::request(&address, "GET", &format!("{over}a/"), &[], &[])
            .expect("an answer")
            .status
    });
    assert_eq!(late.await.expect("no panic"), 404, "a session that is over");
    drop(server);
    assert_eq!(stub.seen().len(), 1, "one page");
}

#[tokio::test]
async fn only_pages_and_files_are_read_and_nothing_is_written() {
    let stub = index_of(NAME, None, |_| Reply::new(200, b"x"));
    let site = Site::before(&stub);
    let path = site.path("a", NAME).await;
    let prefix = site.session.index_path();
    for method in ["POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "PROPFIND"] {
        assert_eq!(site.ask(method, &path, &[]).await.status, 405, "{method}");
    }
    let root = prefix.trim_end_matches("simple/");
    for wrong in [
        format!("{prefix}../files/x"),
        format!("{prefix}..%2f..%2fetc/"),
        format!("{root}files/0000/{NAME}"),
        path.replace(NAME, "b-1.0-py3-none-any.whl"),
        format!("{path}.metadata"),
        root.to_owned(),
    ] {
        assert_eq!(site.get(&wrong).await.status, 404, "{wrong}");
    }
    assert_eq!(site.page("unknown").await.status, 404);
    let taken = site.finish();
    assert_eq!(taken.refused.len(), 12, "{:?}", taken.refused);
    assert!(taken.files.is_empty() && taken.failures.is_empty());
}

#[tokio::test]
async fn a_page_is_html_for_those_who_do_not_read_json_and_says_the_same() {
    let stub = Stub::start(|request| match request.path.as_str() {
        "/simple/a/" => {
            let mut yanked = entry(NAME, "/f/x", Some(b"x"));
            yanked["yanked"] = json!("it <bites>");
            yanked["requires-python"] = json!(">=3.8,<4");
            yanked["core-metadata"] = json!({"sha256": Digest::of(b"m").to_string()});
            yanked["size"] = json!(1);
            page(&[yanked, entry("a-0.9.tar.gz", "/f/y", None)])
        }
        _ => missing(),
    });
    let site = Site::before(&stub);
    let path = format!("{}A/", site.session.index_path());
    let html = site.ask("GET", &path, &[("Accept", "text/html")]).await;
    assert!(html.header("content-type").expect("a type").starts_with("text/html"));
    let html = text(&html);
    let digest = Digest::of(b"m").to_string();
    for part in [
        "data-requires-python=\"&gt;=3.8,&lt;4\"".to_owned(),
        "data-yanked=\"it &lt;bites&gt;\"".to_owned(),
        format!("data-core-metadata=\"sha256={digest}\" data-dist-info-metadata=\"sha256={digest}\""),
        format!("/{NAME}#sha256={}\"", Digest::of(b"x")),
        ">a-0.9.tar.gz</a>".to_owned(),
    ] {
        assert!(html.contains(&part), "{part} {html}");
    }
    assert!(!html.contains(stub.address()), "{html}");
    let files = site.files("a").await;
    assert_eq!(files[0]["yanked"], "it <bites>");
    assert_eq!(files[0]["core-metadata"], files[0]["dist-info-metadata"]);
    assert_eq!((&files[0]["size"], files.len()), (&json!(1), 2));
    let head = site.ask("HEAD", &path, &[("Accept", JSON)]).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn parts_of_a_file_are_cut_from_what_was_verified() {
    let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let body = bytes.clone();
    let stub = index_of(NAME, Some(bytes.clone()), move |_| Reply::new(200, &body));
    let site = Site::before(&stub);
    let path = site.path("a", NAME).await;
    let head = site.ask("HEAD", &path, &[]).await;
    assert_eq!(head.header("accept-ranges"), Some("bytes"));
    assert_eq!(head.header("content-length"), Some("400000"));
    let end = site.ask("GET", &path, &[("Range", "bytes=-100")]).await;
    assert_eq!((end.status, end.header("content-range")), (206, Some("bytes 399900-399999/400000")));
    assert_eq!(end.body, &bytes[399_900..]);
    let middle = site.ask("GET", &path, &[("Range", "bytes=1000-300999")]).await;
    assert_eq!(middle.body, &bytes[1000..301_000]);
    let outside = site.ask("GET", &path, &[("Range", "bytes=400000-")]).await;
    assert_eq!((outside.status, outside.header("content-range")), (416, Some("bytes */400000")));
    let files = site.session.taken().files;
    assert!(files.len() == 1 && !files[0].whole, "looked at, and not taken: {files:?}");
    assert_eq!(site.get(&path).await.body, bytes);
    assert!(site.finish().files[0].whole);
    assert_eq!(asked(&stub, &format!("/files/{NAME}")), 1);
}

#[tokio::test]
async fn metadata_is_passed_on_alone_and_verified() {
    let good = b"Metadata-Version: 2.1\nName: a\n".to_vec();
    let sent = good.clone();
    let stub = Stub::start(move |request| match request.path.as_str() {
        "/simple/a/" => {
            let mut first = entry(NAME, "/f/a.whl", Some(b"x"));
            first["core-metadata"] = json!({"sha256": Digest::of(&good).to_string()});
            let mut second = entry("a-2.0-py3-none-any.whl", "/f/b.whl", Some(b"y"));
            second["dist-info-metadata"] = json!({"sha256": Digest::of(b"other").to_string()});
            page(&[first, second])
        }
        "/f/a.whl.metadata" | "/f/b.whl.metadata" => Reply::new(200, &sent),
        _ => missing(),
    });
    let site = Site::before(&stub);
    let path = site.path("a", NAME).await;
    assert!(text(&site.get(&format!("{path}.metadata")).await).starts_with("Metadata-Version"));
    let other = site.path("a", "a-2.0-py3-none-any.whl").await;
    assert!(!is_whole(&site.get(&format!("{other}.metadata")).await));
    let taken = site.finish();
    assert!(taken.files.is_empty(), "metadata is looked at, and nothing was taken");
    assert!(failures(&taken)[0].contains("expected"), "{taken:?}");
}

#[tokio::test]
async fn a_file_is_had_by_its_address_only_where_that_is_allowed() {
    let stub = Stub::start(|request| match request.path.as_str() {
        "/d/b-1.0.tar.gz?key=hush" => Reply::new(200, b"direct"),
        _ => missing(),
    });
    let url = format!("http://{}/d/b-1.0.tar.gz?key=hush#sha256={}", stub.address(), Digest::of(b"direct"));
    let site = Site::new("http://127.0.0.1:1/simple", |settings| settings.direct = vec![address(&url)]);
    let path = site.session.direct_path(&address(&url)).expect("allowed");
    let (path, hash) = path.split_once('#').expect("a hash");
    assert_eq!(hash, format!("sha256={}", Digest::of(b"direct")));
    assert_eq!(text(&site.get(path).await), "direct");
    assert!(site.session.direct_path(&address("https://other.test/b-1.0.tar.gz")).is_none());
    let forbidden = path.replace("/url/", "/url/0");
    assert_eq!(site.get(&forbidden).await.status, 403);
    let narrow = site.server.session(&[]).expect("a session");
    let elsewhere =
        narrow.index_path().replace("/simple/", path.split_at(path.find("/url/").expect("a path")).1);
    assert_eq!(site.get(&elsewhere).await.status, 403, "allowed in another session");
    let Err(Error::Setting { .. }) = site.server.session(&[address("https://other.test/b.zip")]) else {
        panic!("an address that the server was not told of")
    };
    let taken = site.finish();
    let [file] = &taken.files[..] else { panic!("{taken:?}") };
    assert_eq!((file.project.as_ref(), file.index.as_ref()), (None, None));
    assert_eq!(file.url.as_str(), format!("http://{}/d/b-1.0.tar.gz?…", stub.address()));
    assert_eq!(taken.refused.len(), 1);
}

#[tokio::test]
async fn links_come_from_folders_pages_and_addresses_of_files_too() {
    let folder = tempfile::tempdir().expect("a directory");
    fs_err::write(folder.path().join("a-3.0.tar.gz"), b"from a folder").expect("a file");
    fs_err::write(folder.path().join("b-3.0.tar.gz"), b"another").expect("a file");
    let stub = Stub::start(|request| match request.path.as_str() {
        "/links" => {
            let text =
                "<a href='/f/a-2.0.tar.gz'>a</a><a href='/f/c-2.0.tar.gz'>c</a><a href='/about.html'>x</a>";
            Reply::new(200, text.as_bytes()).with_header("Content-Type", "text/html")
        }
        "/f/a-2.0.tar.gz" => Reply::new(200, b"from a page"),
        "/g/a-1.0.tar.gz" => Reply::new(200, b"by its address"),
        _ => missing(),
    });
    let url = |path: &str| format!("http://{}{path}", stub.address());
    let links = |text: &str| FindLinks::parse(text).expect(text);
    let site = Site::new(&url("/simple"), |settings| {
        settings.find_links = vec![
            links(folder.path().to_str().expect("UTF-8")),
            links(&url("/links")),
            links(&url("/g/a-1.0.tar.gz")),
        ];
        settings.no_index = true;
    });
    let names: Vec<_> = site.files("a").await.iter().map(|file| file["filename"].clone()).collect();
    assert_eq!(names, ["a-3.0.tar.gz", "a-2.0.tar.gz", "a-1.0.tar.gz"]);
    assert_eq!(text(&site.file("a", "a-3.0.tar.gz").await), "from a folder");
    assert_eq!(text(&site.file("a", "a-2.0.tar.gz").await), "from a page");
    assert_eq!(text(&site.file("a", "a-1.0.tar.gz").await), "by its address");
    assert_eq!(site.files("c").await.len(), 1);
    assert_eq!((asked(&stub, "/links"), asked(&stub, "/simple/a/")), (1, 0), "no index is asked");
    let taken = site.finish();
    assert_eq!(taken.files[0].sha256, Digest::of(b"from a folder"));
    assert!(taken.files[0].url.as_str().starts_with("file:///"), "{taken:?}");
}

/// Two indexes: the first has `a` 1.0, the second `a` 2.0, `b`, and the same `a` 1.0.
async fn versions(strategy: Strategy, project: &str, first: u16) -> (u16, Vec<String>) {
    let one = Stub::start(move |request| match (request.path.as_str(), first) {
        ("/simple/a/", 200) => page(&[entry("a-1.0.tar.gz", "/f/a", Some(b"1"))]),
        ("/simple/a/", status) => Reply::new(status, b""),
        _ => missing(),
    });
    let two = Stub::start(|request| match request.path.as_str() {
        "/simple/a/" => page(&[
            entry("a-1.0.tar.gz", "/f/a", Some(b"1")),
            entry("a-1.0.tar.gz", "/f/a", Some(b"other bytes")),
            entry("a-2.0.tar.gz", "/f/b", Some(b"2")),
        ]),
        "/simple/b/" => page(&[entry("b-1.0.tar.gz", "/f/c", Some(b"3"))]),
        _ => missing(),
    });
    let site = Site::new(&format!("http://{}/simple", one.address()), |settings| {
        settings.extra = vec![address(&format!("http://{}/simple", two.address()))];
        settings.strategy = strategy;
    });
    let status = site.page(project).await.status;
    if status != 200 {
        return (status, failures(&site.finish()));
    }
    let names = site.files(project).await;
    (status, names.iter().map(|file| file["filename"].as_str().expect("a name").to_owned()).collect())
}

#[tokio::test]
async fn several_indexes_count_alike_or_the_first_that_has_a_project_counts() {
    let (_, all) = versions(Strategy::BestMatch, "a", 200).await;
    assert_eq!(
        all,
        ["a-1.0.tar.gz", "a-1.0.tar.gz", "a-2.0.tar.gz"],
        "one file twice is one, other bytes are not"
    );
    assert_eq!(versions(Strategy::FirstMatch, "a", 200).await.1, ["a-1.0.tar.gz"]);
    assert_eq!(versions(Strategy::FirstMatch, "a", 404).await.1.len(), 3);
    for strategy in [Strategy::BestMatch, Strategy::FirstMatch] {
        assert_eq!(versions(strategy, "b", 200).await.1, ["b-1.0.tar.gz"]);
        let (status, errors) = versions(strategy, "a", 500).await;
        assert_eq!(status, 424, "an index that fails may have what is wanted");
        assert!(errors[0].contains("answered 500 to a request for http://127.0.0.1"), "{errors:?}");
    }
}

#[tokio::test]
async fn a_connection_serves_many_requests_and_a_long_head_is_refused() {
    let stub = index_of(NAME, None, |_| Reply::new(200, b"x"));
    let site = Site::before(&stub);
    let path = format!("{}a/", site.session.index_path());
    let address = site.address.clone();
    let work = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(&address).expect("a server");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let mut seen = String::new();
        let mut buffer = [0; 4096];
        for number in 1..=3 {
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
            while seen.matches("</html>").count() < number {
                let count = stream.read(&mut buffer).expect("an answer");
                assert_ne!(count, 0, "it stays open");
                seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        }
        let mut long = TcpStream::connect(&address).expect("a server");
        let _ = write!(long, "GET {path} HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
        let mut answer = Vec::new();
        let _ = long.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{answer:?}");
    });
    work.await.expect("no panic");
}

#[tokio::test]
async fn several_sockets_and_sessions_are_served_at_once() {
    let stub = index_of(NAME, None, |_| Reply::new(200, b"x"));
    let site = Site::before(&stub);
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let second = listener.local_addr().expect("an address").to_string();
    site.server.listen(listener).expect("a runtime");
    let other = Site { address: second, session: site.server.session(&[]).expect("a session"), ..site };
    assert_eq!(other.files("a").await.len(), 1);
}

#[tokio::test]
async fn a_compressed_page_is_read() {
    let stub = Stub::start(|request| {
        assert_eq!(request.header("accept-encoding"), Some("gzip"));
        let whole = page(&[entry(NAME, "/f/x", None)]);
        Reply { body: gzip(&whole.body), ..whole }.with_header("Content-Encoding", "gzip")
    });
    assert_eq!(Site::before(&stub).files("a").await.len(), 1);
}
