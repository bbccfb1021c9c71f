//! What an index promises of a file's bytes, and whether they keep it.

use std::fmt;
use std::str::FromStr;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};

/// The algorithms that are computed, the one that is preferred first, with the digits that they print.
const COMPUTED: [(&str, usize); 4] = [("sha256", 64), ("sha512", 128), ("sha384", 96), ("sha224", 56)];
/// Those that pip may be told of, and that prove nothing.
const PASSED_ON: [(&str, usize); 2] = [("sha1", 40), ("md5", 32)];

/// A SHA-256, printed and parsed as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest of all that can be read.
    pub(crate) fn of_reader(mut reader: impl std::io::Read) -> std::io::Result<Self> {
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; 128 << 10]);
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(Self(hash.finalize().into())),
                count => hash.update(&buffer[..count]),
            }
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The hashes of one file, by their algorithm; only well-formed ones of algorithms that pip knows.
///
/// A list, for pages have tens of thousands of these with an entry each, and a map of one entry takes half a kilobyte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hashes(Vec<(&'static str, String)>);

impl Hashes {
    /// Those of the pairs that can be used.
    pub(crate) fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut all = Self::default();
        for (algorithm, digits) in pairs {
            all.add(&algorithm, &digits);
        }
        all
    }

    fn add(&mut self, algorithm: &str, digits: &str) {
        let mut known = COMPUTED.iter().chain(&PASSED_ON);
        let Some((name, length)) = known.find(|(name, _)| name.eq_ignore_ascii_case(algorithm)) else {
            return;
        };
        if digits.len() != *length || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return;
        }
        let digits = digits.to_ascii_lowercase();
        match self.0.binary_search_by_key(name, |(known, _)| *known) {
            Ok(at) => self.0[at].1 = digits,
            Err(at) => self.0.insert(at, (*name, digits)),
        }
    }

    fn get(&self, name: &str) -> Option<&String> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, digits)| digits)
    }

    /// From `sha256=…`, as it stands in an address's fragment or in an attribute.
    pub(crate) fn from_pair(text: &str) -> Self {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        Self::new(pairs.map(|(algorithm, digits)| (algorithm.to_owned(), digits.to_owned())))
    }

    /// The SHA-256, where there is one: the name under which the store has the file.
    pub fn sha256(&self) -> Option<Digest> {
        self.get("sha256")?.parse().ok()
    }

    /// All of them, by algorithm.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(algorithm, digits)| (*algorithm, digits.as_str()))
    }

    /// The best one for a place that has room for one, as `sha256=…`.
    pub(crate) fn best(&self) -> Option<String> {
        let names = COMPUTED.iter().chain(&PASSED_ON).map(|(name, _)| *name);
        names.into_iter().find_map(|name| Some(format!("{name}={}", self.get(name)?)))
    }

    /// Whether anything is promised that can be verified.
    pub(crate) fn can_be_verified(&self) -> bool {
        COMPUTED.iter().any(|(name, _)| self.get(name).is_some())
    }
}

impl Serialize for Hashes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Hashes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Hashes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("hashes by algorithm")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Hashes, A::Error> {
                let mut all = Hashes::default();
                while let Some((algorithm, digits)) = map.next_entry::<String, String>()? {
                    all.add(&algorithm, &digits);
                }
                Ok(all)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Computes what a file turned out to be, as its bytes come.
pub(crate) struct Verifier {
    promised: Hashes,
    sha256: Sha256,
    others: Vec<(&'static str, Other)>,
}

enum Other {
    Sha224(Sha224),
    Sha384(Sha384),
    Sha512(Sha512),
}

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) algorithm: &'static str,
    pub(crate) expected: String,
    pub(crate) found: String,
}

impl Verifier {
    pub(crate) fn new(promised: &Hashes) -> Self {
        let others = COMPUTED.iter().filter(|(name, _)| promised.get(name).is_some());
        let others = others.filter_map(|(name, _)| {
            Some((
                *name,
                match *name {
                    "sha224" => Other::Sha224(Sha224::new()),
                    "sha384" => Other::Sha384(Sha384::new()),
                    "sha512" => Other::Sha512(Sha512::new()),
                    _ => return None,
                },
            ))
        });
        Self { promised: promised.clone(), sha256: Sha256::new(), others: others.collect() }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        for (_, other) in &mut self.others {
            match other {
                Other::Sha224(hasher) => hasher.update(bytes),
                Other::Sha384(hasher) => hasher.update(bytes),
                Other::Sha512(hasher) => hasher.update(bytes),
            }
        }
    }

    /// The SHA-256, if every promise that can be verified was kept.
    pub(crate) fn finish(self) -> Result<Digest, Mismatch> {
        let digest = Digest(self.sha256.finalize().into());
        let mut found = vec![("sha256", digest.to_string())];
        found.extend(self.others.into_iter().map(|(name, other)| {
            (
                name,
                match other {
                    Other::Sha224(hasher) => hex::encode(hasher.finalize()),
                    Other::Sha384(hasher) => hex::encode(hasher.finalize()),
                    Other::Sha512(hasher) => hex::encode(hasher.finalize()),
                },
            )
        }));
        for (algorithm, found) in found {
            match self.promised.get(algorithm) {
                Some(expected) if *expected != found => {
                    return Err(Mismatch { algorithm, expected: expected.clone(), found });
                }
                _ => {}
            }
        }
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_hashes_of_known_algorithms_count() {
        let hashes = |text: &str| Hashes::from_pair(text);
        let digest = Digest::of(b"x").to_string();
        assert_eq!(hashes(&format!("sha256={digest}")).sha256(), Some(Digest::of(b"x")));
        assert_eq!(hashes(&format!("SHA256={}", digest.to_uppercase())).sha256(), Some(Digest::of(b"x")));
        for bad in ["", "sha256=", "sha256=zz", "crc32=00000000", "egg=a", &format!("sha512={digest}")] {
            assert_eq!(hashes(bad), Hashes::default(), "{bad}");
        }
        let weak = hashes(&format!("md5={}", "0".repeat(32)));
        assert!(!weak.can_be_verified() && weak.best().is_some());
    }

    #[test]
    fn every_promise_is_verified() {
        let verify = |promised: &Hashes| {
            let mut verifier = Verifier::new(promised);
            verifier.update(b"by");
            verifier.update(b"tes");
            verifier.finish()
        };
        let digest = Digest::of(b"bytes");
        assert_eq!(verify(&Hashes::default()), Ok(digest));
        for (algorithm, good) in [
            ("sha224", hex::encode(Sha224::digest(b"bytes"))),
            ("sha256", digest.to_string()),
            ("sha384", hex::encode(Sha384::digest(b"bytes"))),
            ("sha512", hex::encode(Sha512::digest(b"bytes"))),
        ] {
            let promised = |digits: String| Hashes::new([(algorithm.to_owned(), digits)]);
            assert_eq!(verify(&promised(good.clone())), Ok(digest), "{algorithm}");
            let expected = "0".repeat(good.len());
            let mismatch = Mismatch { algorithm, expected: expected.clone(), found: good };
            assert_eq!(verify(&promised(expected)), Err(mismatch));
        }
    }
}
