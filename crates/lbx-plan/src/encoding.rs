//! From the bytes of a requirement file to its text, as pip has it: a byte order mark decides, else a comment in the
//! first two lines (PEP 263), else it is UTF-8.
//!
//! pip also asks the locale. lbx does not: what a file says must not depend on who reads it.

/// Why bytes are no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// The file is not in the encoding that it should be in.
    #[error("is not {encoding} text{}", why(*.marked))]
    Malformed {
        /// The encoding.
        encoding: &'static str,
        /// Whether the file itself names the encoding, by a mark or a comment.
        marked: bool,
    },
    /// A comment names an encoding that lbx does not read.
    #[error("says that it is in the encoding `{name}`, which lbx does not read")]
    Unknown {
        /// The name.
        name: String,
    },
}

fn why(marked: bool) -> &'static str {
    if marked { ", although it says so itself" } else { "" }
}

impl EncodingError {
    /// What the user can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "save it as UTF-8",
            Self::Unknown { .. } => "save it as UTF-8, and remove the comment that names the encoding",
        }
    }
}

/// How the units of an encoding are made of bytes.
type Units = fn(&[u8]) -> Option<String>;

/// Byte order marks. That of UTF-32 begins with that of UTF-16, so it comes first.
const MARKS: [(&[u8], &str, Units); 5] = [
    (b"\xef\xbb\xbf", "UTF-8", utf8),
    (b"\xff\xfe\0\0", "UTF-32", |bytes| utf32(bytes, u32::from_le_bytes)),
    (b"\0\0\xfe\xff", "UTF-32", |bytes| utf32(bytes, u32::from_be_bytes)),
    (b"\xff\xfe", "UTF-16", |bytes| utf16(bytes, u16::from_le_bytes)),
    (b"\xfe\xff", "UTF-16", |bytes| utf16(bytes, u16::from_be_bytes)),
];

/// The text of a requirement file, without a byte order mark.
///
/// # Errors
///
/// The bytes are not in the encoding that they should be in, or in none that is known here.
pub fn decode(bytes: &[u8]) -> Result<String, EncodingError> {
    let malformed = |encoding, marked| EncodingError::Malformed { encoding, marked };
    for (mark, encoding, units) in MARKS {
        if let Some(rest) = bytes.strip_prefix(mark) {
            return units(rest).ok_or(malformed(encoding, true));
        }
    }
    let Some(name) = declared(bytes) else { return utf8(bytes).ok_or(malformed("UTF-8", false)) };
    match name.to_ascii_lowercase().replace(['-', '_', '.'], "").as_str() {
        "utf8" | "utf8sig" => utf8(bytes).ok_or(malformed("UTF-8", true)),
        "ascii" | "usascii" if bytes.is_ascii() => utf8(bytes).ok_or(malformed("ASCII", true)),
        "ascii" | "usascii" => Err(malformed("ASCII", true)),
        "latin1" | "iso88591" => Ok(bytes.iter().map(|byte| char::from(*byte)).collect()),
        _ => Err(EncodingError::Unknown { name }),
    }
}

/// The encoding that a comment in one of the first two lines names: `coding: NAME` or `coding=NAME`.
fn declared(bytes: &[u8]) -> Option<String> {
    let comments = bytes.split(|byte| *byte == b'\n').take(2).filter(|line| line.starts_with(b"#"));
    comments.map(String::from_utf8_lossy).find_map(|line| {
        line.match_indices("coding").find_map(|(at, word)| {
            let name = line[at + word.len()..].strip_prefix([':', '='])?.trim_start();
            let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let end = name.find(|c| !is_part(c)).unwrap_or(name.len());
            (end > 0).then(|| name[..end].to_owned())
        })
    })
}

fn utf8(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let (units, []) = bytes.as_chunks::<2>() else { return None };
    char::decode_utf16(units.iter().map(|two| unit(*two))).collect::<Result<_, _>>().ok()
}

fn utf32(bytes: &[u8], unit: fn([u8; 4]) -> u32) -> Option<String> {
    let (units, []) = bytes.as_chunks::<4>() else { return None };
    units.iter().map(|four| char::from_u32(unit(*four))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "-r ä.txt\r\nsix # 🐍\n";

    fn words(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(unit).collect()
    }

    #[test]
    fn a_byte_order_mark_decides_and_goes() {
        assert_eq!(decode(format!("\u{feff}{TEXT}").as_bytes()).unwrap(), TEXT);
        let marked = format!("\u{feff}{TEXT}");
        assert_eq!(decode(&words(&marked, u16::to_le_bytes)).unwrap(), TEXT);
        assert_eq!(decode(&words(&marked, u16::to_be_bytes)).unwrap(), TEXT);
        for unit in [u32::to_le_bytes, u32::to_be_bytes] {
            let bytes: Vec<u8> = marked.chars().flat_map(|c| unit(c as u32)).collect();
            assert_eq!(decode(&bytes).unwrap(), TEXT);
        }
    }

    #[test]
    fn a_comment_in_the_first_two_lines_decides_and_stays() {
        assert_eq!(decode(b"# -*- coding: latin-1 -*-\nx\xe4\n").unwrap(), "# -*- coding: latin-1 -*-\nxä\n");
        assert_eq!(decode(b"six\n# vim: fileencoding=iso-8859-1\n\xe4").unwrap().chars().last(), Some('ä'));
        assert_eq!(decode("# coding: utf-8\nä".as_bytes()).unwrap(), "# coding: utf-8\nä");
        let late = decode(b"\n\n# coding: latin-1\n\xe4").unwrap_err();
        assert_eq!(late.to_string(), "is not UTF-8 text");
        let unknown = decode(b"# coding: koi8-r\n\xe4").unwrap_err();
        assert_eq!(unknown.to_string(), "says that it is in the encoding `koi8-r`, which lbx does not read");
    }

    #[test]
    fn what_is_not_in_its_encoding_is_refused() {
        let odd = decode(b"\xff\xfea").unwrap_err();
        assert_eq!(odd.to_string(), "is not UTF-16 text, although it says so itself");
        assert!(decode(b"\xff\xfe\x00\xd8").is_err(), "half a pair");
        assert!(decode(b"# coding: ascii\n\xe4").is_err());
        assert!(decode(b"\xe4").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes);
        }
    }
}
