//! The logical lines of a requirement file, and what each asks for.

use super::options::{self, Word};
use crate::hidden::Hidden;

/// One logical line: comments gone, continuation lines joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The number of its first physical line, from one.
    pub number: usize,
    /// How many physical lines it has.
    pub height: usize,
    /// Its text.
    pub text: Hidden,
    /// What it asks for.
    pub kind: LineKind,
}

impl Line {
    /// The line with the path of something that was built, in the place of what it was built from.
    pub(super) fn with_path(&self, from: &str, path: Option<String>) -> String {
        let Some(path) = path else { return self.text.expose().to_owned() };
        let requirement = editable(self.text.expose());
        let requirement = requirement.trim();
        // pip takes names with addresses and bare paths, and no names with paths.
        if named_address(requirement).is_some() {
            return requirement.replacen(from, &format!("file://{path}"), 1);
        }
        let extras = from.split_once("egg=").and_then(|(_, egg)| {
            let egg = egg.split('&').next()?;
            Some(&egg[egg.find('[')?..=egg.find(']')?])
        });
        requirement.replacen(from, &(path + extras.unwrap_or_default()), 1)
    }

    /// Whether it says what pip has to be told of how something is built, or what exactly its bytes are.
    pub fn is_particular(&self) -> bool {
        const OPTIONS: [&str; 6] = [
            "--hash",
            "--require-hashes",
            "--global-option",
            "--install-option",
            "--config-setting",
            "--no-build-isolation",
        ];
        OPTIONS.iter().any(|option| self.text.expose().contains(option))
    }
}

/// A requirement without the option that asks for it to be editable.
fn editable(text: &str) -> String {
    if !text.starts_with('-') {
        return text.to_owned();
    }
    let found = options::parse(text).into_iter().find_map(|word| match word {
        Word::Option("--editable", value) => Some(value),
        _ => None,
    });
    // A marker behind it is another word.
    let marker = text.split_once(';').map(|(_, marker)| format!(" ;{marker}")).unwrap_or_default();
    found.map_or_else(|| text.to_owned(), |value| value.trim_end_matches(';').to_owned() + &marker)
}

/// What a line asks for, as far as files and addresses are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// `-r FILE`: another requirement file, relative to the file that says so.
    Requirements(String),
    /// `-c FILE`: a constraint file, relative to the file that says so.
    Constraints(String),
    /// Options: those about where packages are, and the others, for pip.
    Options {
        /// Where packages are, in order.
        places: Vec<PlaceOption>,
        /// The other options, as a line.
        rest: String,
    },
    /// A project or archive by its path, relative to the project.
    LocalPath(String),
    /// A path or URL that leads out of the project, such as `file:///…` or `/srv/x`.
    OutsidePath(String),
    /// A wheel or an archive by its address, which is this part of the text.
    Url(Hidden),
    /// A repository by its address, `git+https://…`, which is this part of the text.
    Git(Hidden),
    /// Something that cannot be had, in words, and what to do about it.
    Refused(&'static str, &'static str),
    /// A requirement that the index answers.
    Requirement,
}

/// An option that says where packages are.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlaceOption {
    /// `--index-url`: the index, and no other one that was named before.
    Index(Hidden),
    /// `--extra-index-url`: a further index.
    Extra(Hidden),
    /// `--find-links` with an address: a page of links, or a file.
    Page(Hidden),
    /// `--find-links` with a folder of the project, relative to it once the file that names it is known.
    Folder(String),
    /// `--no-index`: none of the indexes that were named before.
    NoIndex,
    /// `--trusted-host`: a host that needs no good certificate.
    TrustedHost(String),
}

/// Splits the text of a requirement file into logical lines, as pip does.
pub fn scan(text: &str) -> Vec<Line> {
    scan_with(text, &|line| line.to_owned())
}

/// The same; `expand` sees each line between the comments being cut and its meaning being found.
pub(super) fn scan_with(text: &str, expand: &dyn Fn(&str) -> String) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut pending: Option<(usize, String)> = None;
    let physical_lines = physical(text);
    for (index, physical) in physical_lines.iter().enumerate() {
        let (number, mut joined) = pending.take().unwrap_or((index + 1, String::new()));
        // A comment line ends a continuation rather than being continued itself.
        let is_comment = physical.trim_start().starts_with('#');
        match physical.strip_suffix('\\') {
            Some(head) if !is_comment => {
                joined.push_str(head);
                pending = Some((number, joined));
                continue;
            }
            // Otherwise what comes before it would make it none.
            _ if is_comment => joined.extend([" ", physical]),
            _ => joined.push_str(physical),
        }
        lines.extend(line(number, index + 2 - number, &joined, expand));
    }
    if let Some((number, joined)) = pending {
        lines.extend(line(number, physical_lines.len() + 1 - number, &joined, expand));
    }
    lines
}

/// Physical lines where Python ends them, so that there is none that pip sees and lbx does not.
pub(super) fn physical(text: &str) -> Vec<&str> {
    let is_end = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(is_end) {
        lines.push(&rest[..end]);
        let width = rest[end..].chars().next().map_or(1, char::len_utf8);
        let width = if rest[end..].starts_with("\r\n") { 2 } else { width };
        rest = &rest[end + width..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

fn line(number: usize, height: usize, joined: &str, expand: &dyn Fn(&str) -> String) -> Option<Line> {
    let text = expand(without_comment(joined).trim());
    let text = text.trim();
    (!text.is_empty()).then(|| Line { number, height, text: Hidden::new(text), kind: kind_of(text) })
}

/// Cuts a comment: a `#` at the start of the line or after white space.
fn without_comment(line: &str) -> &str {
    let mut previous = ' ';
    for (index, character) in line.char_indices() {
        if character == '#' && previous.is_whitespace() {
            return &line[..index];
        }
        previous = character;
    }
    line
}

fn kind_of(text: &str) -> LineKind {
    if !text.starts_with('-') {
        return requirement(text);
    }
    let words = options::parse(text);
    let value = |wanted: &str| {
        words.iter().find_map(|word| match word {
            Word::Option(name, value) if *name == wanted => Some(value.as_str()),
            _ => None,
        })
    };
    // As pip does it: with one of these, nothing else on the line counts.
    if let Some(file) = value("--requirement") {
        return nested(file, LineKind::Requirements);
    }
    if let Some(file) = value("--constraint") {
        return nested(file, LineKind::Constraints);
    }
    if let Some(project) = value("--editable") {
        return match requirement(project) {
            // pip takes whatever is no address for a path here, also a bare name.
            LineKind::Requirement => {
                let word = first_word(project);
                LineKind::LocalPath(word.split_once('[').map_or(word, |(path, _)| path).to_owned())
            }
            kind => kind,
        };
    }
    let (places, rest): (Vec<_>, Vec<_>) = words.into_iter().partition(|word| place(word).is_some());
    LineKind::Options { places: places.iter().filter_map(place).collect(), rest: options::join(&rest) }
}

fn place(word: &Word) -> Option<PlaceOption> {
    let Word::Option(name, value) = word else { return None };
    Some(match *name {
        "--index-url" | "--pypi-url" => PlaceOption::Index(Hidden::new(value)),
        "--extra-index-url" => PlaceOption::Extra(Hidden::new(value)),
        "--find-links" if value.contains("://") => PlaceOption::Page(Hidden::new(value)),
        "--find-links" => PlaceOption::Folder(value.clone()),
        "--no-index" => PlaceOption::NoIndex,
        "--trusted-host" => PlaceOption::TrustedHost(value.clone()),
        _ => return None,
    })
}

fn nested(value: &str, kind: fn(String) -> LineKind) -> LineKind {
    if value.starts_with('/') || value.starts_with("file:") {
        LineKind::OutsidePath(value.to_owned())
    } else if value.contains("://") {
        LineKind::Refused(
            "a requirement file at an address is not read: what it says could change between two builds",
            "download it into the project, and name it there",
        )
    } else {
        kind(value.to_owned())
    }
}

/// A requirement that may be a path: pip takes one for a path when it starts with a dot or holds a separator before
/// any marker, extra or hash.
fn requirement(text: &str) -> LineKind {
    if let Some(url) = named_address(text) {
        return address(first_word(url));
    }
    let word = first_word(text);
    if word.contains("://") || word.starts_with("file:") {
        return address(word);
    }
    if word.starts_with('/') {
        return LineKind::OutsidePath(word.to_owned());
    }
    let is_archive = [".whl", ".tar.gz", ".zip", ".tar.bz2"].iter().any(|ending| word.ends_with(ending));
    if word.starts_with('.') || word.contains('/') || is_archive {
        let path = word.split_once('[').map_or(word, |(path, _)| path);
        return LineKind::LocalPath(path.to_owned());
    }
    if options_after(text) {
        return LineKind::Refused(
            "an option about indexes stands behind a requirement, where pip ignores it",
            "give it a line of its own",
        );
    }
    LineKind::Requirement
}

/// What stands after the `@` of `name[extras] @ address`.
fn named_address(text: &str) -> Option<&str> {
    let (name, url) = text.split_once('@')?;
    let name = name.split_once('[').map_or(name, |(name, _)| name).trim_end();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (!name.is_empty() && name.chars().all(fits)).then(|| url.trim_start())
}

fn address(word: &str) -> LineKind {
    let scheme = word.split_once(':').map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
    match scheme.as_str() {
        "http" | "https" => LineKind::Url(Hidden::new(word)),
        "git+https" | "git+http" | "git+ssh" | "git+git" | "git+file" => LineKind::Git(Hidden::new(word)),
        "file" => LineKind::OutsidePath(word.to_owned()),
        _ => LineKind::Refused(
            "it is at an address that nothing here can ask",
            "addresses begin with https://, git+https:// or git+ssh://",
        ),
    }
}

/// Whether a requirement is followed by what says where packages are.
fn options_after(text: &str) -> bool {
    let Some(start) = text.find(" -") else { return false };
    options::parse(text[start..].trim_start()).iter().any(|word| place(word).is_some())
}

fn first_word(text: &str) -> &str {
    let word = text.split([' ', '\t']).next().unwrap_or(text);
    // A semicolon ends a path; in an address it may be part of it.
    if word.contains("://") { word.trim_end_matches(';') } else { word.split(';').next().unwrap_or(word) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds(text: &str) -> Vec<LineKind> {
        scan(text).into_iter().map(|line| line.kind).collect()
    }

    fn options(places: &[PlaceOption], rest: &str) -> LineKind {
        LineKind::Options { places: places.to_vec(), rest: rest.to_owned() }
    }

    #[test]
    fn every_spelling_of_an_option_is_understood() {
        for text in ["-r a.txt", "-ra.txt", "--requirement a.txt", "--requirement=a.txt", "-r 'a.txt'"] {
            assert_eq!(kinds(text), [LineKind::Requirements("a.txt".into())], "{text}");
        }
        assert_eq!(kinds("-c c.txt"), [LineKind::Constraints("c.txt".into())]);
        assert_eq!(kinds("-f wheels"), [options(&[PlaceOption::Folder("wheels".into())], "")]);
        assert_eq!(
            kinds("--require-hashes\n-i https://h/simple --pre --no-index"),
            [
                options(&[], "--require-hashes"),
                options(
                    &[PlaceOption::Index(Hidden::new("https://h/simple")), PlaceOption::NoIndex],
                    "--pre"
                )
            ]
        );
    }

    #[test]
    fn an_option_about_indexes_behind_a_requirement_is_refused() {
        assert!(matches!(kinds("six --index-url https://h")[..], [LineKind::Refused(..)]));
        assert_eq!(kinds("six --hash=sha256:1 --global-option=-f"), [LineKind::Requirement]);
    }

    #[test]
    fn comments_and_continuations_are_joined_as_pip_joins_them() {
        let lines = scan(
            "# top\nrequests==2 \\\n  --hash=sha256:ab # why\n\nurl @ https://h/x#egg=1\nidna \\\n# no\nsix\\\n",
        );
        let texts: Vec<_> = lines.iter().map(|line| (line.number, line.height, line.text.expose())).collect();
        assert_eq!(
            texts,
            [
                (2, 2, "requests==2   --hash=sha256:ab"),
                (5, 1, "url @ https://h/x#egg=1"),
                (6, 2, "idna"),
                (8, 1, "six")
            ]
        );
        assert_eq!(scan("a\u{c}b\rc\r\nd\u{85}e\u{2028}f").len(), 6, "as Python ends them");
    }

    #[test]
    fn paths_and_addresses_are_told_from_requirements() {
        assert_eq!(kinds("./lib"), [LineKind::LocalPath("./lib".into())]);
        assert_eq!(kinds("-e lib"), [LineKind::LocalPath("lib".into())]);
        assert_eq!(kinds("--editable=lib[extra]"), [LineKind::LocalPath("lib".into())]);
        assert_eq!(kinds("-e libs/a[extra]"), [LineKind::LocalPath("libs/a".into())]);
        assert_eq!(kinds("libs/a; os_name=='x'"), [LineKind::LocalPath("libs/a".into())]);
        assert_eq!(
            kinds("wheels/x-1-py3-none-any.whl"),
            [LineKind::LocalPath("wheels/x-1-py3-none-any.whl".into())]
        );
        assert_eq!(kinds("/srv/x"), [LineKind::OutsidePath("/srv/x".into())]);
        assert_eq!(kinds("x @ file:///srv/x"), [LineKind::OutsidePath("file:///srv/x".into())]);
        assert_eq!(kinds("requests[socks]>=2; python_version < '3.12'"), [LineKind::Requirement]);
        let url = "https://u:p@h/a/b.whl#sha256=1";
        for text in ["x @ {}", "x@{}", "x[a, b] @ {} ; os_name=='x'", "{}", "{} ; os_name=='x'", "{};"] {
            assert_eq!(kinds(&text.replace("{}", url)), [LineKind::Url(Hidden::new(url))], "{text}");
        }
        let git = "git+ssh://git@h/a.git@v1#subdirectory=b";
        for text in ["x @ {}", "{}", "-e {}", "--editable={}"] {
            assert_eq!(kinds(&text.replace("{}", git)), [LineKind::Git(Hidden::new(git))], "{text}");
        }
        for refused in ["x @ ftp://h/x.whl", "hg+https://h/x", "-r https://h/r.txt"] {
            assert!(matches!(kinds(refused)[..], [LineKind::Refused(..)]), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_scanner_panic_or_invent_lines(text in "\\PC{0,200}|[-rcef \\\\#\n\r\u{85}./a=\"']{0,80}") {
            let count = physical(&text).len();
            let mut last = 0;
            for line in scan(&text) {
                prop_assert!(line.number > last && line.height >= 1);
                last = line.number + line.height - 1;
                prop_assert!(last <= count);
                prop_assert!(!line.text.expose().is_empty());
            }
        }
    }
}
