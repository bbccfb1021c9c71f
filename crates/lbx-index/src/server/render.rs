//! Pages as pip is given them: JSON where it reads that, HTML else, with links that lead back here.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::session::is_wheel;
use crate::Hashes;
use crate::lookup::{Listed, Project};

/// The type of a page in JSON.
pub(super) const JSON: &str = "application/vnd.pypi.simple.v1+json";
/// The type of a page in HTML, as it was before there was another; all pips read it.
pub(super) const HTML: &str = "text/html; charset=utf-8";
/// What stands in a path as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Whether a client prefers JSON, by its `Accept`.
pub(super) fn wants_json(accept: &str) -> bool {
    let quality = |wanted: &[&str]| {
        let ranges = accept.split(',').map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
            (media, quality)
        });
        let found = ranges.filter(|(media, _)| wanted.contains(&media.as_str()));
        found.map(|(_, quality)| quality).fold(0.0, f32::max)
    };
    let json = quality(&[JSON, "application/vnd.pypi.simple.latest+json"]);
    let html = quality(&["text/html", "application/vnd.pypi.simple.v1+html", "*/*"]);
    json > 0.0 && json >= html
}

/// The path of a file.
pub(super) fn path(prefix: &str, kind: &str, listed: &Listed) -> String {
    format!("{prefix}/{kind}/{}/{}", listed.id, utf8_percent_encode(&listed.want.name, PLAIN))
}

/// A page. Where source distributions are exchanged, what is handed out has other hashes than they have.
pub(super) fn json(prefix: &str, name: &str, project: &Project, exchanging: bool) -> Vec<u8> {
    // One file after the other: as values, all together take many times the room of their text.
    let mut text =
        format!("{{\"meta\":{{\"api-version\":\"1.0\"}},\"name\":{},\"files\":[", Value::from(name));
    for (number, listed) in project.files.iter().enumerate() {
        text.push_str(if number == 0 { "" } else { "," });
        text.push_str(&json_file(prefix, listed, exchanging).to_string());
    }
    text.push_str("]}");
    text.into_bytes()
}

fn is_other(listed: &Listed, exchanging: bool) -> bool {
    exchanging && !is_wheel(&listed.want.name)
}

fn json_file(prefix: &str, listed: &Listed, exchanging: bool) -> Value {
    let mut file = Map::new();
    let mut set = |key: &str, value: Value| drop(file.insert(key.to_owned(), value));
    set("filename", listed.want.name.clone().into());
    set("url", path(prefix, "files", listed).into());
    let is_other = is_other(listed, exchanging);
    set("hashes", if is_other { json!({}) } else { json_hashes(&listed.want.hashes) });
    if let Some(versions) = &listed.requires_python {
        set("requires-python", versions.clone().into());
    }
    match listed.yanked.as_deref() {
        None => {}
        Some("") => set("yanked", true.into()),
        Some(reason) => set("yanked", reason.into()),
    }
    if let Some(hashes) = &listed.metadata {
        let said = if hashes.iter().next().is_none() { Value::Bool(true) } else { json_hashes(hashes) };
        set("core-metadata", said.clone());
        set("dist-info-metadata", said);
    }
    if let Some(size) = listed.want.size.filter(|_| !is_other) {
        set("size", size.into());
    }
    if let Some(time) = &listed.upload_time {
        set("upload-time", time.clone().into());
    }
    Value::Object(file)
}

fn json_hashes(hashes: &Hashes) -> Value {
    hashes.iter().map(|(algorithm, digits)| (algorithm.to_owned(), Value::from(digits))).collect()
}

pub(super) fn html(prefix: &str, name: &str, project: &Project, exchanging: bool) -> Vec<u8> {
    let mut text = format!(
        "<!DOCTYPE html>\n<html>\n<head><meta name=\"pypi:repository-version\" content=\"1.0\">\
         <title>Links for {name}</title></head>\n<body>\n"
    );
    for listed in &project.files {
        html_file(&mut text, prefix, listed, exchanging);
    }
    text.push_str("</body>\n</html>\n");
    text.into_bytes()
}

fn html_file(text: &mut String, prefix: &str, listed: &Listed, exchanging: bool) {
    let mut attribute = |name: &str, value: &str| {
        for part in [" ", name, "=\"", &escape(value), "\""] {
            text.push_str(part);
        }
    };
    let hash = listed.want.hashes.best().filter(|_| !is_other(listed, exchanging));
    let fragment = hash.map(|hash| format!("#{hash}")).unwrap_or_default();
    attribute("href", &format!("{}{fragment}", path(prefix, "files", listed)));
    if let Some(versions) = &listed.requires_python {
        attribute("data-requires-python", versions);
    }
    if let Some(reason) = &listed.yanked {
        attribute("data-yanked", reason);
    }
    if let Some(hashes) = &listed.metadata {
        let said = hashes.best().unwrap_or_else(|| "true".to_owned());
        attribute("data-core-metadata", &said);
        attribute("data-dist-info-metadata", &said);
    }
    let start = text.rfind('\n').map_or(0, |found| found + 1);
    text.insert_str(start, "<a");
    for part in [">", &escape(&listed.want.name), "</a><br>\n"] {
        text.push_str(part);
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use url::Url;

    use super::*;
    use crate::upstream::files::{Place, Want};
    use crate::{Address, Page};

    fn project(name: &str, words: &str) -> Project {
        let address = Address::parse("a file", "https://files.test/x?secret=quiet").expect("an address");
        let hashes = Hashes::from_pair(&format!("sha256={}", "ab".repeat(32)));
        let place = Place::Web { address, encrypted: true };
        let (name, size, metadata) = (name.to_owned(), Some(7), Some(hashes.clone()));
        let listed = Listed {
            id: "id".to_owned(),
            project: None,
            want: Want { name, place, index: None, hashes, size, limit: 9 },
            requires_python: Some(words.to_owned()),
            yanked: Some(words.to_owned()),
            metadata,
            upload_time: Some("2024-01-01T00:00:00Z".to_owned()),
            index: None,
        };
        Project { files: vec![Arc::new(listed)], warnings: Vec::new(), exists: true }
    }

    fn read(content_type: &str, bytes: &[u8]) -> Page {
        let base = Url::parse("http://127.0.0.1:1/SECRET/simple/six/").expect("a URL");
        Page::read(content_type, bytes, &base).expect("a page")
    }

    #[test]
    fn a_client_gets_json_when_it_prefers_that() {
        let pip = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01";
        assert!(wants_json(pip) && wants_json("text/html;q=0.5, application/vnd.pypi.simple.v1+json;q=0.9"));
        for html in ["", "text/html", "*/*", "text/html, application/vnd.pypi.simple.v1+json;q=0.5", "q=1;,;"]
        {
            assert!(!wants_json(html), "{html}");
        }
    }

    proptest! {
        #[test]
        fn both_kinds_of_page_say_the_same_whatever_is_in_them(
            stem in "[a-z0-9+!._&<>\"' é-]{1,20}", words in "[ -~é]{1,30}"
        ) {
            let project = project(&format!("a{stem}.zip"), &words);
            let json = read(JSON, &json("/SECRET", "six", &project, false));
            let html = read(HTML, &html("/SECRET", "six", &project, false));
            prop_assert_eq!(json.files.len(), 1);
            for file in json.files.iter().chain(&html.files) {
                let listed = &project.files[0];
                prop_assert_eq!(&file.name, &listed.want.name);
                prop_assert_eq!(file.address.file_name(), Some(listed.want.name.clone()));
                prop_assert!(file.address.url().path().starts_with("/SECRET/files/id/"));
                prop_assert_eq!(&file.hashes, &listed.want.hashes);
                prop_assert_eq!(&file.metadata, &listed.metadata);
                prop_assert_eq!(&file.yanked, &listed.yanked);
                prop_assert_eq!(&file.requires_python, &listed.requires_python);
                prop_assert!(!file.address.url().as_str().contains("quiet"));
            }
        }
    }
}
