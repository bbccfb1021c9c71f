//! Pages in JSON (PEP 691).

use serde::Deserialize;
use url::Url;

use super::{File, Page, Status, check_version, file, words};
use crate::address::Address;
use crate::hashes::Hashes;
use crate::{Error, SafeUrl};

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    meta: Meta,
    #[serde(default, rename = "project-status")]
    project_status: Option<ProjectStatus>,
    files: Vec<Entry>,
}

#[derive(Deserialize, Default)]
struct Meta {
    #[serde(default, rename = "api-version")]
    api_version: Option<String>,
    /// Where an earlier draft had the state of a project.
    #[serde(default, rename = "project-status")]
    project_status: Option<ProjectStatus>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ProjectStatus {
    Whole {
        #[serde(default)]
        status: Option<String>,
        #[serde(default)]
        reason: Option<String>,
    },
    Word(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    #[serde(default)]
    filename: Option<String>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    hashes: Option<Hashes>,
    #[serde(default)]
    requires_python: Option<String>,
    #[serde(default)]
    yanked: Option<Said>,
    #[serde(default)]
    core_metadata: Option<Metadata>,
    #[serde(default)]
    dist_info_metadata: Option<Metadata>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    upload_time: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Whether(bool),
    Why(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Metadata {
    Whether(bool),
    Hashes(Hashes),
}

pub(super) fn read(bytes: &[u8], base: &Url, shown: &SafeUrl) -> Result<Page, Error> {
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|error| Error::Malformed { what: shown.clone(), problem: words(&error.to_string()) })?;
    if let Some(version) = &document.meta.api_version {
        check_version(version, shown)?;
    }
    let (status, reason) = match document.project_status.or(document.meta.project_status) {
        Some(ProjectStatus::Whole { status, reason }) => (status, reason),
        Some(ProjectStatus::Word(status)) => (Some(status), None),
        None => (None, None),
    };
    Ok(Page {
        files: document.files.into_iter().filter_map(|entry| entry.into_file(base)).collect(),
        status: status.map(|status| Status::parse(&status)).unwrap_or_default(),
        reason: reason.map(|reason| words(&reason)),
    })
}

impl Entry {
    fn into_file(self, base: &Url) -> Option<File> {
        let address = Address::link(base, &self.url?)?;
        let metadata = match self.core_metadata.or(self.dist_info_metadata) {
            None | Some(Metadata::Whether(false)) => None,
            Some(Metadata::Whether(true)) => Some(Hashes::default()),
            Some(Metadata::Hashes(hashes)) => Some(hashes),
        };
        let yanked = match self.yanked {
            None | Some(Said::Whether(false)) => None,
            Some(Said::Whether(true)) => Some(String::new()),
            Some(Said::Why(reason)) => Some(words(&reason)),
        };
        Some(File {
            hashes: self.hashes.unwrap_or_default(),
            requires_python: self.requires_python.map(|versions| words(&versions)),
            yanked,
            metadata,
            size: self.size,
            upload_time: self.upload_time.map(|time| words(&time)),
            ..file(self.filename?, address)?
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::read;
    use super::*;

    const JSON: &str = "application/vnd.pypi.simple.v1+json";

    #[test]
    fn all_that_a_page_says_is_read() {
        let digest = "ab".repeat(32);
        let text = format!(
            r#"{{"meta": {{"api-version": "1.4", "_last-serial": 1}}, "name": "six", "versions": ["1.0"], "files": [
              {{"filename": "six-1.0-py3-none-any.whl", "url": "../../files/six-1.0-py3-none-any.whl?sig=x",
                "hashes": {{"sha256": "{digest}", "blake3": "00"}}, "requires-python": ">=3.6", "size": 12,
                "upload-time": "2024-01-01T00:00:00Z", "yanked": "broken", "dist-info-metadata": true,
                "core-metadata": {{"sha256": "{digest}"}}, "provenance": null}},
              {{"filename": "six-1.1.tar.gz", "url": "https://files.test/six-1.1.tar.gz", "hashes": {{}},
                "yanked": false, "requires-python": null, "core-metadata": false}},
              {{"filename": "six-1.1.tar.gz.asc", "url": "https://files.test/x", "hashes": {{}}}},
              {{"filename": "../six-1.2.tar.gz", "url": "https://files.test/x", "hashes": {{}}}},
              {{"filename": "six-1.3.tar.gz", "url": "file:///etc/passwd", "hashes": {{}}}}
            ]}}"#
        );
        let page = read(JSON, &text).expect("a page");
        assert_eq!(page.files.len(), 2, "what is no distribution, or not of the web, is left out");
        let [wheel, source] = [&page.files[0], &page.files[1]];
        assert_eq!(wheel.address.url().as_str(), "https://index.test/files/six-1.0-py3-none-any.whl?sig=x");
        assert_eq!(wheel.hashes.sha256().expect("a digest").to_string(), digest);
        assert_eq!(wheel.hashes.iter().count(), 1);
        assert_eq!(wheel.metadata.as_ref().and_then(Hashes::sha256), wheel.hashes.sha256());
        assert_eq!((wheel.size, wheel.yanked.as_deref()), (Some(12), Some("broken")));
        assert_eq!(wheel.requires_python.as_deref(), Some(">=3.6"));
        assert_eq!((&source.yanked, &source.metadata, source.size), (&None, &None, None));
    }

    #[test]
    fn a_quarantined_project_offers_nothing() {
        let files = r#""files": [{"filename": "six-1.0.tar.gz", "url": "/six-1.0.tar.gz", "hashes": {}}]"#;
        let status = r#""project-status": {"status": "quarantined", "reason": "it\nbites"}"#;
        let page = read(JSON, &format!("{{{status}, {files}}}")).expect("a page");
        assert_eq!((page.files.len(), page.status), (0, Status::Quarantined));
        assert_eq!(page.reason.as_deref(), Some("it bites"));
        let archived = format!("{{\"project-status\": {{\"status\": \"archived\"}}, {files}}}");
        let page = read(JSON, &archived).expect("a page");
        assert_eq!((page.files.len(), page.status), (1, Status::Archived));
    }

    #[test]
    fn another_version_and_what_is_no_page_are_errors() {
        let message = |text: &str| read(JSON, text).expect_err(text).to_string();
        assert!(
            message(r#"{"meta": {"api-version": "2.0"}, "files": []}"#).contains("speaks version 2.0"),
            "a version"
        );
        assert!(message("<html>").contains("is malformed: expected value"), "HTML");
        assert!(message("{}").contains("missing field `files`"), "no files");
        assert!(message(r#"{"files": [{"size": -1}]}"#).contains("is malformed"), "a size");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in r#"[\{\}\[\]":,a-z0-9 \\]{0,200}"#) {
            let _ = read(JSON, &text);
        }

        #[test]
        fn whatever_stands_in_a_field_nothing_unsafe_comes_out(name in ".{0,60}", url in ".{0,60}") {
            let text = serde_json::json!({"files": [{"filename": name, "url": url, "hashes": {}}]}).to_string();
            for file in read(JSON, &text).expect("a page").files {
                prop_assert!(!file.name.contains(['/', '\\', '\0', '\n']));
                prop_assert!(matches!(file.address.url().scheme(), "http" | "https"));
            }
        }
    }
}
