//! The lines of requirement files: just enough of pip's format to know which other files a file needs.
//!
//! lbx does not resolve anything from these lines; pip does. It reads them to find the files that must
//! be visible in the sandbox, to name a missing one with its line, and to know when two functions ask
//! for the same set. The format is pip's "Requirements File Format"; what is not recognised here is
//! passed to pip as it stands.

use std::collections::{BTreeMap, BTreeSet};

use crate::position::Position;

/// One logical line: comments gone, continuation lines joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The number of its first physical line, from one.
    pub number: usize,
    /// Its text.
    pub text: String,
    /// What it asks for.
    pub kind: LineKind,
}

/// What a line asks for, as far as files are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// `-r FILE`: another requirement file, relative to the file that says so.
    Requirements(String),
    /// `-c FILE`: a constraint file, relative to the file that says so.
    Constraints(String),
    /// `-f FOLDER`: a folder of archives, relative to the file that says so.
    FindLinks(String),
    /// A project or archive by its path, relative to the project.
    LocalPath(String),
    /// A path or URL that leads out of the project, such as `file:///…` or `/srv/x`.
    OutsidePath(String),
    /// Another option, such as `--index-url`.
    Option,
    /// A requirement that the index answers.
    Requirement,
}

/// Splits the text of a requirement file into logical lines, as pip does.
pub fn scan(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut pending: Option<(usize, String)> = None;
    for (index, physical) in text.lines().enumerate() {
        let (number, mut joined) = pending.take().unwrap_or((index + 1, String::new()));
        // A comment line ends a continuation rather than being continued itself.
        let is_comment = physical.trim_start().starts_with('#');
        match physical.strip_suffix('\\') {
            Some(head) if !is_comment => {
                joined.push_str(head);
                pending = Some((number, joined));
                continue;
            }
            _ => joined.push_str(physical),
        }
        push_line(&mut lines, number, &joined);
    }
    if let Some((number, joined)) = pending {
        push_line(&mut lines, number, &joined);
    }
    lines
}

fn push_line(lines: &mut Vec<Line>, number: usize, joined: &str) {
    let text = without_comment(joined).trim();
    if !text.is_empty() {
        lines.push(Line { number, text: text.to_owned(), kind: kind_of(text) });
    }
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
    if let Some(value) = option_value(text, "-r", "--requirement") {
        return path_kind(value, LineKind::Requirements);
    }
    if let Some(value) = option_value(text, "-c", "--constraint") {
        return path_kind(value, LineKind::Constraints);
    }
    if let Some(value) = option_value(text, "-f", "--find-links") {
        return path_kind(value, LineKind::FindLinks);
    }
    if let Some(value) = option_value(text, "-e", "--editable") {
        return local(value);
    }
    if text.starts_with('-') {
        return LineKind::Option;
    }
    local(text)
}

/// The value of an option in any of its spellings: `-r x`, `-rx`, `--requirement x`, `--requirement=x`.
fn option_value<'a>(text: &'a str, short: &str, long: &str) -> Option<&'a str> {
    if let Some(rest) = text.strip_prefix(long) {
        return match rest.chars().next() {
            Some('=') => Some(rest[1..].trim()),
            Some(next) if next.is_whitespace() => Some(rest.trim()),
            _ => None,
        };
    }
    let rest = text.strip_prefix(short)?;
    (!text.starts_with("--")).then(|| rest.trim().trim_start_matches('=').trim())
}

fn path_kind(value: &str, kind: fn(String) -> LineKind) -> LineKind {
    let value = unquoted(value);
    if value.starts_with('/') || value.starts_with("file:") {
        LineKind::OutsidePath(value.to_owned())
    } else if value.contains("://") {
        LineKind::Option
    } else {
        kind(value.to_owned())
    }
}

/// A requirement that may be a path: pip takes one for a path when it starts with a dot or holds a
/// separator before any marker, extra or hash.
fn local(text: &str) -> LineKind {
    let text = unquoted(text);
    if let Some((_, url)) = text.split_once(" @ ") {
        let url = url.trim_start();
        return if url.starts_with("file:") {
            LineKind::OutsidePath(first_word(url).to_owned())
        } else {
            LineKind::Requirement
        };
    }
    let word = first_word(text);
    if word.starts_with("file:") || word.starts_with('/') {
        return LineKind::OutsidePath(word.to_owned());
    }
    let is_url = word.contains("://") || word.starts_with("git+");
    let is_archive = [".whl", ".tar.gz", ".zip", ".tar.bz2"].iter().any(|ending| word.ends_with(ending));
    if !is_url && (word.starts_with('.') || word.contains('/') || is_archive) {
        let path = word.split_once('[').map_or(word, |(path, _)| path);
        return LineKind::LocalPath(path.to_owned());
    }
    LineKind::Requirement
}

fn first_word(text: &str) -> &str {
    text.split([' ', '\t', ';']).next().unwrap_or(text)
}

fn unquoted(value: &str) -> &str {
    value.trim_matches(['"', '\''])
}

/// Requirement files by their path relative to the project, with `/` between components.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequirementFiles {
    files: BTreeMap<String, String>,
}

/// A requirement file that asks for what it cannot have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{position}: {message}")]
pub struct RequirementsError {
    /// The line at fault.
    pub position: Position,
    /// What is wrong with it.
    pub message: String,
    /// What the user can do.
    pub hint: Option<String>,
}

/// What pip must be able to see to read a set of requirement files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inputs {
    /// Requirement and constraint files, each once.
    pub(crate) files: BTreeSet<String>,
    /// Local projects, archives and folders of archives.
    pub(crate) paths: BTreeSet<String>,
    /// The logical lines in the order in which pip meets them, nested files in place.
    pub(crate) lines: Vec<String>,
}

impl RequirementFiles {
    /// Adds a file.
    pub fn insert(&mut self, path: String, text: String) {
        self.files.insert(path, text);
    }

    /// The text of a file.
    pub fn get(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// The files that `path` names with `-r` or `-c`, relative to the project, with the line that
    /// names each.
    pub fn references(&self, path: &str) -> Result<Vec<(usize, String)>, RequirementsError> {
        let mut found = Vec::new();
        for line in scan(self.get(path).unwrap_or_default()) {
            no_variable(path, &line)?;
            if let LineKind::Requirements(target) | LineKind::Constraints(target) = &line.kind {
                found.push((line.number, relative(path, line.number, target)?));
            }
        }
        Ok(found)
    }

    /// Everything that the files named need, in pip's order.
    pub(crate) fn inputs(&self, named: &[String]) -> Result<Inputs, RequirementsError> {
        let mut inputs = Inputs::default();
        for path in named {
            self.collect(path, &mut inputs)?;
        }
        Ok(inputs)
    }

    fn collect(&self, path: &str, inputs: &mut Inputs) -> Result<(), RequirementsError> {
        // Met before: pip would read it again to no effect, and a cycle would never end.
        if !inputs.files.insert(path.to_owned()) {
            return Ok(());
        }
        for line in scan(self.get(path).unwrap_or_default()) {
            match &line.kind {
                LineKind::Requirements(target) => {
                    self.collect(&relative(path, line.number, target)?, inputs)?;
                }
                LineKind::Constraints(target) => {
                    inputs.lines.push(format!("[constraints {}]", inputs.files.len()));
                    self.collect(&relative(path, line.number, target)?, inputs)?;
                    inputs.lines.push("[end]".to_owned());
                }
                LineKind::FindLinks(target) => {
                    let target = relative(path, line.number, target)?;
                    inputs.lines.push(format!("--find-links {target}"));
                    inputs.paths.insert(target);
                }
                LineKind::LocalPath(target) => {
                    inputs.paths.insert(inside(path, line.number, "", target)?);
                    inputs.lines.push(line.text);
                }
                LineKind::OutsidePath(target) => return Err(outside(path, line.number, target)),
                LineKind::Option | LineKind::Requirement => inputs.lines.push(line.text),
            }
        }
        Ok(())
    }
}

/// Refuses `${NAME}`, which pip would look up in an environment that the sandbox does not have.
fn no_variable(from: &str, line: &Line) -> Result<(), RequirementsError> {
    let Some(variable) = variable(&line.text) else { return Ok(()) };
    Err(RequirementsError {
        position: Position::line(from, line.number),
        message: format!("`{variable}` has no value: the sandbox does not have your environment"),
        hint: Some(
            "write the value itself; an index with a password goes into PIP_INDEX_URL or PIP_EXTRA_INDEX_URL"
                .to_owned(),
        ),
    })
}

/// The first `${NAME}` of a line, as pip recognises it: upper case, digits and underscores.
fn variable(text: &str) -> Option<&str> {
    text.match_indices("${").find_map(|(start, _)| {
        let name = &text[start + 2..];
        let end = name.find('}')?;
        let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        (end > 0 && name[..end].chars().all(fits)).then(|| &text[start..=start + 2 + end])
    })
}

/// `target` as a path from the project, when the file `from` names it relative to itself.
fn relative(from: &str, number: usize, target: &str) -> Result<String, RequirementsError> {
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    inside(from, number, folder, target)
}

/// `folder/target` with `.` and `..` resolved; an error when it leaves the project.
fn inside(from: &str, number: usize, folder: &str, target: &str) -> Result<String, RequirementsError> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err(outside(from, number, target));
                }
            }
            part => parts.push(part),
        }
    }
    Ok(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

fn outside(from: &str, number: usize, target: &str) -> RequirementsError {
    RequirementsError {
        position: Position::line(from, number),
        message: format!("`{target}` is outside the project"),
        hint: Some(
            "the sandbox sees nothing outside the project: move it inside, or put lbx.toml in a folder above both"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds(text: &str) -> Vec<LineKind> {
        scan(text).into_iter().map(|line| line.kind).collect()
    }

    #[test]
    fn every_spelling_of_an_option_is_understood() {
        for text in ["-r a.txt", "-ra.txt", "--requirement a.txt", "--requirement=a.txt", "-r 'a.txt'"] {
            assert_eq!(kinds(text), [LineKind::Requirements("a.txt".into())], "{text}");
        }
        assert_eq!(kinds("-c c.txt"), [LineKind::Constraints("c.txt".into())]);
        assert_eq!(kinds("-f wheels"), [LineKind::FindLinks("wheels".into())]);
        assert_eq!(
            kinds("--require-hashes\n--index-url https://h/simple"),
            [LineKind::Option, LineKind::Option]
        );
    }

    #[test]
    fn comments_and_continuations_are_joined_as_pip_joins_them() {
        let lines =
            scan("# top\nrequests==2 \\\n  --hash=sha256:ab # why\n\nurl @ https://h/x#egg=1\nsix\\\n");
        let texts: Vec<_> = lines.iter().map(|line| (line.number, line.text.as_str())).collect();
        assert_eq!(
            texts,
            [(2, "requests==2   --hash=sha256:ab"), (5, "url @ https://h/x#egg=1"), (6, "six")]
        );
    }

    #[test]
    fn paths_are_told_from_requirements() {
        assert_eq!(kinds("./lib"), [LineKind::LocalPath("./lib".into())]);
        assert_eq!(kinds("-e libs/a[extra]"), [LineKind::LocalPath("libs/a".into())]);
        assert_eq!(
            kinds("wheels/x-1-py3-none-any.whl"),
            [LineKind::LocalPath("wheels/x-1-py3-none-any.whl".into())]
        );
        assert_eq!(kinds("/srv/x"), [LineKind::OutsidePath("/srv/x".into())]);
        assert_eq!(kinds("x @ file:///srv/x"), [LineKind::OutsidePath("file:///srv/x".into())]);
        for text in
            ["requests[socks]>=2; python_version < '3.12'", "x @ https://h/a/b.whl", "git+https://h/a/b"]
        {
            assert_eq!(kinds(text), [LineKind::Requirement], "{text}");
        }
    }

    #[test]
    fn nested_files_are_relative_to_the_file_that_names_them() {
        let mut files = RequirementFiles::default();
        files.insert("functions/a/r.txt".into(), "-r ../../common/base.txt\nsix\n".into());
        files.insert("common/base.txt".into(), "-r more.txt\n-c limits.txt\nidna\n".into());
        assert_eq!(files.references("functions/a/r.txt").unwrap(), [(1, "common/base.txt".to_owned())]);
        let inputs = files.inputs(&["functions/a/r.txt".to_owned()]).unwrap();
        let seen: Vec<_> = inputs.files.iter().map(String::as_str).collect();
        assert_eq!(seen, ["common/base.txt", "common/limits.txt", "common/more.txt", "functions/a/r.txt"]);
    }

    #[test]
    fn a_file_that_names_itself_ends() {
        let mut files = RequirementFiles::default();
        files.insert("r.txt".into(), "-r r.txt\nsix\n".into());
        assert_eq!(files.inputs(&["r.txt".to_owned()]).unwrap().lines, ["six"]);
    }

    #[test]
    fn a_path_outside_the_project_is_refused_with_its_line() {
        let mut files = RequirementFiles::default();
        files.insert("a/r.txt".into(), "six\n-r ../../up.txt\n".into());
        let error = files.references("a/r.txt").unwrap_err();
        assert_eq!(error.to_string(), "a/r.txt:2: `../../up.txt` is outside the project");
    }

    #[test]
    fn a_variable_is_refused_with_its_line_and_a_comment_is_none() {
        let mut files = RequirementFiles::default();
        let text = "six # ${TOKEN}\n# ${TOKEN}\nidna==$X ${x} ${}\none @ \\\n  https://u:${MY_TOKEN2}@h/x\n";
        files.insert("r.txt".into(), text.into());
        let error = files.references("r.txt").unwrap_err();
        assert_eq!(
            error.to_string(),
            "r.txt:4: `${MY_TOKEN2}` has no value: the sandbox does not have your environment"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_scanner_panic_or_invent_lines(text in "\\PC{0,200}|[-rcef \\\\#\n./a=\"']{0,80}") {
            for line in scan(&text) {
                prop_assert!(line.number >= 1 && line.number <= text.lines().count().max(1));
                prop_assert!(!line.text.is_empty());
            }
        }
    }
}
