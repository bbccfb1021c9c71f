//! Everything that can go wrong between a setting and a file, with what was expected, what was found, and what to do
//! about it.
//!
//! Messages are fragments that chain; printing the chain and the hint is left to the caller. No message has a user, a
//! password or the values of a query in it: addresses are [`SafeUrl`]s.

use std::io;
use std::path::PathBuf;

use lbx_net::CertificateProblem;

use crate::SafeUrl;

/// Any error's cause, from a library whose types are not part of this crate's promises.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why an index could not be asked, or what it said could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that can't be used.
    #[error("{what} {problem}")]
    Setting {
        /// Which setting.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Plain HTTP to where it can be read and changed on the way.
    #[error("{address} is plain HTTP, which anybody on the way can read and change")]
    Insecure {
        /// Where.
        address: SafeUrl,
    },
    /// The client could not be set up: a bad certificate, a bad proxy address.
    #[error("cannot set up connections to package indexes")]
    Setup {
        /// The cause.
        source: Cause,
    },
    /// No answer, or one that broke off.
    #[error("cannot reach {host}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// The cause.
        source: Cause,
    },
    /// The proxy in between can't be reached, or refuses.
    #[error("cannot reach {host} through the proxy {proxy}")]
    Proxy {
        /// The host behind the proxy.
        host: String,
        /// The proxy, without user name and password.
        proxy: String,
        /// The cause.
        source: Cause,
    },
    /// Nothing came for too long.
    #[error("{host} sent nothing for {seconds} s")]
    Stalled {
        /// Host and port.
        host: String,
        /// How long that is.
        seconds: u64,
    },
    /// A page that took too long as a whole.
    #[error("{what} did not come within {seconds} s")]
    Slow {
        /// Which page.
        what: SafeUrl,
        /// How long that is.
        seconds: u64,
    },
    /// A certificate that doesn't show who answers.
    #[error("the certificate of {host} is not trusted: {problem}")]
    Certificate {
        /// Host and port.
        host: String,
        /// What is wrong with it.
        problem: CertificateProblem,
    },
    /// An index sends its clients where they must not go, or somebody wrote down such an address.
    #[error("{}", misdirected(host, target, problem))]
    Misdirected {
        /// Who does.
        host: String,
        /// Where to.
        target: String,
        /// Why that is refused.
        problem: &'static str,
    },
    /// An answer that is neither success nor one of the cases below.
    #[error("{host} answered {status} to a request for {what}")]
    Status {
        /// Host and port.
        host: String,
        /// The HTTP status.
        status: u16,
        /// What was asked for.
        what: SafeUrl,
    },
    /// The index wants other credentials, or none would do.
    #[error("{host} refused access to {what} ({status}): {reason}")]
    Denied {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: SafeUrl,
        /// The HTTP status.
        status: u16,
        /// What it was told of who asks.
        reason: &'static str,
    },
    /// A file that the index lists and does not have.
    #[error("{host} has no {what}")]
    NotFound {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: SafeUrl,
    },
    /// A file that a lock names, and no index.
    #[error("no index has {file} with the SHA-256 {sha256}")]
    NotListed {
        /// The file's name.
        file: String,
        /// What it is.
        sha256: String,
    },
    /// Bytes that are not the ones that were promised.
    #[error("{file} from {host} has the {algorithm} {found}, expected {expected}")]
    HashMismatch {
        /// The file's name.
        file: String,
        /// Where it came from.
        host: String,
        /// Which hash.
        algorithm: &'static str,
        /// What was promised.
        expected: String,
        /// What the bytes have.
        found: String,
    },
    /// More or fewer bytes than were promised.
    #[error("{file} from {host} has {found} bytes, expected {expected}")]
    SizeMismatch {
        /// The file's name.
        file: String,
        /// Where it came from.
        host: String,
        /// What was promised.
        expected: u64,
        /// What came; reading stops soon after what was promised.
        found: u64,
    },
    /// More than is read.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// A page's address, or a file's name.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A page that doesn't say what it must.
    #[error("{what} is malformed: {problem}")]
    Malformed {
        /// Which page.
        what: SafeUrl,
        /// What is wrong with it.
        problem: String,
    },
    /// A page in a version of the interface that does not exist yet.
    #[error("{what} speaks version {found} of the index's interface, expected 1")]
    Version {
        /// Which page.
        what: SafeUrl,
        /// Which version.
        found: String,
    },
    /// A project that its index found to be harmful.
    #[error("{project} is quarantined by {index}{}", reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    Quarantined {
        /// The project.
        project: String,
        /// The index.
        index: SafeUrl,
        /// Why, in its words.
        reason: Option<String>,
    },
    /// The network is off, and the store lacks something.
    #[error("{what} is not in the store, and the network is off")]
    Offline {
        /// What is missing.
        what: String,
    },
    /// The store's directory can't be trusted.
    #[error("{} cannot hold the store: {problem}", path.display())]
    Store {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A configuration file that pip would not read either.
    #[error("line {line} of {file} {problem}")]
    Configuration {
        /// Which kind of file.
        file: &'static str,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A file operation that failed; the message names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn misdirected(host: &str, target: &str, problem: &str) -> String {
    if host == target {
        return format!("{host} is not asked: it is {problem}");
    }
    format!("{host} sends its clients to {target}, {problem}")
}

impl Error {
    /// What the user can do about it, as a phrase; `None` when the message says it all.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Insecure { .. } => "use https, or name the host as a trusted host if you have to",
            Self::Setup { .. } => {
                "check the CA certificates, the client certificate and the addresses of the proxies"
            }
            Self::Unreachable { .. } | Self::Stalled { .. } | Self::Slow { .. } => {
                "check the network and the index's address; what was fetched before can be used offline"
            }
            Self::Proxy { .. } => {
                "check http_proxy and https_proxy; no_proxy lists the hosts that are reached without a proxy"
            }
            Self::Certificate { problem, .. } => return Some(problem.hint("index")),
            Self::Misdirected { host, target, .. } if host == target => {
                "do not trust whoever wrote that address down"
            }
            Self::Misdirected { .. } => "do not trust this index, or whatever answers in its name",
            Self::Status { status: 500.., .. } => "the index has a problem of its own: try again later",
            Self::Status { status: 429, .. } => "the index limits how often it may be asked: wait a while",
            Self::Denied { host, .. } => {
                return Some(format!(
                    "give a user and a password for {host}: in the index's address \
                     (https://USER:PASSWORD@{host}/…), in ~/.netrc, or by a keyring"
                ));
            }
            Self::NotFound { .. } => "the index lists it and does not have it: tell whoever runs the index",
            Self::NotListed { .. } => {
                "it was deleted, or is in another index than those that are configured; lock again"
            }
            Self::HashMismatch { .. } | Self::SizeMismatch { .. } => {
                "the index, a mirror or a proxy sent other bytes than were published; nothing of it was kept"
            }
            Self::Quarantined { .. } => "do not use it: whoever runs the index found it to be harmful",
            Self::Offline { .. } => "build once with the network on",
            Self::Store { .. } => {
                "use a directory that belongs to you, is no symbolic link, and that nobody else can write to"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}
