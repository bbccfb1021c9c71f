//! Who asks: the logins that the user has, and which of them a request may carry.
//!
//! A login belongs to an origin: scheme, host and port. It goes there and nowhere else; in particular it does not
//! follow a redirect, whoever that leads to.

mod keyring;
mod netrc;

use std::time::Duration;

pub use self::keyring::Keyring;
pub use self::netrc::Netrc;

use crate::{Address, Login, Origin};

/// Logins besides those in addresses.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// For origins.
    pub hosts: Vec<(Origin, Login)>,
    /// From a file.
    pub netrc: Netrc,
    /// From a program, which is asked when a server says that it wants a login.
    pub keyring: Option<Keyring>,
}

/// How long a program may think.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

impl Credentials {
    /// All logins that are known without asking a program, each with the host that it is for.
    pub(crate) fn logins(&self) -> impl Iterator<Item = (&str, &Login)> {
        self.hosts.iter().map(|(origin, login)| (origin.host(), login)).chain(self.netrc.logins())
    }

    /// The login for an address: its own, that of the index that it comes from, one for its origin, one from the
    /// file. What `named` says is whether the user named the host.
    pub(crate) fn login(&self, address: &Address, index: Option<&Address>, named: bool) -> Option<Login> {
        let origin = address.origin();
        let index = index.filter(|index| index.origin() == origin);
        let own = address.login().or_else(|| index?.login());
        if let Some(login) = own.filter(|login| login.password.is_some()) {
            return Some(login.clone());
        }
        let found = self.hosts.iter().find(|(known, _)| *known == origin).map(|(_, login)| login);
        let found = found.or_else(|| self.netrc.login(origin.host(), named));
        // A user without a password is one of these, or somebody without a password.
        match own {
            Some(own) => found.filter(|found| found.user == own.user).or(Some(own)).cloned(),
            None => found.cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse("an address", text).expect(text)
    }

    #[test]
    fn a_login_is_its_origins_alone() {
        let credentials = Credentials {
            hosts: vec![(Origin::parse("files.test").expect("an origin"), Login::new("f", "1"))],
            netrc: Netrc::parse("machine netrc.test login n password 2\ndefault login d password 3")
                .expect("a file"),
            keyring: None,
        };
        let index = address("https://i:0@index.test/simple");
        let login = |text: &str, named| credentials.login(&address(text), Some(&index), named);
        assert_eq!(login("https://index.test/f/a.whl", false), Some(Login::new("i", "0")));
        for other in ["http://index.test/f/a.whl", "https://index.test:444/", "https://a.index.test/"] {
            assert_eq!(login(other, false), None, "{other}");
        }
        assert_eq!(login("https://files.test/a.whl", false), Some(Login::new("f", "1")));
        assert_eq!(login("https://netrc.test/a.whl", false), Some(Login::new("n", "2")));
        assert_eq!(login("https://u:p@files.test/a.whl", false), Some(Login::new("u", "p")));
        assert_eq!(login("https://other.test/", true), Some(Login::new("d", "3")), "the user named it");
        assert_eq!(login("https://other.test/", false), None, "somebody else did");
    }

    #[test]
    fn a_user_without_a_password_finds_it_or_has_none() {
        let netrc = Netrc::parse("machine a.test login me password 1").expect("a file");
        let credentials = Credentials { netrc, ..Credentials::default() };
        let login = |text: &str| credentials.login(&address(text), None, true);
        assert_eq!(login("https://me@a.test/"), Some(Login::new("me", "1")));
        assert_eq!(login("https://token@a.test/"), Some(Login { user: "token".to_owned(), password: None }));
    }
}
