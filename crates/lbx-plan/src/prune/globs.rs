//! Patterns of the user's own, as `.gitignore` has them.

use std::fmt;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::{Serialize, Serializer};

/// Patterns in order: the last one that matches counts, `!` takes back, a `/` in one ties it to the top, one at its end
/// means folders, and what is in a folder that matches, matches.
#[derive(Clone, Debug)]
pub struct Globs {
    lines: Vec<String>,
    matcher: Gitignore,
}

/// A pattern that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{glob}` is no pattern: {what}")]
pub struct GlobError {
    /// Its place in the list, from zero.
    pub index: usize,
    /// The pattern as written.
    pub glob: String,
    /// What is wrong with it.
    pub what: String,
}

impl Globs {
    /// Reads patterns. One that could match nothing, as an empty one or a comment, is an error.
    pub fn new(lines: Vec<String>) -> Result<Self, GlobError> {
        let mut builder = GitignoreBuilder::new("");
        for (index, line) in lines.iter().enumerate() {
            let wrong = |what: String| GlobError { index, glob: line.clone(), what };
            if line.trim().is_empty() || line.starts_with('#') {
                return Err(wrong("it matches nothing".to_owned()));
            }
            builder.add_line(None, line).map_err(|error| wrong(words(&error)))?;
        }
        let matcher = builder.build().map_err(|error| GlobError {
            index: 0,
            glob: lines.join(" "),
            what: words(&error),
        })?;
        Ok(Self { lines, matcher })
    }

    /// The pattern that takes a path, if one does. The path is that of a file, with `/` between its parts.
    ///
    /// As for git, nothing is taken back out of a folder that is taken.
    pub fn matched(&self, path: &str) -> Option<&str> {
        if self.matcher.is_empty() {
            return None;
        }
        let path = path.trim_start_matches('/');
        let folders = path.match_indices('/').map(|(end, _)| (&path[..end], true));
        folders.chain([(path, false)]).find_map(|(path, is_folder)| {
            match self.matcher.matched(path, is_folder) {
                Match::Ignore(glob) => Some(glob.original()),
                Match::None | Match::Whitelist(_) => None,
            }
        })
    }

    /// The patterns as written.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

/// The library's words without the pattern, which is said already.
fn words(error: &ignore::Error) -> String {
    match error {
        ignore::Error::Glob { err, .. } => err.clone(),
        other => other.to_string(),
    }
}

impl Default for Globs {
    fn default() -> Self {
        Self { lines: Vec::new(), matcher: Gitignore::empty() }
    }
}

impl PartialEq for Globs {
    fn eq(&self, other: &Self) -> bool {
        self.lines == other.lines
    }
}

impl Eq for Globs {}

impl Serialize for Globs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.lines.serialize(serializer)
    }
}

impl fmt::Display for Globs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn globs(lines: &[&str]) -> Globs {
        Globs::new(lines.iter().map(|line| (*line).to_owned()).collect()).unwrap()
    }

    /// Each verdict here is that of `git check-ignore --no-index` for the same patterns.
    #[test]
    fn patterns_mean_what_they_mean_to_git() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&["*.md"], "a/b.md", true),
            (&["/*.md"], "a/b.md", false),
            (&["/*.md"], "b.md", true),
            (&["docs/"], "a/docs/b", true),
            (&["docs/"], "docs", false),
            (&["a/docs"], "b/a/docs/c", false),
            (&["a/docs"], "a/docs/c", true),
            (&["**/a/docs"], "b/a/docs/c", true),
            (&["a/**/c"], "a/c", true),
            (&["a/**/c"], "a/b/b/c", true),
            (&["a/*"], "a/b/c", true),
            (&["*.md", "!b.md"], "a/b.md", false),
            (&["!b.md", "*.md"], "a/b.md", true),
            (&["docs/", "!docs/b.md"], "docs/b.md", true),
            (&["docs/*", "!docs/b.md"], "docs/b.md", false),
            (&["\\!a"], "!a", true),
            (&["\\#a"], "#a", true),
            (&["[ab].c"], "x/b.c", true),
            (&["A"], "a", false),
        ];
        for (lines, path, taken) in cases {
            assert_eq!(globs(lines).matched(path).is_some(), *taken, "{lines:?} {path}");
        }
    }

    #[test]
    fn the_pattern_that_takes_a_path_is_named() {
        assert_eq!(globs(&["*.c", "docs/"]).matched("docs/a.txt"), Some("docs/"));
    }

    #[test]
    fn a_pattern_that_can_match_nothing_is_refused_with_its_place() {
        let wrong = |line: &str| Globs::new(vec!["a".to_owned(), line.to_owned()]).unwrap_err();
        assert_eq!(wrong("a{b").index, 1);
        assert!(wrong("a{b").to_string().starts_with("`a{b` is no pattern: "));
        assert_eq!(wrong("  ").what, "it matches nothing");
        assert_eq!(wrong("# a").what, "it matches nothing");
    }

    proptest! {
        #[test]
        fn no_pattern_and_no_path_make_it_panic(line in "\\PC{0,20}", path in "\\PC{0,30}") {
            if let Ok(globs) = Globs::new(vec![line]) {
                globs.matched(&path);
            }
        }
    }
}
