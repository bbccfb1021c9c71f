//! A real registry (Debian's `docker-registry`) on a free loopback port, and what it takes to fill it: a
//! plain HTTP client, image and layout upload.
//!
//! Images are crafted in [`crate::images`].

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::images::{Image, sha256};
use crate::tls::Certificate;

/// How long the server may take from its start to its first answer.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// A running registry. Dropping it kills the server; the data stays where the caller put it.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    address: String,
    data: PathBuf,
    // The configuration and the log live here.
    _scratch: tempfile::TempDir,
}

impl Registry {
    /// Starts a registry that keeps its blobs below `data`, and waits until it answers.
    ///
    /// Panics with what to install when the server isn't there.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, None)
    }

    /// The same over TLS. What this end sends is plain HTTP, so the registry is for others to read from: its data
    /// must have been filled by another one.
    pub fn start_tls(data: &Path, certificate: &Certificate) -> Self {
        Self::start_with(data, Some(certificate))
    }

    fn start_with(data: &Path, certificate: Option<&Certificate>) -> Self {
        fs_err::create_dir_all(data).expect("the data directory can be created");
        let scratch = tempfile::tempdir().expect("a temporary directory");
        // Between finding a free port and binding it, somebody else may take it: then the server ends.
        for _ in 0..5 {
            let address = free_address();
            let mut child = spawn(data, scratch.path(), &address, certificate);
            // A server that speaks TLS calls plain HTTP a bad request.
            let ready = if certificate.is_some() { 400 } else { 200 };
            if wait_until_ready(&mut child, &address, ready) {
                return Self { child, address, data: data.to_path_buf(), _scratch: scratch };
            }
            kill(&mut child);
        }
        let log = fs_err::read_to_string(scratch.path().join("log")).unwrap_or_default();
        panic!("docker-registry did not start; its log:\n{log}");
    }

    /// `127.0.0.1:port`, as it stands in a reference.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The directory the server keeps its data in.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// `127.0.0.1:port/repository:tag`.
    pub fn reference(&self, repository: &str, tag: &str) -> String {
        format!("{}/{repository}:{tag}", self.address)
    }

    /// Uploads an image under a tag and returns the digest of its manifest (`sha256:…`).
    pub fn push_image(&self, repository: &str, tag: &str, image: &Image) -> String {
        for layer in &image.layers {
            self.push_blob(repository, &layer.blob);
        }
        self.push_blob(repository, &image.config);
        self.push_manifest(repository, tag, &image.manifest_type, &image.manifest)
    }

    /// Uploads an OCI layout directory under a tag and returns the digest the tag points at.
    ///
    /// A layout with one manifest is pushed as that manifest; one with several as an index of them.
    pub fn push_layout(&self, layout: &Path, repository: &str, tag: &str) -> String {
        let index = fs_err::read(layout.join("index.json")).expect("an OCI layout has an index.json");
        let parsed: Value = serde_json::from_slice(&index).expect("index.json is JSON");
        let manifests = parsed["manifests"].as_array().expect("index.json lists manifests");
        if let [only] = manifests.as_slice() {
            return self.push_descriptor(layout, repository, tag, only);
        }
        for manifest in manifests {
            let digest = text(manifest, "digest");
            self.push_descriptor(layout, repository, &digest, manifest);
        }
        let media_type = "application/vnd.oci.image.index.v1+json";
        self.push_manifest(repository, tag, media_type, &index)
    }

    fn push_descriptor(
        &self,
        layout: &Path,
        repository: &str,
        reference: &str,
        descriptor: &Value,
    ) -> String {
        let body = fs_err::read(blob_path(layout, &text(descriptor, "digest"))).expect("a manifest's blob");
        let parsed: Value = serde_json::from_slice(&body).expect("a manifest is JSON");
        for child in parsed["manifests"].as_array().into_iter().flatten() {
            self.push_descriptor(layout, repository, &text(child, "digest"), child);
        }
        let config = parsed.get("config").into_iter();
        for blob in config.chain(parsed["layers"].as_array().into_iter().flatten()) {
            let digest = text(blob, "digest");
            if !self.has_blob(repository, &digest) {
                self.push_blob(repository, &fs_err::read(blob_path(layout, &digest)).expect("a blob"));
            }
        }
        self.push_manifest(repository, reference, &text(descriptor, "mediaType"), &body)
    }

    /// Uploads a blob and returns its digest.
    pub fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        push_blob(&self.address, repository, bytes)
    }

    /// Whether the repository holds a blob.
    pub fn has_blob(&self, repository: &str, digest: &str) -> bool {
        self.request("HEAD", &format!("/v2/{repository}/blobs/{digest}"), &[], &[]).status == 200
    }

    /// Uploads a manifest or an index under a tag or its own digest, and returns its digest.
    pub fn push_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) -> String {
        push_manifest(&self.address, repository, reference, media_type, bytes)
    }

    /// Where the server keeps a blob's bytes, for tests that damage it behind the server's back.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a sha256 digest");
        self.data.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    /// Sends one request over a connection of its own.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        request(&self.address, method, path, headers, body).expect("the registry answers")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        kill(&mut self.child);
    }
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// Header names in lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// The body, complete.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of a header; `name` is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn expect_status(&self, expected: u16, what: &str) {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, expected, "{what}: {body}");
    }
}

/// Uploads a blob to the registry at an address and returns its digest.
pub(crate) fn push_blob(address: &str, repository: &str, bytes: &[u8]) -> String {
    let digest = sha256(bytes);
    let started = post(address, "POST", &format!("/v2/{repository}/blobs/uploads/"), &[], &[]);
    started.expect_status(202, "begin an upload");
    let location = started.header("location").expect("an upload has a location");
    let path = location.split_once(address).map_or(location, |(_, path)| path);
    let joint = if path.contains('?') { '&' } else { '?' };
    let headers = [("Content-Type", "application/octet-stream")];
    let done = post(address, "PUT", &format!("{path}{joint}digest={digest}"), &headers, bytes);
    done.expect_status(201, "finish an upload");
    digest
}

/// Uploads a manifest to the registry at an address under a tag or its own digest, and returns its digest.
pub(crate) fn push_manifest(
    address: &str,
    repository: &str,
    reference: &str,
    media_type: &str,
    bytes: &[u8],
) -> String {
    let path = format!("/v2/{repository}/manifests/{reference}");
    let answer = post(address, "PUT", &path, &[("Content-Type", media_type)], bytes);
    answer.expect_status(201, "push a manifest");
    sha256(bytes)
}

fn post(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    request(address, method, path, headers, body).expect("the registry answers")
}

/// One HTTP/1.1 request to `address` (`host:port`), without keep-alive.
pub fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    let length = body.len();
    let mut head = Vec::new();
    write!(head, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n")?;
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n")?;
    }
    write!(head, "Content-Length: {length}\r\n\r\n")?;
    stream.write_all(&head)?;
    stream.write_all(body)?;
    read_answer(BufReader::new(stream), method == "HEAD")
}

fn read_answer(mut reader: impl BufRead, head_only: bool) -> std::io::Result<Answer> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("not an HTTP status line: {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    if head_only {
        return Ok(answer);
    }
    // A chunked body doesn't occur in what the tests ask of a registry; a close ends everything else.
    match answer.header("content-length").and_then(|length| length.parse().ok()) {
        Some(length) => reader.take(length).read_to_end(&mut answer.body)?,
        None => reader.read_to_end(&mut answer.body)?,
    };
    Ok(answer)
}

fn spawn(data: &Path, scratch: &Path, address: &str, certificate: Option<&Certificate>) -> Child {
    let config = scratch.join("config.yml");
    let tls = certificate.map(|Certificate { chain, key }| {
        format!(", tls: {{certificate: '{}', key: '{}'}}", chain.display(), key.display())
    });
    let text = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: '{}'}}\n  delete: \
         {{enabled: true}}\nhttp: {{addr: '{address}'{}}}\n",
        data.display(),
        tls.unwrap_or_default()
    );
    fs_err::write(&config, text).expect("the configuration can be written");
    let log = fs_err::File::create(scratch.join("log")).expect("the log can be created");
    let log = log.into_parts().0;
    let errors = log.try_clone().expect("a descriptor can be copied");
    Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .unwrap_or_else(|error| {
            panic!("cannot start docker-registry ({error}); `apt-get install docker-registry` brings it")
        })
}

fn wait_until_ready(child: &mut Child, address: &str, status: u16) -> bool {
    let started = Instant::now();
    while started.elapsed() < READY_WITHIN {
        if child.try_wait().expect("the server's state can be read").is_some() {
            return false;
        }
        if request(address, "GET", "/v2/", &[], &[]).is_ok_and(|answer| answer.status == status) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").to_string()
}

fn kill(child: &mut Child) {
    // Both fail only when the server is gone already, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}

fn blob_path(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is missing in {value}")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::{Layer, MANIFEST_TYPE, Tar};

    #[test]
    fn a_pushed_image_can_be_fetched_and_the_server_dies_with_its_owner() {
        let data = tempfile::tempdir().expect("a temporary directory");
        let registry = Registry::start(data.path());
        let image = Image::new("amd64", vec![Layer::gzip(&Tar::new().file("a", 0o644, b"a").finish())]);
        let digest = registry.push_image("lambda/python", "3.11", &image);
        let answer =
            registry.request("GET", "/v2/lambda/python/manifests/3.11", &[("Accept", MANIFEST_TYPE)], &[]);
        assert_eq!((answer.status, sha256(&answer.body)), (200, digest));
        assert!(registry.blob_file(&image.layers[0].digest()).exists());
        let address = registry.address().to_owned();
        drop(registry);
        assert!(TcpStream::connect(address).is_err());
    }
}
