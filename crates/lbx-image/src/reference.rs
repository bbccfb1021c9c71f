//! Image references and digests as values: nothing of what the user or a registry wrote is used as a path or
//! a URL before it passed here.
//!
//! Which registry answers, and how, is left to [`crate::registry`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// A SHA-256 digest: `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Checks the form `^sha256:[0-9a-f]{64}$`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        let valid = hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if valid { Ok(Self(text.to_owned())) } else { Err(Error::Digest { given: text.to_owned() }) }
    }

    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self::from_hash(&sha2::Sha256::digest(bytes))
    }

    pub(crate) fn from_hash(hash: &[u8]) -> Self {
        Self(format!("sha256:{}", hex::encode(hash)))
    }

    /// The 64 digits without the algorithm: a safe file name.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The whole digest.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// A fully qualified image reference: `registry/repository[:tag][@digest]`.
///
/// There are no short names: `python:3.12` could mean an image of any registry, so it is an error that lists
/// what may have been meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference. Without a tag and a digest, the tag is `latest`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = |problem| Error::Reference { given: text.to_owned(), problem };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(Digest::parse(digest)?)),
            None => (text, None),
        };
        let slash = name.find('/').filter(|end| is_registry(&name[..*end]));
        let slash = slash.ok_or_else(|| short(text, name))?;
        let (registry, rest) = (&name[..slash], &name[slash + 1..]);
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None if digest.is_none() => (rest, Some("latest".to_owned())),
            None => (rest, None),
        };
        if !valid_registry(registry) {
            return Err(bad("the registry is not a host name or address with an optional port"));
        }
        if repository.len() > 255 || !repository.split('/').all(is_component) {
            return Err(bad(
                "the repository has lower-case letters, digits, `.`, `_`, `-` between slashes only",
            ));
        }
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(bad(
                "a tag has up to 128 letters, digits, `.`, `_`, `-`, and starts with none of `.-`",
            ));
        }
        Ok(Self { registry: registry.to_owned(), repository: repository.to_owned(), tag, digest })
    }

    /// The registry's host and port as written.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one was given or implied.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The pinned digest. It decides; a tag beside it is for the reader.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same repository, pinned.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// Whether the registry is on this machine: 127.0.0.0/8, `[::1]`, `localhost`. Such a registry is spoken
    /// to in plain HTTP, unless it turns out to want TLS, and never through a proxy.
    pub fn is_loopback(&self) -> bool {
        let host = host(&self.registry);
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

fn short(given: &str, name: &str) -> Error {
    let mut candidates = Vec::new();
    if !given.is_empty() && name.split(['/', ':']).all(|part| !part.is_empty()) {
        candidates.push(format!("public.ecr.aws/lambda/{}", given.trim_start_matches("lambda/")));
        let docker = if name.contains('/') { given.to_owned() } else { format!("library/{given}") };
        candidates.push(format!("docker.io/{docker}"));
        candidates.retain(|candidate| Reference::parse(candidate).is_ok());
    }
    Error::ShortReference { given: given.to_owned(), candidates }
}

/// The rule Docker uses: the part before the first slash is a registry when it can't be a user's name.
fn is_registry(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':'])
}

fn host(registry: &str) -> &str {
    match registry.rsplit_once(':') {
        // The colon of `[::1]` is not the one before a port.
        Some((host, port)) if !port.contains(']') => host,
        _ => registry,
    }
}

fn valid_registry(registry: &str) -> bool {
    let host = host(registry);
    let port = registry[host.len()..].strip_prefix(':');
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    port_fits
        && match address {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.split('.').all(is_label),
        }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_component(part: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    edge(part.bytes().next())
        && edge(part.bytes().next_back())
        && part.bytes().all(|byte| edge(Some(byte)) || matches!(byte, b'.' | b'_' | b'-'))
        && !part.contains("..")
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn qualified_references_parse_and_print_as_written() {
        let pinned = format!("public.ecr.aws/lambda/python@sha256:{HEX}");
        let both = format!("localhost/a:1@sha256:{HEX}");
        for text in [
            "public.ecr.aws/lambda/python:3.11",
            "127.0.0.1:5000/lambda/python:3.11",
            "[::1]:5000/a/b-c__d.e:T_1.2-x",
            &pinned,
            &both,
        ] {
            assert_eq!(Reference::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(Reference::parse("ghcr.io/a/b").expect("a reference").tag(), Some("latest"));
    }

    #[test]
    fn a_short_name_is_an_error_that_lists_candidates() {
        let Err(Error::ShortReference { candidates, .. }) = Reference::parse("python:3.12") else {
            panic!("a short name must not parse")
        };
        assert_eq!(candidates, ["public.ecr.aws/lambda/python:3.12", "docker.io/library/python:3.12"]);
        assert!(matches!(Reference::parse("lambda/python:3.12"), Err(Error::ShortReference { .. })));
    }

    #[test]
    fn malformed_references_are_refused() {
        for text in [
            "",
            "/",
            "a.b/",
            "a.b/C:1",
            "a.b/../c:1",
            "a.b/c:",
            "a.b/c:.x",
            "a.b/c:1/2",
            "a.b:99999/c",
            "a.b:0/c",
            "a..b/c",
            "-a.b/c",
            "a.b/c\n:1",
            "a.b/c?x:1",
            "user@a.b/c",
            "https://a.b/c:1",
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?} parsed");
        }
    }

    #[test]
    fn only_a_lower_case_sha256_of_64_digits_is_a_digest() {
        assert_eq!(Digest::parse(&format!("sha256:{HEX}")).expect("a digest").hex(), HEX);
        let upper = format!("sha256:{}", HEX.to_uppercase());
        let long = format!("sha256:{HEX}0");
        let other = format!("sha512:{HEX}");
        for text in ["", "sha256:", "sha256:../../x", HEX, &upper, &long, &other] {
            assert!(Digest::parse(text).is_err(), "{text:?} parsed");
            assert!(Reference::parse(&format!("a.b/c@{text}")).is_err());
        }
    }

    #[test]
    fn loopback_is_an_address_or_localhost_and_nothing_that_looks_like_it() {
        for registry in ["127.0.0.1:5000", "127.9.9.9", "localhost", "localhost:80", "[::1]:5000", "[::1]"] {
            assert!(
                Reference::parse(&format!("{registry}/a:1")).expect(registry).is_loopback(),
                "{registry}"
            );
        }
        for registry in ["127.0.0.1.example.org", "localhost.example.org", "10.0.0.1:5000", "[::2]:1"] {
            assert!(
                !Reference::parse(&format!("{registry}/a:1")).expect(registry).is_loopback(),
                "{registry}"
            );
        }
    }
}
