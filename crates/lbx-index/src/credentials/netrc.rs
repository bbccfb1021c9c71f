//! `.netrc`: logins by host, as curl and pip read them.

use crate::{Error, Login};

const FILE: &str = ".netrc";

/// The logins of a file.
#[derive(Debug, Clone, Default)]
pub struct Netrc {
    machines: Vec<(String, Login)>,
    default: Option<Login>,
}

impl Netrc {
    /// Reads a file's text. Macros are passed over.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut found = Self::default();
        let mut tokens = Tokens { text, line: 1 };
        while let Some(word) = tokens.next()? {
            match word.as_str() {
                "machine" => {
                    let host = tokens.value("machine")?;
                    let login = tokens.login()?;
                    found.machines.push((host.to_ascii_lowercase(), login));
                }
                // Nothing after it counts, as everywhere.
                "default" => {
                    found.default = Some(tokens.login()?);
                    return Ok(found);
                }
                "macdef" => tokens.skip_macro(),
                _ => return Err(tokens.error("begins with a word that means nothing there")),
            }
        }
        Ok(found)
    }

    /// All logins, each with its host.
    pub(super) fn logins(&self) -> impl Iterator<Item = (&str, &Login)> {
        let default = self.default.iter().map(|login| ("any host", login));
        self.machines.iter().map(|(host, login)| (host.as_str(), login)).chain(default)
    }

    /// The login for a host. The one for all hosts is for those that the user named: others could ask for it.
    pub(crate) fn login(&self, host: &str, named: bool) -> Option<&Login> {
        let bare = lbx_net::bare_host(host);
        let found = self.machines.iter().find(|(machine, _)| lbx_net::bare_host(machine) == bare);
        found.map(|(_, login)| login).or_else(|| self.default.as_ref().filter(|_| named))
    }
}

struct Tokens<'t> {
    text: &'t str,
    line: usize,
}

impl Tokens<'_> {
    fn error(&self, problem: &str) -> Error {
        Error::Configuration { file: FILE, line: self.line, problem: problem.to_owned() }
    }

    fn take(&mut self) -> Option<char> {
        let next = self.text.chars().next()?;
        self.text = &self.text[next.len_utf8()..];
        self.line += usize::from(next == '\n');
        Some(next)
    }

    /// The next word, also one that is in quotes; comments are none. A value may begin with `#`.
    fn word(&mut self, value: bool) -> Result<Option<String>, Error> {
        loop {
            let first = loop {
                match self.take() {
                    None => return Ok(None),
                    Some(blank) if blank.is_whitespace() => {}
                    Some(other) => break other,
                }
            };
            if first == '#' && !value {
                while self.take().is_some_and(|c| c != '\n') {}
                continue;
            }
            return self.rest(first).map(Some);
        }
    }

    fn rest(&mut self, first: char) -> Result<String, Error> {
        let quoted = first == '"';
        let mut word = String::new();
        let mut next = if quoted { self.take() } else { Some(first) };
        loop {
            match next {
                None if quoted => return Err(self.error("leaves a quote open")),
                None => return Ok(word),
                Some('"') if quoted => return Ok(word),
                Some(blank) if !quoted && blank.is_whitespace() => return Ok(word),
                Some('\\') => word.extend(self.take()),
                Some(other) => word.push(other),
            }
            next = self.take();
        }
    }

    fn next(&mut self) -> Result<Option<String>, Error> {
        self.word(false)
    }

    fn value(&mut self, of: &str) -> Result<String, Error> {
        self.word(true)?.ok_or_else(|| self.error(&format!("ends after `{of}`")))
    }

    /// What follows a host's name.
    fn login(&mut self) -> Result<Login, Error> {
        let (mut user, mut password) = (String::new(), String::new());
        loop {
            let before = (self.text, self.line);
            match self.next()?.as_deref() {
                Some("login" | "user") => user = self.value("login")?,
                Some("password") => password = self.value("password")?,
                Some("account") => drop(self.value("account")?),
                _ => {
                    (self.text, self.line) = before;
                    return Ok(Login::new(user, password));
                }
            }
        }
    }

    /// A macro goes on until an empty line.
    fn skip_macro(&mut self) {
        let end = self.text.find("\n\n").map_or(self.text.len(), |found| found + 2);
        self.line += self.text[..end].matches('\n').count();
        self.text = &self.text[end..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn logins_are_found_by_host() {
        let netrc = Netrc::parse(
            "# mine\nmachine Index.test\n  login me\n  password \"hu sh\\\"\"\nmachine b.test login x # no\n\
             macdef init\nmachine c.test\n\nmachine d.test password #1 account y login z\n\
             default login any password one\nmachine e.test login never password never",
        )
        .expect("a file");
        let login = |host: &str| netrc.login(host, false).cloned();
        assert_eq!(login("index.test"), Some(Login::new("me", "hu sh\"")));
        assert_eq!(login("b.test"), Some(Login::new("x", "")));
        assert_eq!(login("d.test"), Some(Login::new("z", "#1")));
        assert_eq!((login("c.test"), login("e.test")), (None, None));
        assert_eq!(netrc.login("e.test", true), Some(&Login::new("any", "one")));
        assert!(!format!("{netrc:?}").contains("hu sh"), "{netrc:?}");
    }

    #[test]
    fn what_is_no_such_file_is_an_error_with_its_line_and_without_its_words() {
        let message = |text: &str| Netrc::parse(text).expect_err(text).to_string();
        assert_eq!(message("\nhush"), "line 2 of .netrc begins with a word that means nothing there");
        assert_eq!(message("machine a login"), "line 1 of .netrc ends after `login`");
        assert_eq!(message("machine a password \"x"), "line 1 of .netrc leaves a quote open");
        assert!(Netrc::parse("").is_ok() && Netrc::parse("# only this").is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(machine|login|password|default|macdef|\"|#|\\\\| |\n|a\\.test|ä){0,30}") {
            let _ = Netrc::parse(&text);
        }

        #[test]
        fn what_is_written_is_found(user in "[a-z]{1,8}", password in "[!$-\\[\\]-~][!#-\\[\\]-~]{0,20}") {
            let text = format!("machine a.test login {user} password {password}\n");
            let netrc = Netrc::parse(&text).expect("a file");
            prop_assert_eq!(netrc.login("a.test", false), Some(&Login::new(user, password)));
        }
    }
}
