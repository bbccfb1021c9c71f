//! An index's page of a project: what files there are, and what is said of them.
//!
//! A page comes as JSON (PEP 691) or HTML (PEP 503). Both say the same in different words: hashes, the Python that is
//! required, whether a file was yanked (PEP 592), whether its metadata can be had alone (PEP 658, 714), its size
//! (PEP 700), and what state the project is in (PEP 792). Whoever wrote a page is a stranger: what cannot be used of
//! it is left out, and what it is not allowed to say is an error.

mod html;
mod json;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::address::Address;
use crate::hashes::Hashes;
use crate::name::is_distribution;
use crate::{Error, SafeUrl};

/// What to ask for: JSON first, HTML else.
pub(crate) const ACCEPT: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";
/// The version of the interface that is spoken here.
const MAJOR: &str = "1";
/// The longest of a stranger's words that is kept, in characters.
const WORDS: usize = 1000;

/// A project's files in one index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// In the index's order.
    pub files: Vec<File>,
    /// What state the project is in.
    pub status: Status,
    /// Why, in the index's words.
    pub reason: Option<String>,
}

/// A file of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its name: of a distribution, and safe as a file's.
    pub name: String,
    /// Where it is.
    pub address: Address,
    /// What is promised of its bytes.
    #[serde(default)]
    pub hashes: Hashes,
    /// Which versions of Python it is for.
    #[serde(default)]
    pub requires_python: Option<String>,
    /// Whether it should not be used any more, and why; the reason may be empty.
    #[serde(default)]
    pub yanked: Option<String>,
    /// Whether its metadata can be had alone, and what is promised of that.
    #[serde(default)]
    pub metadata: Option<Hashes>,
    /// How many bytes it has.
    #[serde(default)]
    pub size: Option<u64>,
    /// When it was uploaded.
    #[serde(default)]
    pub upload_time: Option<String>,
}

/// What state a project is in (PEP 792).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All is well.
    #[default]
    Active,
    /// Nothing new is to come.
    Archived,
    /// Found to be harmful: nothing of it may be installed.
    Quarantined,
    /// Something else should be used.
    Deprecated,
}

impl Status {
    fn parse(text: &str) -> Self {
        match text {
            "archived" => Self::Archived,
            "quarantined" => Self::Quarantined,
            "deprecated" => Self::Deprecated,
            // What else there will be says nothing here.
            _ => Self::Active,
        }
    }
}

impl Page {
    /// Reads a page of this type, which is at `base`.
    pub fn read(content_type: &str, bytes: &[u8], base: &Url) -> Result<Self, Error> {
        let shown = SafeUrl::of(base);
        let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let (version, form) = match media.strip_prefix("application/vnd.pypi.simple.v") {
            Some(rest) => rest.split_once('+').unwrap_or((rest, "")),
            None => (MAJOR, media.rsplit('/').next().unwrap_or_default()),
        };
        check_version(version, &shown)?;
        let mut page = match form {
            "json" => json::read(bytes, base, &shown)?,
            "html" => html::read(&String::from_utf8_lossy(bytes), base, &shown)?,
            _ => {
                let problem = format!("expected JSON or HTML, found the type `{}`", words(content_type));
                return Err(Error::Malformed { what: shown, problem });
            }
        };
        if page.status == Status::Quarantined {
            page.files.clear();
        }
        Ok(page)
    }
}

/// Refuses another version than the one that is spoken here (PEP 629).
fn check_version(version: &str, page: &SafeUrl) -> Result<(), Error> {
    let major = version.split('.').next().unwrap_or_default().trim();
    if major == MAJOR {
        return Ok(());
    }
    Err(Error::Version { what: page.clone(), found: words(version) })
}

/// A file, if it is a distribution's.
fn file(name: String, address: Address) -> Option<File> {
    if !is_distribution(&name) {
        return None;
    }
    let (hashes, requires_python, yanked) = (Hashes::default(), None, None);
    Some(File {
        name,
        address,
        hashes,
        requires_python,
        yanked,
        metadata: None,
        size: None,
        upload_time: None,
    })
}

/// A stranger's words, in one line that is safe to print.
pub(crate) fn words(text: &str) -> String {
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().take(WORDS).map(|c| if odd(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A page at `https://index.test/simple/six/`.
    pub(crate) fn read(content_type: &str, text: &str) -> Result<Page, Error> {
        let base = Url::parse("https://index.test/simple/six/").expect("a URL");
        Page::read(content_type, text.as_bytes(), &base)
    }

    #[test]
    fn a_page_is_read_by_its_type_and_another_version_is_refused() {
        let message = |content_type: &str| read(content_type, "{}").expect_err(content_type).to_string();
        assert_eq!(
            message("application/vnd.pypi.simple.v2+json"),
            "https://index.test/simple/six/ speaks version 2 of the index's interface, expected 1"
        );
        assert_eq!(
            message("application/pdf"),
            "https://index.test/simple/six/ is malformed: expected JSON or HTML, found the type `application/pdf`"
        );
        for html in ["text/html", "text/html; charset=utf-8", "application/vnd.pypi.simple.v1+html"] {
            assert_eq!(read(html, "").expect(html), Page::default());
        }
        assert!(read("application/json", "{\"files\": []}").is_ok(), "what proxies of indexes say");
    }

    #[test]
    fn a_strangers_words_are_one_safe_line() {
        assert_eq!(words("a\u{1b}[2J\n\u{202e}b"), "a [2J  b");
        assert_eq!(words(&"x".repeat(5000)).len(), WORDS);
    }
}
