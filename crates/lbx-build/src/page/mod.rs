//! The report as a page for people: one file that asks nobody for anything, made from what a build has at hand.
//!
//! Names in it are strangers'. They go in as JSON that no parser of HTML can see an end or a comment in, and the script shows
//! them as text. A policy in the page forbids it everything but its own style and script, which it knows by their hashes.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lbx_plan::prune::Rule;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::archive::Built;
use crate::check::Finding;
use crate::engine::Destination;
use crate::error::Error;
use crate::record;
use crate::report::Sum;

const HTML: &str = include_str!("page.html");
/// By what a page is known to be one.
const TITLE: &[u8] = b"<title>What lbx has built</title>";
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What there is to show of one build.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Page {
    artifacts: Vec<Artifact>,
}

#[derive(Clone, Debug, Serialize)]
struct Artifact {
    name: String,
    kind: &'static str,
    arch: &'static str,
    /// The zip. Bytes.
    size: u64,
    /// Bytes.
    unpacked_size: u64,
    /// Whose files there are: in words, and whether it is the user.
    owners: Vec<(String, bool)>,
    /// Path, owner, bytes unpacked, bytes in the zip.
    files: Vec<(String, usize, u64, u64)>,
    packages: Vec<Package>,
    /// By rule.
    left_out: Vec<(Rule, Sum)>,
    findings: Vec<Finding>,
    /// What it was before, if it was.
    previous: Option<Previous>,
}

/// A package of an artifact, as reports have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Package {
    name: String,
    version: String,
    kept: Sum,
    packed_size: u64,
}

/// An artifact of the build before, as its report has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Previous {
    name: String,
    size: u64,
    unpacked_size: u64,
    #[serde(rename(deserialize = "wheels"))]
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct ReportFile {
    stable: Stable,
}

#[derive(Deserialize)]
struct Stable {
    artifacts: Vec<Previous>,
}

impl Page {
    /// The page of a build whose zips are not in their places yet, so that the report there is the one before.
    pub(crate) fn new(built: &[Built], arch: &'static str, destination: &Destination) -> Self {
        let mut previous = previous(&destination.report());
        let artifacts = built.iter().map(|built| {
            let at = previous.iter().position(|previous| previous.name == built.report.name);
            artifact(built, arch, at.map(|at| previous.swap_remove(at)))
        });
        Self { artifacts: artifacts.collect() }
    }

    /// Whether a page may be put there: nothing is there, or an older page is.
    pub fn may_replace(path: &Path) -> bool {
        let is_page = |bytes: Vec<u8>| {
            bytes.starts_with(b"<!doctype html>")
                && bytes.windows(TITLE.len()).take(4096).any(|part| part == TITLE)
        };
        fs_err::symlink_metadata(path).is_err() || record::left(path).is_some_and(is_page)
    }

    /// Writes the page of several builds, for one CPU each, in one moment.
    pub fn write(pages: Vec<Self>, path: &Path) -> Result<(), Error> {
        let all = Self { artifacts: pages.into_iter().flat_map(|page| page.artifacts).collect() };
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs_err::create_dir_all(folder)?;
        let mut builder = tempfile::Builder::new();
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(all.to_html().as_bytes())?;
        file.persist(path).map_err(|error| {
            let message = format!("cannot rename to `{}`: {}", path.display(), error.error);
            std::io::Error::new(error.error.kind(), message)
        })?;
        Ok(())
    }

    fn to_html(&self) -> String {
        // Nothing in these types can fail to serialise. The data comes last: what it has is no place to fill.
        let data = serde_json::to_string(self).unwrap_or_default();
        HTML.replace("STYLE-HASH", &source_hash(STYLE))
            .replace("SCRIPT-HASH", &source_hash(SCRIPT))
            .replace("/*STYLE*/", STYLE)
            .replace("/*SCRIPT*/", SCRIPT)
            .replace("/*DATA*/", &escaped(&data))
    }
}

/// By what a policy knows a script or a style.
fn source_hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

/// What the report in a place says of each artifact; nothing when it is of another form, or not there.
fn previous(report: &Path) -> Vec<Previous> {
    let read = || serde_json::from_slice::<ReportFile>(&record::left(report)?).ok();
    read().map(|report| report.stable.artifacts).unwrap_or_default()
}

fn artifact(built: &Built, arch: &'static str, previous: Option<Previous>) -> Artifact {
    let report = &built.report;
    let mut owners: Vec<(String, bool)> = Vec::new();
    let mut files = Vec::with_capacity(report.files);
    for (file, packed_size) in built.files() {
        let is_it = |(name, own): &(String, bool)| name == file.owner && *own == file.own;
        let owner = owners.iter().position(is_it).unwrap_or_else(|| {
            owners.push((file.owner.to_owned(), file.own));
            owners.len() - 1
        });
        files.push((file.path.to_owned(), owner, file.size, packed_size));
    }
    let packages = report.wheels.iter().map(|wheel| Package {
        name: wheel.name.clone(),
        version: wheel.version.clone(),
        kept: wheel.kept,
        packed_size: wheel.packed_size,
    });
    Artifact {
        name: report.name.clone(),
        kind: report.kind.word(),
        arch,
        size: report.size,
        unpacked_size: report.unpacked_size,
        owners,
        files,
        packages: packages.collect(),
        left_out: report.left_out_by_rule.iter().map(|(rule, sum)| (*rule, *sum)).collect(),
        findings: report.findings.clone(),
        previous,
    }
}

/// JSON without a character that means something to a parser of HTML, or ends a line to one of scripts. All of them can be in
/// strings only.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // A string takes everything.
                let _ = write!(text, "\\u{:04x}", u32::from(character));
            }
            character => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_no_script_and_begin_no_comment() {
        let name = "</script><!--<img src=x>&amp;\u{2028}\"/*DATA*/";
        let page = Page {
            artifacts: vec![Artifact {
                name: name.to_owned(),
                kind: "function",
                arch: "x86_64",
                size: 1,
                unpacked_size: 1,
                owners: Vec::new(),
                files: Vec::new(),
                packages: Vec::new(),
                left_out: Vec::new(),
                findings: Vec::new(),
                previous: None,
            }],
        };
        let html = page.to_html();
        let (_, rest) = html.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
        let (data, _) = rest.split_once("</script>").unwrap();
        assert!(!data.contains(['<', '>', '&', '\u{2028}']), "{data}");
        let value: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(value["artifacts"][0]["name"], name);
        assert!(!html.contains("/*STYLE*/") && !html.contains("/*SCRIPT*/") && !html.contains("-HASH"));
        assert!(!html.contains("unsafe-inline"));
    }

    #[test]
    fn it_names_no_other_place() {
        for text in [HTML, STYLE, SCRIPT] {
            for word in ["http:", "https:", "url(", "import ", "fetch(", "innerHTML", "XMLHttpRequest"] {
                assert!(!text.contains(word), "{word}");
            }
        }
    }

    #[test]
    fn a_report_that_is_not_there_or_of_another_form_is_no_report() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        assert_eq!(previous(&path), []);
        fs_err::write(&path, "{\"artifacts\": []}").unwrap();
        assert_eq!(previous(&path), []);
    }
}
