//! Addresses: what may be in them that nobody must see, as a matter of types.
//!
//! An [`Address`] is used and not shown. What is shown, logged, recorded or kept is a [`SafeUrl`], which has neither
//! user nor password nor the values of a query.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::Error;

/// A word that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Takes a password in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password itself, for whoever looks for it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Who asks. The user's name may be a token, so it is not shown either.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub(crate) user: String,
    pub(crate) password: Option<Password>,
}

impl Login {
    /// A user with a password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: Some(Password::new(password)) }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// The address of an index, a page or a file, with what is needed to ask there.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Without user and password.
    url: Url,
    login: Option<Login>,
}

impl Address {
    /// Reads a web address as the user wrote it; `what` it is of is named when it is none.
    pub fn parse(what: &str, text: &str) -> Result<Self, Error> {
        // The text is not repeated: it may have a password in it.
        let malformed = |problem: String| Error::Setting { what: what.to_owned(), problem };
        let url = Url::parse(text.trim()).map_err(|error| malformed(format!("is no address: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(malformed(format!("is no web address, but one of the scheme {}", url.scheme())));
        }
        Ok(Self::from_url(url))
    }

    /// Takes user and password out of a URL.
    pub(crate) fn from_url(mut url: Url) -> Self {
        let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let user = decode(url.username());
        let password = url.password().map(|password| Password(decode(password)));
        let login = (!user.is_empty() || password.is_some()).then_some(Login { user, password });
        // A web address has a place for both.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Self { url, login }
    }

    /// A link as a stranger wrote it: user and password in it are not ours to use.
    pub(crate) fn link(base: &Url, href: &str) -> Option<Self> {
        let url = base.join(href.trim()).ok()?;
        (matches!(url.scheme(), "http" | "https") && url.has_host())
            .then(|| Self { login: None, ..Self::from_url(url) })
    }

    /// The address as somebody in particular asks there.
    #[must_use]
    pub fn with_login(self, login: Login) -> Self {
        Self { login: Some(login), ..self }
    }

    /// The address as it may be shown.
    pub fn safe(&self) -> SafeUrl {
        SafeUrl::of(&self.url)
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> Origin {
        Origin::of(&self.url)
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// The last part of the path, decoded: the name of a file.
    pub(crate) fn file_name(&self) -> Option<String> {
        let last = self.url.path_segments()?.next_back()?;
        Some(percent_encoding::percent_decode_str(last).decode_utf8().ok()?.into_owned())
    }

    /// The page of a project below an index.
    pub(crate) fn project(&self, project: &str) -> Self {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/{project}/", self.url.path().trim_end_matches('/')));
        url.set_query(None);
        url.set_fragment(None);
        Self { url, login: self.login.clone() }
    }

    /// The same with something after its path.
    pub(crate) fn with_suffix(&self, suffix: &str) -> Self {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{suffix}", self.url.path()));
        url.set_fragment(None);
        Self { url, login: self.login.clone() }
    }

    /// As it may be kept: without what only the server that gave it out needs, a signature, often.
    fn kept(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        url.into()
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.safe())
    }
}

/// In the store: without a login, a query or a fragment.
impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.kept().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Url::parse(&text).map(Self::from_url).map_err(serde::de::Error::custom)
    }
}

/// An address as it may be shown: no user, no password, no fragment, and nothing of a query but that there is one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SafeUrl(String);

impl SafeUrl {
    pub(crate) fn of(url: &Url) -> Self {
        let mut shown = url.clone();
        let _ = shown.set_username("");
        let _ = shown.set_password(None);
        shown.set_fragment(None);
        shown.set_query(None);
        Self(if url.query().is_some() { format!("{shown}?…") } else { shown.to_string() })
    }

    /// A folder of the user's.
    pub(crate) fn folder(path: &std::path::Path) -> Self {
        Self(format!("file://{}", path.display()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Scheme, host and port: what a login belongs to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    pub(crate) fn of(url: &Url) -> Self {
        Self {
            scheme: url.scheme().to_owned(),
            host: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default().unwrap_or(0),
        }
    }

    /// Reads `host`, `host:port`, or either with a scheme; without one, HTTPS is meant.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        Address::parse("a login's host", &with_scheme).map(|address| address.origin())
    }

    /// The host, as it stands in an address.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.scheme == "https"
    }

    /// Whether plain HTTP to it never leaves this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        let bare = lbx_net::bare_host(&self.host);
        bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Host and port, where the port is not the scheme's own.
    pub(crate) fn authority(&self) -> String {
        match (self.scheme.as_str(), self.port) {
            ("https", 443) | ("http", 80) => self.host.clone(),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority())
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse("an index", text).expect(text)
    }

    #[test]
    fn what_is_secret_in_an_address_is_never_shown() {
        let address = address("https://me:hush%40@index.test:8443/simple/a?token=quiet#x");
        assert_eq!(address.safe().to_string(), "https://index.test:8443/simple/a?…");
        assert_eq!(address.login(), Some(&Login::new("me", "hush@")));
        let shown = format!("{address:?} {:?} {:?}", address.login(), address.origin());
        assert!(!shown.contains("hush") && !shown.contains("quiet") && !shown.contains("me:"), "{shown}");
        let kept = serde_json::to_string(&address).expect("JSON");
        assert_eq!(kept, "\"https://index.test:8443/simple/a\"");
        let error = Address::parse("an index", "https://me:hush@[::1/").expect_err("malformed");
        assert!(!error.to_string().contains("hush"), "{error}");
    }

    #[test]
    fn only_the_web_is_an_address() {
        for bad in ["", "simple", "file:///etc/passwd", "ftp://a.test/", "data:text/html,x", "http://"] {
            assert!(Address::parse("an index", bad).is_err(), "{bad}");
        }
        assert_eq!(
            Address::parse("the index", "ftp://a.test/").expect_err("no web address").to_string(),
            "the index is no web address, but one of the scheme ftp"
        );
    }

    #[test]
    fn a_projects_page_is_below_the_index() {
        let page = |text: &str| address(text).project("six").url().to_string();
        assert_eq!(page("https://index.test/simple"), "https://index.test/simple/six/");
        assert_eq!(page("https://u:p@index.test/simple/"), "https://index.test/simple/six/");
        assert_eq!(page("https://index.test"), "https://index.test/six/");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |text: &str| Origin::parse(text).expect(text);
        assert_eq!(origin("index.test"), origin("https://INDEX.test:443/x"));
        assert_ne!(origin("index.test"), origin("http://index.test:443"));
        assert_ne!(origin("index.test"), origin("index.test:8443"));
        assert_eq!(origin("index.test:8443").to_string(), "https://index.test:8443");
        assert!(origin("http://[::1]:1").is_loopback() && !origin("localhost.test").is_loopback());
    }

    #[test]
    fn a_strangers_link_brings_no_login_and_leads_to_the_web_only() {
        let base = Url::parse("https://index.test/simple/six/").expect("a URL");
        let link = |href: &str| Address::link(&base, href);
        let found = link(" ../../files/six-1.0.tar.gz#sha256=00 ").expect("a link");
        assert_eq!(found.safe().as_str(), "https://index.test/files/six-1.0.tar.gz");
        assert_eq!(link("https://u:p@b.test/x").expect("a link").login(), None);
        for bad in ["file:///etc/passwd", "javascript:alert(1)", "https://[", "mailto:me@a.test"] {
            assert!(link(bad).is_none(), "{bad}");
        }
    }
}
