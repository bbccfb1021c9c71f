//! Pages in HTML (PEP 503): as much of HTML as it takes to find links, the base that they are relative to, and what
//! the page says of itself.
//!
//! The tokenizer goes over the text once, and never fails: like a browser, it makes sense of whatever there is. Text
//! in comments, scripts and the like is no tag.

use std::borrow::Cow;

use url::Url;

use super::{File, Page, Status, check_version, file, words};
use crate::address::Address;
use crate::hashes::Hashes;
use crate::{Error, SafeUrl};

/// Elements whose text is no markup.
const RAW: [&str; 6] = ["iframe", "noembed", "script", "style", "textarea", "title"];
/// Named characters that stand in pages of indexes.
const NAMED: [(&str, char); 6] =
    [("amp", '&'), ("apos", '\''), ("gt", '>'), ("lt", '<'), ("nbsp", '\u{a0}'), ("quot", '"')];

pub(super) fn read(text: &str, base: &Url, shown: &SafeUrl) -> Result<Page, Error> {
    let mut page = Page::default();
    let mut base: Cow<'_, Url> = Cow::Borrowed(base);
    let mut based = false;
    for tag in Tags::new(text) {
        match tag.name.as_str() {
            // The first one counts, as in a browser.
            "base" if !based => {
                if let Some(href) = tag.attribute("href") {
                    based = true;
                    if let Some(address) = Address::link(&base, &href) {
                        base = Cow::Owned(address.url().clone());
                    }
                }
            }
            "meta" => read_meta(&tag, &mut page, shown)?,
            "a" => page.files.extend(link(&tag, &base)),
            _ => {}
        }
    }
    Ok(page)
}

fn read_meta(tag: &Tag<'_>, page: &mut Page, shown: &SafeUrl) -> Result<(), Error> {
    let (Some(name), Some(content)) = (tag.attribute("name"), tag.attribute("content")) else {
        return Ok(());
    };
    match &*name {
        "pypi:repository-version" => check_version(&content, shown)?,
        "pypi:project-status" => page.status = Status::parse(&content),
        "pypi:project-status-reason" => page.reason = Some(words(&content)),
        _ => {}
    }
    Ok(())
}

fn link(tag: &Tag<'_>, base: &Url) -> Option<File> {
    let address = Address::link(base, &tag.attribute("href")?)?;
    let hashes = address.url().fragment().map(Hashes::from_pair).unwrap_or_default();
    let metadata = tag.attribute("data-core-metadata").or_else(|| tag.attribute("data-dist-info-metadata"));
    let metadata = metadata.filter(|said| said != "false").map(|said| Hashes::from_pair(&said));
    let found = file(address.file_name()?, address)?;
    Some(File {
        hashes,
        requires_python: tag.attribute("data-requires-python").map(|versions| words(&versions)),
        yanked: tag.attribute("data-yanked").map(|reason| words(&reason)),
        metadata,
        ..found
    })
}

/// A start tag.
struct Tag<'t> {
    /// In lower case.
    name: String,
    /// As they stand in the text.
    attributes: Vec<(&'t str, &'t str)>,
}

impl Tag<'_> {
    /// The first attribute of this name, decoded.
    fn attribute(&self, wanted: &str) -> Option<String> {
        let (_, value) = self.attributes.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
        Some(decode(value))
    }
}

/// The start tags of a text, in order.
struct Tags<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Tags<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Goes behind the next occurrence, or to the end.
    fn skip_past(&mut self, what: &str) {
        self.at =
            self.text[self.at..].find(what).map_or(self.text.len(), |found| self.at + found + what.len());
    }

    /// Goes on while bytes are of a kind. All kinds here are of ASCII, or all that is not some of ASCII, so this ends
    /// between characters.
    fn take_while(&mut self, kind: impl Fn(u8) -> bool) -> &'t str {
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        self.at += rest.iter().position(|byte| !kind(*byte)).unwrap_or(rest.len());
        &self.text[start..self.at]
    }

    /// What stands between here and the end tag of an element is no markup.
    fn skip_raw(&mut self, name: &str) {
        while let Some(found) = self.text[self.at..].find("</") {
            self.at += found + 2;
            let end = self.text.as_bytes().get(self.at..self.at + name.len());
            if end.is_some_and(|end| end.eq_ignore_ascii_case(name.as_bytes())) {
                return;
            }
        }
        self.at = self.text.len();
    }

    fn tag(&mut self) -> Tag<'t> {
        let name = self.take_while(|byte| !is_space(byte) && !matches!(byte, b'/' | b'>'));
        let mut attributes = Vec::new();
        loop {
            self.take_while(|byte| is_space(byte) || byte == b'/');
            match self.byte() {
                None => break,
                Some(b'>') => {
                    self.at += 1;
                    break;
                }
                Some(_) => attributes.push(self.attribute()),
            }
        }
        Tag { name: name.to_ascii_lowercase(), attributes }
    }

    fn attribute(&mut self) -> (&'t str, &'t str) {
        let start = self.at;
        // A name may begin with `=`, and is never empty.
        self.at += self.text[start..].chars().next().map_or(0, char::len_utf8);
        self.take_while(|byte| !is_space(byte) && !matches!(byte, b'/' | b'>' | b'='));
        let name = &self.text[start..self.at];
        let before = self.at;
        self.take_while(is_space);
        if self.byte() != Some(b'=') {
            self.at = before;
            return (name, "");
        }
        self.at += 1;
        self.take_while(is_space);
        let value = match self.byte() {
            Some(quote @ (b'"' | b'\'')) => {
                self.at += 1;
                let value = self.take_while(|byte| byte != quote);
                self.at = (self.at + 1).min(self.text.len());
                value
            }
            _ => self.take_while(|byte| !is_space(byte) && byte != b'>'),
        };
        (name, value)
    }
}

impl<'t> Iterator for Tags<'t> {
    type Item = Tag<'t>;

    fn next(&mut self) -> Option<Tag<'t>> {
        loop {
            self.skip_past("<");
            match self.byte()? {
                b'!' if self.text[self.at..].starts_with("!--") => {
                    // `<!-->` is a whole comment.
                    self.at += 1;
                    self.skip_past("-->");
                }
                b'!' | b'?' | b'/' => self.skip_past(">"),
                byte if byte.is_ascii_alphabetic() => {
                    let tag = self.tag();
                    if RAW.contains(&tag.name.as_str()) {
                        self.skip_raw(&tag.name);
                    }
                    return Some(tag);
                }
                // A sign, not a tag.
                _ => {}
            }
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c')
}

/// Character references in place of which the character is meant. What is none stays as it is.
fn decode(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.find('&') {
        decoded.push_str(&rest[..found]);
        rest = &rest[found + 1..];
        match reference(rest) {
            Some((character, length)) => {
                decoded.push(character);
                rest = &rest[length..];
            }
            None => decoded.push('&'),
        }
    }
    decoded.push_str(rest);
    decoded
}

/// The character that is meant after `&`, and how long its name is.
fn reference(text: &str) -> Option<(char, usize)> {
    if let Some(number) = text.strip_prefix('#') {
        let (radix, digits) = match number.strip_prefix(['x', 'X']) {
            Some(digits) => (16, digits),
            None => (10, number),
        };
        let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
        let code = u32::from_str_radix(digits.get(..end.min(8))?, radix).ok()?;
        let closed = usize::from(digits[end..].starts_with(';'));
        return Some((char::from_u32(code)?, text.len() - digits.len() + end + closed));
    }
    let named =
        NAMED.iter().find(|(name, _)| text.strip_prefix(name).is_some_and(|rest| rest.starts_with(';')))?;
    Some((named.1, named.0.len() + 1))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::super::tests::read;
    use super::*;

    fn names(text: &str) -> Vec<String> {
        read("text/html", text).expect("a page").files.into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn all_that_a_link_says_is_read() {
        let digest = "ab".repeat(32);
        let text = format!(
            "<!DOCTYPE html><html><head><meta name=\"pypi:repository-version\" content=\"1.1\"><title>x</title>\
             </head><body>\n<A  HREF = '../../f/six-1.0-py3-none-any.whl#sha256={digest}'\n \
             data-requires-python=\"&gt;=3.6,&#x21;=3.7\" data-yanked=\"it &quot;bites&quot;\" \
             data-core-metadata=sha256={digest} data-dist-info-metadata=\"true\">six</A>\
             <a href=https://files.test/six-1.0.tar.gz?a=1&amp;b=2 data-yanked>six</a>\
             <a href=\"six-2.0.tar.gz.asc\"></a><a name=top></a><a href=\"file:///etc/six-3.0.zip\"></a>"
        );
        let page = read("text/html", &text).expect("a page");
        let [wheel, source] = &page.files[..] else { panic!("{page:?}") };
        assert_eq!(wheel.address.safe().as_str(), "https://index.test/f/six-1.0-py3-none-any.whl");
        assert_eq!(wheel.hashes.sha256().expect("a digest").to_string(), digest);
        assert_eq!(wheel.requires_python.as_deref(), Some(">=3.6,!=3.7"));
        assert_eq!(wheel.yanked.as_deref(), Some("it \"bites\""));
        assert_eq!(wheel.metadata.as_ref().and_then(Hashes::sha256), wheel.hashes.sha256());
        assert_eq!(source.address.url().as_str(), "https://files.test/six-1.0.tar.gz?a=1&b=2");
        assert_eq!((source.yanked.as_deref(), &source.metadata), (Some(""), &None));
    }

    #[test]
    fn links_are_relative_to_the_first_base() {
        let text =
            "<base href='https://files.test/d/'><base href='https://other.test/'><a href='six-1.0.zip'>";
        let page = read("text/html", text).expect("a page");
        assert_eq!(page.files[0].address.safe().as_str(), "https://files.test/d/six-1.0.zip");
        assert_eq!(
            names("<base href='file:///'><a href='/six-1.0.zip'>"),
            ["six-1.0.zip"],
            "no base of the web"
        );
    }

    #[test]
    fn what_is_in_comments_scripts_and_text_is_no_link() {
        for hidden in [
            "<!-- <a href='a-1.zip'> -->",
            "<script>'<a href=\"a-1.zip\">'</script>",
            "<STYLE><a href='a-1.zip'></sTyLe>",
            "<title><a href='a-1.zip'></title>",
            "<textarea><a href='a-1.zip'>",
            "<!-- never closed <a href='a-1.zip'>",
            "<? <a href='a-1.zip'",
            "< a href='a-1.zip'>",
            "<b title=\"<a href='a-1.zip'>\">",
            "</a href='a-1.zip'>",
        ] {
            let text = format!("<a href='six-1.0.zip'>{hidden}");
            assert_eq!(names(&text), ["six-1.0.zip"], "{hidden}");
        }
        assert_eq!(names("<!--> <a href='a-1.zip'><a <b href=b-1.zip>"), ["a-1.zip", "b-1.zip"]);
    }

    #[test]
    fn the_version_and_the_state_of_a_project_are_read() {
        let version = "<meta name='pypi:repository-version' content='2.0'>";
        assert!(
            read("text/html", version).expect_err("a version").to_string().contains("speaks version 2.0")
        );
        let quarantined = "<meta name='pypi:project-status' content='quarantined'>\
                           <meta name='pypi:project-status-reason' content='bad'><a href='six-1.0.zip'>";
        let page = read("text/html", quarantined).expect("a page");
        assert_eq!((page.status, page.files.len()), (Status::Quarantined, 0));
        assert_eq!(page.reason.as_deref(), Some("bad"));
    }

    #[test]
    fn references_are_decoded_and_what_is_none_stays() {
        assert_eq!(decode("a&amp;b&#62;&#x3E;&lt;"), "a&b>><");
        for odd in ["&", "&amp", "&;", "&#;", "&#x;", "&#xd800;", "&bogus;", "&#99999999999;", "a=1&b=2"] {
            assert_eq!(decode(odd), odd, "{odd}");
        }
    }

    #[test]
    fn a_hundred_thousand_links_take_no_time_however_they_are_written() {
        let mut good = String::new();
        for number in 0..100_000 {
            writeln!(
                good,
                "<a href=\"../../f/six-{number}.tar.gz#sha256={number:064}\">six-{number}</a><br>"
            )
            .expect("text");
        }
        let bad = ["<a href=\"", "<!--", "<script>", "</", "<a ", "&#", "<!", "<title></", "<a =\"'"];
        let bad = bad.map(|piece| piece.repeat(300_000));
        let start = Instant::now();
        assert_eq!(names(&good).len(), 100_000);
        for text in &bad {
            names(text);
        }
        // Far more than it takes, unoptimised and on a busy machine; far less than a quadratic one would.
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }

    proptest! {
        #[test]
        fn any_text_is_a_page(text in ".{0,300}") {
            names(&text);
        }

        #[test]
        fn any_markup_is_a_page(text in "(<a|<!--|-->|</|>|<| href|=|\"|'|&#x?|;|six-1\\.zip|ä|/|<script|\n){0,60}") {
            for name in names(&text) {
                prop_assert!(!name.contains(['/', '\\', '\n']));
            }
        }

        #[test]
        fn what_was_written_properly_is_read(name in "[a-z]{1,9}-[0-9.]{1,5}[0-9]", reason in "[^\\p{C}\u{85}]{0,30}") {
            let escaped = reason.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
            let page = read("text/html", &format!("<p><a href=\"{name}.zip\" data-yanked=\"{escaped}\">"));
            let page = page.expect("a page");
            prop_assert_eq!(&page.files[0].name, &format!("{name}.zip"));
            prop_assert_eq!(page.files[0].yanked.as_deref(), Some(reason.as_str()));
        }
    }
}
