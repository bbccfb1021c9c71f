//! Text that may have a password in it.

use std::fmt;

use serde::{Serialize, Serializer};

/// Text as the user wrote it, perhaps with a password in an address. It is used as it is, and shown without.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hidden(String);

impl Hidden {
    /// Takes a text in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for whoever needs the password.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", shown(&self.0))
    }
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&shown(&self.0))
    }
}

/// The text without what stands before the `@` of an address, and without the values of its query: either may be
/// what nobody else must see.
fn shown(text: &str) -> String {
    let mut parts = text.split("://");
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        all.push_str("://");
        let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`');
        let (address, rest) = part.split_at(part.find(is_end).unwrap_or(part.len()));
        let (address, fragment) = address.split_at(address.find('#').unwrap_or(address.len()));
        let (address, query) = address.split_at(address.find('?').unwrap_or(address.len()));
        // A password that was not encoded may have a slash in it, so the last `@` before the query counts, unless
        // what stands before it is a host and a path.
        let (authority, path) = address.split_at(address.find('/').unwrap_or(address.len()));
        match authority.rsplit_once('@') {
            Some((_, host)) => all.extend([host, path]),
            None => match path.rsplit_once('@').filter(|_| authority.contains(':') && !is_port(authority)) {
                Some((_, after)) => all.extend(["…@", after]),
                None => all.push_str(address),
            },
        }
        all.push_str(if query.is_empty() { "" } else { "?…" });
        all.push_str(fragment);
        all.push_str(rest);
    }
    all
}

/// Whether what stands after the colon of `host:what` is a port.
fn is_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(_, port)| port.chars().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_what_is_secret_in_it() {
        for (text, expected) in [
            ("six==1", "six==1"),
            ("--index-url https://me:hush@h:8/simple", "--index-url https://h:8/simple"),
            ("a @ https://token@h/x.whl#sha256=1 ; x", "a @ https://h/x.whl#sha256=1 ; x"),
            ("https://h/x?token=hush#egg=a https://b:hush@c", "https://h/x?…#egg=a https://c"),
            ("git+ssh://git@h/a.git@main", "git+ssh://h/a.git@main"),
            ("git+https://h:8/a.git@main", "git+https://h:8/a.git@main"),
            ("https://me:hu/sh@h/x", "https://…@h/x"),
            ("-i 'https://a:b@c'", "-i 'https://c'"),
        ] {
            assert_eq!(Hidden::new(text).to_string(), expected);
            assert!(!format!("{:?}", Hidden::new(text)).contains("hush"), "{text}");
        }
    }
}
