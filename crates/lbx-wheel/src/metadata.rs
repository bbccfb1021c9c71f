//! METADATA, WHEEL and entry_points.txt: the few fields that lbx acts on. The files themselves are kept as they
//! are.

use crate::WheelError;

/// The fields of METADATA that are used (the "core metadata" specification).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// The name as the project writes it.
    pub name: String,
    /// The version as the project writes it.
    pub version: String,
    /// Every Requires-Dist, as written.
    pub requires_dist: Vec<String>,
    /// Requires-Python, as written.
    pub requires_python: Option<String>,
    /// Every Provides-Extra, as written.
    pub provides_extra: Vec<String>,
}

/// What WHEEL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WheelFile {
    pub(crate) root_is_purelib: bool,
}

/// One line of a section of entry_points.txt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryPoint {
    /// The command.
    pub name: String,
    /// What it runs: `module:attribute`, perhaps with extras, as written.
    pub target: String,
}

impl Metadata {
    /// What the METADATA of an installed package says, or the beginning of one that has all its fields.
    pub fn parse(bytes: &[u8]) -> Result<Self, WheelError> {
        parse_metadata("METADATA", bytes)
    }
}

/// The name in the form that is compared (PEP 503): lower case, runs of `-`, `_` and `.` as one `-`.
pub fn normalize_name(name: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            _ => normal.push(c.to_ascii_lowercase()),
        }
    }
    normal
}

/// The header fields of an RFC 822-like file, up to the first empty line, continuation lines joined.
fn headers(text: &str) -> Result<Vec<(String, String)>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)) {
        if line.is_empty() {
            break;
        }
        if line.starts_with([' ', '\t']) {
            let (_, value) = fields.last_mut().ok_or("it starts with a continuation line")?;
            value.push('\n');
            value.push_str(line.trim());
            continue;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| format!("no field in line {line:?}"))?;
        fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(fields)
}

fn malformed(member: &str, what: impl Into<String>) -> WheelError {
    WheelError::Malformed { member: member.to_owned(), what: what.into() }
}

/// The value of a field that must be there exactly once.
fn single(member: &str, fields: &[(String, String)], name: &str) -> Result<String, WheelError> {
    let mut values =
        fields.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) if !value.is_empty() => Ok(value.clone()),
        (None, _) | (Some(_), None) => Err(malformed(member, format!("no {name}"))),
        (Some(_), Some(_)) => Err(malformed(member, format!("more than one {name}"))),
    }
}

/// Parses METADATA. Old wheels have bytes in it that are not UTF-8, in fields that are not used here.
pub(crate) fn parse_metadata(member: &str, bytes: &[u8]) -> Result<Metadata, WheelError> {
    let text = String::from_utf8_lossy(bytes);
    let fields = headers(&text).map_err(|what| malformed(member, what))?;
    let all = |name: &str| -> Vec<String> {
        fields.iter().filter(|(found, _)| found == name).map(|(_, value)| value.clone()).collect()
    };
    Ok(Metadata {
        name: single(member, &fields, "Name")?,
        version: single(member, &fields, "Version")?,
        requires_dist: all("requires-dist"),
        requires_python: all("requires-python").into_iter().next(),
        provides_extra: all("provides-extra"),
    })
}

/// Parses WHEEL, and refuses another major version than 1, as pip does.
pub(crate) fn parse_wheel(member: &str, bytes: &[u8]) -> Result<WheelFile, WheelError> {
    let text = str::from_utf8(bytes).map_err(|_| malformed(member, "it is not UTF-8"))?;
    let fields = headers(text).map_err(|what| malformed(member, what))?;
    let version = single(member, &fields, "Wheel-Version")?;
    if version.split('.').next() != Some("1") || !version.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(WheelError::WheelVersion { found: version });
    }
    let purelib = single(member, &fields, "Root-Is-Purelib")?;
    Ok(WheelFile { root_is_purelib: purelib.eq_ignore_ascii_case("true") })
}

/// The console and GUI scripts that entry_points.txt declares.
pub(crate) fn parse_entry_points(
    member: &str,
    bytes: &[u8],
) -> Result<(Vec<EntryPoint>, Vec<EntryPoint>), WheelError> {
    let text = str::from_utf8(bytes).map_err(|_| malformed(member, "it is not UTF-8"))?;
    let (mut console, mut gui) = (Vec::new(), Vec::new());
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.trim();
            continue;
        }
        let scripts = match section {
            "console_scripts" => &mut console,
            "gui_scripts" => &mut gui,
            _ => continue,
        };
        let (name, target) = line
            .split_once('=')
            .ok_or_else(|| malformed(member, format!("no entry point in line {line:?}")))?;
        scripts.push(EntryPoint { name: name.trim().to_owned(), target: target.trim().to_owned() });
    }
    Ok((console, gui))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_ends_at_the_empty_line() {
        let text = b"Metadata-Version: 2.1\r\nName: Foo.Bar\r\nVersion: 1.0\r\nRequires-Dist: a>1\r\n\
            Requires-Dist: b;\r\n  extra == 'x'\r\nProvides-Extra: x\r\n\r\nName: not this\r\n";
        let metadata = parse_metadata("METADATA", text).unwrap();
        assert_eq!(metadata.name, "Foo.Bar");
        assert_eq!(metadata.requires_dist, ["a>1", "b;\nextra == 'x'"]);
        assert_eq!(metadata.provides_extra, ["x"]);
        assert_eq!(metadata.requires_python, None);
    }

    #[test]
    fn a_field_that_must_be_there_is_there_once() {
        for text in
            ["Version: 1\n", "Name: a\n", "Name: a\nName: b\nVersion: 1\n", "Name:\nVersion: 1\n", "x\n"]
        {
            assert!(
                matches!(parse_metadata("METADATA", text.as_bytes()), Err(WheelError::Malformed { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn wheel_version_is_1() {
        let parse = |text: &str| parse_wheel("WHEEL", text.as_bytes());
        assert!(parse("Wheel-Version: 1.0\nRoot-Is-Purelib: true\n").unwrap().root_is_purelib);
        assert!(!parse("Wheel-Version: 1.9\nRoot-Is-Purelib: False\n").unwrap().root_is_purelib);
        for version in ["2.0", "11.0", "1x", "0.1"] {
            let text = format!("Wheel-Version: {version}\nRoot-Is-Purelib: true\n");
            assert!(matches!(parse(&text), Err(WheelError::WheelVersion { .. })), "{version}");
        }
        assert!(matches!(parse("Root-Is-Purelib: true\n"), Err(WheelError::Malformed { .. })));
    }

    #[test]
    fn entry_points_are_read_by_section() {
        let text =
            b"# c\n[console_scripts]\na = m:f\nb=m.n:g [x]\n\n[other]\nc = d\n[gui_scripts]\ng = m:h\n";
        let (console, gui) = parse_entry_points("entry_points.txt", text).unwrap();
        let names = |points: &[EntryPoint]| points.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&console), ["a", "b"]);
        assert_eq!(console[1].target, "m.n:g [x]");
        assert_eq!(names(&gui), ["g"]);
    }

    #[test]
    fn names_compare_normalised() {
        assert_eq!(normalize_name("Foo._-Bar"), "foo-bar");
        assert_eq!(normalize_name("foo"), "foo");
    }
}
