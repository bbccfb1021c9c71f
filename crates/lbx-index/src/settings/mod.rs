//! Which indexes are asked, how, and where what they have is kept.
//!
//! The values come from the caller, who reads the environment, `pip.conf` and files; the functions that make sense of
//! their text are in [`pip_conf`] and in [`crate::Netrc`].

pub mod pip_conf;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use lbx_net::ProxyOptions;
use url::Url;

use crate::credentials::Credentials;
use crate::{Address, Error, Login, Origin, Password};

/// Everything there is to set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The index; none, where nobody has named one.
    pub index: Option<Address>,
    /// Further indexes.
    pub extra: Vec<Address>,
    /// Pages of links, and folders.
    pub find_links: Vec<FindLinks>,
    /// Ask no index: what `find_links` has is all there is.
    pub no_index: bool,
    /// What it means that several indexes have a project.
    pub strategy: Strategy,
    /// Addresses of files that the user's requirements name. A session may allow them.
    pub direct: Vec<Address>,
    /// Who asks.
    pub credentials: Credentials,
    /// The proxy. Without one, connections are direct.
    pub proxy: Option<ProxyOptions>,
    /// CA certificates to trust besides the system's, each a PEM file's bytes.
    pub ca_pem: Vec<Vec<u8>>,
    /// What to show to servers that want a certificate of their clients.
    pub client_certificate: Option<ClientCertificate>,
    /// Hosts that may be spoken to over plain HTTP, and over TLS with any certificate.
    pub trusted_hosts: Vec<TrustedHost>,
    /// Open no socket to an index: everything must be in the store.
    pub offline: bool,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How often a request is made before its failure counts; progress starts the count anew.
    pub attempts: u32,
    /// The pause after the first failure; it doubles with each further one.
    pub backoff: Duration,
    /// How large things may be.
    pub limits: Limits,
    /// The store's own folder.
    pub store: PathBuf,
}

impl Settings {
    /// The defaults for one index.
    pub fn new(index: Address, store: impl Into<PathBuf>) -> Self {
        Self { index: Some(index), ..Self::without_index(store) }
    }

    /// The defaults where no index is known yet.
    pub fn without_index(store: impl Into<PathBuf>) -> Self {
        Self {
            index: None,
            extra: Vec::new(),
            find_links: Vec::new(),
            no_index: false,
            strategy: Strategy::BestMatch,
            direct: Vec::new(),
            credentials: Credentials::default(),
            proxy: None,
            ca_pem: Vec::new(),
            client_certificate: None,
            trusted_hosts: Vec::new(),
            offline: false,
            timeouts: Timeouts::default(),
            attempts: 5,
            backoff: Duration::from_millis(500),
            limits: Limits::default(),
            store: store.into(),
        }
    }

    /// The indexes that are asked, in order.
    pub(crate) fn indexes(&self) -> Vec<&Address> {
        if self.no_index { Vec::new() } else { self.index.iter().chain(&self.extra).collect() }
    }

    /// Every address that the user wrote.
    pub(crate) fn addresses(&self) -> Vec<&Address> {
        let pages = self.find_links.iter().filter_map(|links| match links {
            FindLinks::Page(address) => Some(address),
            FindLinks::Folder(_) => None,
        });
        self.indexes().into_iter().chain(pages).chain(&self.direct).collect()
    }

    /// All passwords that are known without asking a program, each with the host that it is for. A user without a password
    /// may be a token, and is one of these, too.
    pub fn passwords(&self) -> Vec<(String, Password)> {
        let pages = self.addresses().into_iter();
        let own = pages.filter_map(|address| Some((address.origin().host().to_owned(), address.login()?)));
        let others = self.credentials.logins().map(|(host, login)| (host.to_owned(), login));
        let secret = |login: &Login| match &login.password {
            Some(password) => password.clone(),
            None => Password::new(login.user.clone()),
        };
        own.chain(others).map(|(host, login)| (host, secret(login))).collect()
    }

    pub(crate) fn trusts(&self, origin: &Origin) -> bool {
        self.trusted_hosts.iter().any(|trusted| trusted.is(origin))
    }

    /// Whether plain HTTP is as good as can be there.
    pub(crate) fn may_be_plain(&self, origin: &Origin) -> bool {
        origin.is_loopback() || self.trusts(origin)
    }

    /// Whether they can be used: no address is asked in the clear that must not be, and every proxy is one.
    pub fn check(&self) -> Result<(), Error> {
        for address in self.addresses() {
            let origin = address.origin();
            if !origin.is_encrypted() && !self.may_be_plain(&origin) {
                return Err(Error::Insecure { address: address.safe() });
            }
        }
        lbx_net::check_proxies(self.proxy.as_ref()).map_err(|error| Error::Setup { source: error.into() })
    }
}

/// What it means that several indexes have a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// All of them count alike, as for pip: the best version of any is taken. Whoever can publish in one of them can
    /// publish a better version of anything.
    #[default]
    BestMatch,
    /// The first one that has the project is the only one that counts.
    FirstMatch,
}

/// Files besides those of indexes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindLinks {
    /// A page with links to files of any project, or the address of one file.
    Page(Address),
    /// A folder with files of any project.
    Folder(PathBuf),
}

impl FindLinks {
    /// Reads what stands after `--find-links`: an address or a path.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if !text.contains("://") && !text.starts_with("file:") {
            return Ok(Self::Folder(text.into()));
        }
        if text.starts_with("file:") {
            let path = Url::parse(text).ok().and_then(|url| url.to_file_path().ok());
            let problem = || "is no address of a folder on this machine".to_owned();
            let what = || "a file: address in find-links".to_owned();
            return path.map(Self::Folder).ok_or_else(|| Error::Setting { what: what(), problem: problem() });
        }
        Address::parse("an address in find-links", text).map(Self::Page)
    }
}

/// A certificate with its key, in PEM. It is never shown.
#[derive(Clone)]
pub struct ClientCertificate(pub(crate) Vec<u8>);

impl ClientCertificate {
    /// Takes a PEM file's bytes.
    pub fn new(pem: Vec<u8>) -> Self {
        Self(pem)
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate(…)")
    }
}

/// A host that the user trusts whatever it shows, as pip means it: on one port, or on all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedHost {
    host: String,
    port: Option<u16>,
}

impl TrustedHost {
    /// Reads `host` or `host:port`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let problem = || Error::Setting {
            what: "a trusted host".to_owned(),
            problem: format!("is no host, but `{}`", crate::page::words(text)),
        };
        if text.contains(['/', '@', '?', '#']) {
            return Err(problem());
        }
        let url = Url::parse(&format!("http://{text}/")).map_err(|_| problem())?;
        let host = url.host_str().ok_or_else(problem)?.to_owned();
        // The scheme's own port would not be seen in the URL.
        let port =
            text.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).filter(|_| !text.ends_with(']'));
        Ok(Self { host, port })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    fn is(&self, origin: &Origin) -> bool {
        self.host == origin.host() && self.port.is_none_or(|port| port == origin.port())
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// A connection, until it is open.
    pub connect: Duration,
    /// A transfer, without a byte.
    pub stall: Duration,
    /// A page, as a whole.
    pub page: Duration,
    /// The most that a server may say to wait before it is asked again.
    pub longest_wait: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            page: Duration::from_mins(5),
            longest_wait: Duration::from_mins(1),
        }
    }
}

/// How large things may be, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A page, decoded.
    pub page: u64,
    /// Metadata of a file, alone.
    pub metadata: u64,
    /// A file of which the index does not say how large it is.
    pub file: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { page: 128 << 20, metadata: 16 << 20, file: 8 << 30 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::parse(text).expect(text)
    }

    #[test]
    fn a_trusted_host_is_that_host_and_no_other() {
        let trusts = |trusted: &str, url: &str| TrustedHost::parse(trusted).expect(trusted).is(&origin(url));
        assert!(trusts("index.test", "http://index.test:8080") && trusts("INDEX.test", "https://index.test"));
        assert!(
            trusts("index.test:80", "http://index.test") && !trusts("index.test:80", "https://index.test")
        );
        assert!(trusts("[::1]", "http://[::1]:9") && trusts("[::1]:9", "http://[::1]:9"));
        assert!(!trusts("index.test", "http://a.index.test") && !trusts("index.test", "http://index.test.b"));
        for bad in ["", "https://a.test", "a.test/x", "u@a.test", "a b", "a.test:99999"] {
            assert!(TrustedHost::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn plain_http_is_for_this_machine_and_for_trusted_hosts() {
        let address = |text: &str| Address::parse("an index", text).expect(text);
        let mut settings = Settings::new(address("http://me:hush@index.test/simple"), "/tmp");
        let error = settings.check().expect_err("plain").to_string();
        assert_eq!(
            error,
            "http://index.test/simple is plain HTTP, which anybody on the way can read and change"
        );
        settings.trusted_hosts = vec![TrustedHost::parse("index.test").expect("a host")];
        assert!(settings.check().is_ok());
        settings.index = Some(address("http://127.0.0.1:8080/simple"));
        assert!(settings.check().is_ok());
        settings.find_links = vec![FindLinks::parse("http://files.test/").expect("an address")];
        assert!(settings.check().is_err());
    }

    #[test]
    fn every_password_is_known_with_its_host() {
        let address = |text: &str| Address::parse("an index", text).expect(text);
        let mut settings = Settings::new(address("https://me:p%40ss@a.test/simple"), "/tmp");
        settings.extra = vec![address("https://token@b.test/"), address("https://c.test/")];
        settings.credentials.netrc =
            crate::Netrc::parse("machine d.test login x password two\ndefault login y password three")
                .expect("a file");
        let passwords = settings.passwords();
        let all: Vec<(&str, &str)> =
            passwords.iter().map(|(host, password)| (host.as_str(), password.expose())).collect();
        assert_eq!(all, [("a.test", "p@ss"), ("b.test", "token"), ("d.test", "two"), ("any host", "three")]);
    }

    #[test]
    fn links_are_found_at_addresses_and_in_folders() {
        let parse = |text: &str| FindLinks::parse(text).expect(text);
        assert_eq!(parse("wheels"), FindLinks::Folder("wheels".into()));
        assert_eq!(parse("file:///a%20b/c"), FindLinks::Folder("/a b/c".into()));
        assert!(matches!(parse("https://files.test/"), FindLinks::Page(_)));
        assert!(FindLinks::parse("ftp://files.test/").is_err() && FindLinks::parse("file://host/x").is_err());
    }
}
