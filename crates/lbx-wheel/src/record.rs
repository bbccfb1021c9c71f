//! RECORD: the list of a wheel's members with their digests ("recording installed projects" specification). Whether
//! the members agree, `import` checks.

use std::collections::HashMap;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest as _, Sha384, Sha512};

use crate::WheelError;

/// URL-safe base64, with or without padding: the specification says without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A digest that counts. md5 and sha1 do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Checksum {
    Sha256([u8; 32]),
    Sha384([u8; 48]),
    Sha512([u8; 64]),
}

/// One line of RECORD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) checksum: Option<Checksum>,
    pub(crate) size: Option<u64>,
}

/// RECORD by path. A path may have two lines if they say the same.
pub(crate) fn parse(bytes: &[u8]) -> Result<HashMap<String, Line>, WheelError> {
    let bad = |line, what: &str| WheelError::Record { line, what: what.to_owned() };
    let text = str::from_utf8(bytes).map_err(|_| bad(1, "it is not UTF-8"))?;
    let mut lines = HashMap::new();
    for (at, text) in text.split('\n').enumerate() {
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            continue;
        }
        let (path, line) = parse_line(text).map_err(|what| WheelError::Record { line: at + 1, what })?;
        match lines.get(&path) {
            None => drop(lines.insert(path, line)),
            Some(before) if *before == line => {}
            Some(_) => return Err(bad(at + 1, "the path has another line that says something else")),
        }
    }
    Ok(lines)
}

/// The paths that the RECORD of an installed package lists, from the folder that its dist-info is in. What cannot be read is
/// passed over: installers write what they like.
pub fn recorded_paths(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| split(line).ok()?.into_iter().next()).filter(|path| !path.is_empty())
}

fn parse_line(text: &str) -> Result<(String, Line), String> {
    let fields = split(text)?;
    let [path, checksum, size] = &fields[..] else {
        return Err(format!("expected 3 fields, found {}", fields.len()));
    };
    lbx_archive::check_name(path).map_err(|reason| format!("path {path:?} refused: {reason}"))?;
    let checksum = if checksum.is_empty() { None } else { Some(parse_checksum(checksum)?) };
    let size = match size.as_str() {
        "" => None,
        digits => Some(digits.parse().map_err(|_| format!("bad size {digits:?}"))?),
    };
    Ok((path.clone(), Line { checksum, size }))
}

/// Splits a line of comma-separated values; a field in quotes may hold commas and doubled quotes.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = if let Some(quoted) = rest.strip_prefix('"') {
            unquote(quoted)?
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            (rest[..end].to_owned(), &rest[end..])
        };
        fields.push(field);
        if after.is_empty() {
            return Ok(fields);
        }
        rest = after.strip_prefix(',').ok_or("text after a closing quote")?;
    }
}

/// The field up to the closing quote, and what follows the quote.
fn unquote(text: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"').ok_or("no closing quote")?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(doubled) => {
                field.push('"');
                rest = doubled;
            }
            None => return Ok((field, after)),
        }
    }
}

fn parse_checksum(text: &str) -> Result<Checksum, String> {
    let (algorithm, value) = text.split_once('=').ok_or_else(|| format!("bad digest {text:?}"))?;
    let bytes = BASE64.decode(value).map_err(|_| format!("bad digest {text:?}"))?;
    let checksum = match algorithm {
        "sha256" => bytes.try_into().ok().map(Checksum::Sha256),
        "sha384" => bytes.try_into().ok().map(Checksum::Sha384),
        "sha512" => bytes.try_into().ok().map(Checksum::Sha512),
        _ => return Err(format!("digest {algorithm:?}, expected sha256, sha384 or sha512")),
    };
    checksum.ok_or_else(|| format!("bad digest {text:?}"))
}

/// The longer hash that a line asks for beside SHA-256, which is made in any case.
pub(crate) enum Longer {
    None,
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Longer {
    pub(crate) fn for_line(line: Option<&Line>) -> Self {
        match line.and_then(|line| line.checksum.as_ref()) {
            Some(Checksum::Sha384(_)) => Self::Sha384(Sha384::new()),
            Some(Checksum::Sha512(_)) => Self::Sha512(Sha512::new()),
            Some(Checksum::Sha256(_)) | None => Self::None,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::None => {}
            Self::Sha384(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The name of the digest that differs from the line's.
    pub(crate) fn mismatch(self, line: &Line, sha256: [u8; 32]) -> Option<&'static str> {
        let (name, fits) = match (line.checksum.as_ref()?, self) {
            (Checksum::Sha256(expected), _) => ("sha256", *expected == sha256),
            (Checksum::Sha384(expected), Self::Sha384(hash)) => {
                ("sha384", hash.finalize()[..] == expected[..])
            }
            (Checksum::Sha512(expected), Self::Sha512(hash)) => {
                ("sha512", hash.finalize()[..] == expected[..])
            }
            (Checksum::Sha384(_), _) => ("sha384", false),
            (Checksum::Sha512(_), _) => ("sha512", false),
        };
        (!fits).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";

    #[test]
    fn lines_with_quotes_and_crlf_parse() {
        let text = format!("\"a,b\"\"c.py\",{EMPTY},0\r\nx/RECORD,,\r\n\n");
        let lines = parse(text.as_bytes()).unwrap();
        assert_eq!(lines["a,b\"c.py"].size, Some(0));
        assert!(matches!(lines["a,b\"c.py"].checksum, Some(Checksum::Sha256(_))));
        assert_eq!(lines["x/RECORD"], Line { checksum: None, size: None });
    }

    proptest::proptest! {
        #[test]
        fn any_acceptable_path_comes_back(path in "[a-z,\"' äß.]{1,20}(/[a-z,\"]{1,9}){0,2}", size in 0u64..) {
            proptest::prop_assume!(lbx_archive::check_name(&path).is_ok());
            let text = format!("\"{}\",{EMPTY},{size}\n", path.replace('"', "\"\""));
            let lines = parse(text.as_bytes()).unwrap();
            proptest::prop_assert_eq!(lines[&path].size, Some(size));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "[a-z,\"=/\r\n0-9]{0,60}") {
            drop(parse(text.as_bytes()));
        }
    }

    #[test]
    fn padding_is_accepted() {
        assert_eq!(parse_checksum(EMPTY), parse_checksum(&format!("{EMPTY}=")));
    }

    #[test]
    fn the_same_line_twice_is_one_line() {
        assert_eq!(parse(format!("a,{EMPTY},0\na,{EMPTY},0\n").as_bytes()).unwrap().len(), 1);
        assert!(parse(format!("a,{EMPTY},0\na,{EMPTY},1\n").as_bytes()).is_err());
    }

    #[test]
    fn what_is_not_a_record_is_refused() {
        for text in [
            "a",
            "a,b",
            &format!("a,{EMPTY},0,"),
            &format!("a,{EMPTY},x"),
            &format!("a,{EMPTY},-1"),
            "a,md5=1B2M2Y8AsgTpgAmY7PhCfg,0",
            "a,sha1=2jmj7l5rSw0yVb_vlWAYkK_YBwk,0",
            "a,sha256=xyz,0",
            "a,sha256,0",
            "a,sha512=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0",
            "\"a,,",
            "\"a\"b,,",
            &format!("../a,{EMPTY},0"),
            &format!("/a,{EMPTY},0"),
            &format!("a//b,{EMPTY},0"),
            &format!("a\\b,{EMPTY},0"),
        ] {
            assert!(matches!(parse(text.as_bytes()), Err(WheelError::Record { line: 1, .. })), "{text}");
        }
        assert!(parse(b"\xff,,").is_err());
    }
}
