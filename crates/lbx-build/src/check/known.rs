//! Credentials that are known here by their value, and that must be in no file of the user's own: the logins of package
//! indexes, and what the environment has for AWS and for git hosts.

use std::fmt;

use aho_corasick::AhoCorasick;
use lbx_index::Password;

use super::facts::line_of;
use crate::engine::Host;

/// Variables whose values are credentials, on developers' machines and in CI.
const VARIABLES: [&str; 6] = [
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "CI_JOB_TOKEN",
    "GH_TOKEN",
    "GITHUB_TOKEN",
    "GITLAB_TOKEN",
];
/// What has fewer characters may be a word by chance, and is one if it has letters alone. Characters.
const SHORTEST: usize = 8;
/// So many characters are none by chance, whatever they are.
const LONG: usize = 20;

/// Credentials that are looked for. They are never shown.
#[derive(Clone, Default)]
pub(crate) struct Known {
    searcher: Option<AhoCorasick>,
    /// Whose they are, in words, in the order of the searcher.
    names: Vec<String>,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known(…)")
    }
}

impl Known {
    /// What this host knows, and the project.
    pub(crate) fn of(host: &Host, indexes: impl IntoIterator<Item = (String, Password)>) -> Self {
        let indexes = indexes.into_iter().chain(host.indexes.passwords());
        let indexes = indexes
            .map(|(name, password)| (format!("the password for {name}"), password.expose().to_owned()));
        let variables = VARIABLES
            .iter()
            .filter_map(|name| Some((format!("the value of the variable {name}"), (host.variable)(name)?)));
        Self::new(indexes.chain(variables))
    }

    /// These, each with what it is; those that are too short to be told from other words are left out.
    fn new(all: impl IntoIterator<Item = (String, String)>) -> Self {
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for (name, value) in all {
            if !is_telling(&value) {
                continue;
            }
            let encoded: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
            for spelling in [Some(&value), Some(&encoded).filter(|encoded| **encoded != value)] {
                if let Some(spelling) = spelling.filter(|spelling| !values.contains(*spelling)) {
                    values.push(spelling.clone());
                    names.push(name.clone());
                }
            }
        }
        // Too much to be searched for is too much to be a password.
        let searcher = (!values.is_empty()).then(|| AhoCorasick::new(&values).ok()).flatten();
        Self { searcher, names }
    }

    /// What of it a file has, each with the line of the first place.
    pub(super) fn find(&self, content: &[u8]) -> Vec<(String, usize)> {
        let mut found: Vec<(String, usize)> = Vec::new();
        for place in self.searcher.iter().flat_map(|searcher| searcher.find_overlapping_iter(content)) {
            let name = &self.names[place.pattern().as_usize()];
            if !found.iter().any(|(known, _)| known == name) {
                found.push((name.clone(), line_of(content, place.start())));
            }
        }
        found
    }
}

/// Whether a value is hardly anything else by chance.
fn is_telling(value: &str) -> bool {
    let has = |is: fn(&char) -> bool| value.chars().any(|c| is(&c));
    let count = value.chars().count();
    count >= LONG || count >= SHORTEST && has(|c| c.is_alphabetic()) && has(|c| !c.is_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let all = [("a", "correct-horse/9"), ("b", "short1"), ("c", "password"), ("d", "correct-horse/9")];
        Known::new(all.map(|(name, value)| (name.to_owned(), value.to_owned())))
    }

    #[test]
    fn what_is_known_is_found_in_every_spelling_with_its_line() {
        assert_eq!(known().find(b"x\ny = 'correct-horse/9'\n"), [("a".to_owned(), 2)]);
        assert_eq!(known().find(b"https://u:correct-horse%2F9@h/"), [("a".to_owned(), 1)]);
        assert_eq!(known().find(b"\0\x01correct-horse/9"), [("a".to_owned(), 1)], "in any kind of file");
    }

    #[test]
    fn what_may_be_a_word_by_chance_is_not_looked_for() {
        assert_eq!(known().find(b"short1 password correct-horse"), []);
        assert_eq!(Known::default().find(b"anything"), []);
    }

    #[test]
    fn nothing_of_it_is_shown() {
        assert_eq!(format!("{:?}", known()), "Known(…)");
    }
}
