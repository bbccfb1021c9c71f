//! Files that a lock names: from their addresses, from an index that has them, with logins, and not otherwise.

use lbx_index::{Digest, Error, Wanted};
use lbx_testkit::stub::{Reply, Stub};

use crate::support::{Site, address, entry, missing, page};

const NAME: &str = "a-1.0-py3-none-any.whl";
const BYTES: &[u8] = b"what was locked";

fn wanted(url: Option<String>) -> Wanted {
    Wanted {
        project: Some("a".to_owned()),
        name: NAME.to_owned(),
        address: url.map(|url| address(&url)),
        sha256: Digest::of(BYTES),
        size: None,
    }
}

/// An index whose page has the file, which is at `/files/` and, with other bytes, at `/other/`.
fn index() -> Stub {
    Stub::start(|request| match request.path.as_str() {
        "/simple/a/" => page(&[entry(NAME, &format!("/files/{NAME}"), Some(BYTES))]),
        path if path.starts_with("/files/") => Reply::new(200, BYTES),
        path if path.starts_with("/other/") => Reply::new(200, b"something else!"),
        _ => missing(),
    })
}

#[tokio::test]
async fn a_file_is_fetched_once_from_its_address_and_no_page_is_asked_for() {
    let stub = index();
    let site = Site::before(&stub);
    let wanted = wanted(Some(format!("http://{}/files/{NAME}", stub.address())));
    for _ in 0..2 {
        let stored = site.server.fetch(&wanted).await.expect("the file");
        assert_eq!(fs_err::read(&stored.path).expect("its bytes"), BYTES);
    }
    let seen: Vec<String> = stub.seen().into_iter().map(|request| request.path).collect();
    assert_eq!(seen, [format!("/files/{NAME}")]);
}

#[tokio::test]
async fn what_is_not_at_its_address_is_looked_for_by_its_hash() {
    let stub = index();
    for place in ["gone", "other"] {
        let site = Site::before(&stub);
        let stored =
            site.server.fetch(&wanted(Some(format!("http://{}/{place}/{NAME}", stub.address())))).await;
        assert_eq!(fs_err::read(&stored.expect(place).path).expect("its bytes"), BYTES);
    }
    let site = Site::before(&stub);
    assert!(site.server.fetch(&wanted(None)).await.is_ok());
    let offers = site.server.offers("a").await.expect("a page");
    assert_eq!((offers.len(), offers[0].name.as_str(), offers[0].sha256), (1, NAME, Some(Digest::of(BYTES))));
    assert!(site.server.offers("nothing").await.expect("no page").is_empty());
}

#[tokio::test]
async fn what_is_nowhere_is_told_by_what_was_at_its_address() {
    let stub = index();
    let site = Site::before(&stub);
    let other = Wanted { sha256: Digest::of(b"another"), ..wanted(None) };
    let error = site.server.fetch(&other).await.expect_err("no such file");
    assert!(matches!(*error, Error::NotListed { .. }), "{error}");
    let url = format!("http://{}/other/{NAME}", stub.address());
    let error = site.server.fetch(&Wanted { address: Some(address(&url)), ..other }).await;
    let error = error.expect_err("other bytes");
    assert!(matches!(*error, Error::HashMismatch { .. }), "{error}");
}

#[tokio::test]
async fn a_login_goes_to_its_own_host_and_to_no_other() {
    let (own, other) = (index(), index());
    let site = Site::new(&format!("http://me:word@{}/simple", own.address()), |_| ());
    let far = format!("http://{}/files/{NAME}", other.address());
    // Another host on this machine is plain HTTP that nobody has allowed; what the index has is taken in its place.
    assert!(site.server.fetch(&wanted(Some(far))).await.is_ok());
    assert!(other.seen().iter().all(|request| request.header("authorization").is_none()));
    let site = Site::new(&format!("http://me:word@{}/simple", own.address()), |_| ());
    let near = format!("http://{}/files/{NAME}", own.address());
    assert!(site.server.fetch(&wanted(Some(near))).await.is_ok());
    assert!(own.seen().last().is_some_and(|request| request.header("authorization").is_some()));
}

#[tokio::test]
async fn without_a_network_nothing_is_asked_and_what_is_kept_is_had() {
    let stub = index();
    let site = Site::before(&stub);
    let wanted = wanted(Some(format!("http://{}/files/{NAME}", stub.address())));
    site.server.fetch(&wanted).await.expect("the file");
    let asked = stub.seen().len();
    let index = format!("http://{}/simple", stub.address());
    let again = Site::at(site.home.clone(), &index, |settings| settings.offline = true);
    assert!(again.server.fetch(&wanted).await.is_ok());
    let error =
        again.server.fetch(&Wanted { sha256: Digest::of(b"another"), ..wanted }).await.expect_err("no");
    assert!(error.to_string().ends_with("is not in the store, and the network is off"), "{error}");
    assert_eq!(stub.seen().len(), asked);
}
