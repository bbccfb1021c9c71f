//! What a failed request means: oci-client's errors and the gate's refusals in this crate's own terms.

use std::time::Duration;

use lbx_net::{authority, certificate_problem, speaks_no_tls};
use oci_client::errors::{DigestError, OciDistributionError, OciEnvelope, OciErrorCode};

use super::endpoint;
use super::gate::Refusal;
use crate::manifest::MANIFEST_LIMIT;
use crate::registry::{Again, Failure};
use crate::{Digest, Error, Reference};

/// The least to wait when a registry says that it is asked too often. When it says for how long, oci-client keeps that
/// to itself.
const TOO_OFTEN: Duration = Duration::from_secs(1);
/// The most of a server's words that a message repeats, in characters.
const QUOTED: usize = 300;

/// What was asked of which registry.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    reference: Reference,
    /// `repository:tag` or `repository@digest`.
    what: String,
}

impl Asked {
    pub(super) fn new(reference: &Reference, name: &str) -> Self {
        let joint = if name.contains(':') { '@' } else { ':' };
        Self { reference: reference.clone(), what: format!("{}{joint}{name}", reference.repository()) }
    }

    fn registry(&self) -> String {
        self.reference.registry().to_owned()
    }

    /// The registry as it was written; another host as it was sent to.
    fn host(&self, host: &str) -> String {
        if host == endpoint(self.reference.registry()) { self.registry() } else { host.to_owned() }
    }

    pub(super) fn denied(&self, reason: &str) -> Failure {
        let (registry, repository) = (self.registry(), self.reference.repository().to_owned());
        Failure::final_(Error::Denied { registry, repository, reason: reason.trim().to_owned() })
    }

    pub(super) fn refused(&self, refusal: Refusal) -> Failure {
        match refusal {
            Refusal::Misdirected { target, problem } => {
                Failure::final_(Error::Misdirected { registry: self.registry(), target, problem })
            }
            // Clients without certificates are replaced before this is anybody's error.
            Refusal::NeedsCertificates => self.setup("there are no certificates to trust".into()),
            Refusal::Unreachable { host, source } => {
                Failure::passing(Error::Unreachable { registry: self.host(&host), source })
            }
            Refusal::Proxy { host, proxy, source } => {
                Failure::passing(Error::Proxy { registry: self.host(&host), proxy, source })
            }
            Refusal::TooMuch => {
                Failure::final_(Error::TooLarge { what: self.what.clone(), limit: MANIFEST_LIMIT })
            }
        }
    }

    pub(super) fn setup(&self, source: crate::Cause) -> Failure {
        Failure::final_(Error::Setup { registry: self.registry(), source })
    }

    /// What oci-client's error means.
    pub(super) fn failed(&self, error: OciDistributionError) -> Failure {
        match error {
            OciDistributionError::RequestError(error) => self.broken(error),
            OciDistributionError::IoError(error) => self.cut(error),
            OciDistributionError::UnauthorizedError { .. } => {
                self.denied("it wants a user name and a password")
            }
            OciDistributionError::RegistryError { envelope, .. } => self.envelope(&envelope),
            OciDistributionError::ServerError { code, message, .. } => self.status(code, &message),
            OciDistributionError::DigestError(error) => self.digest(&error),
            other => self.malformed(&other.to_string()),
        }
    }

    /// A token that was not to be had. Whether a second try would do better is not known: oci-client has no status.
    pub(super) fn unauthenticated(&self, error: OciDistributionError) -> Failure {
        let mut failure = match error {
            OciDistributionError::AuthenticationFailure(reason) => {
                let said = words(&reason).map(|words| format!(": {words}")).unwrap_or_default();
                self.denied(&format!("its token service refuses{said}"))
            }
            OciDistributionError::RegistryTokenDecodeError(_) => {
                return self.denied("its token service sent no token");
            }
            other => return self.failed(other),
        };
        failure.again = Again::Later;
        failure
    }

    /// A request that got no answer, or one that broke off.
    fn broken(&self, error: reqwest::Error) -> Failure {
        let host = error.url().map(|url| if url.has_host() { authority(url) } else { quoted(url.as_str()) });
        let host = host.unwrap_or_default();
        let registry = if host.is_empty() { self.registry() } else { self.host(&host) };
        if let Some(problem) = certificate_problem(&error) {
            return Failure::final_(Error::Certificate { registry, problem });
        }
        if error.is_redirect() {
            let problem = "after too many others";
            return Failure::final_(Error::Misdirected { registry: self.registry(), target: host, problem });
        }
        if error.is_builder() {
            let problem = "which is no web address";
            return Failure::final_(Error::Misdirected { registry: self.registry(), target: host, problem });
        }
        if speaks_no_tls(&error) {
            let source = "it does not speak TLS, and plain HTTP is for registries on this machine".into();
            return Failure::final_(Error::Unreachable { registry, source });
        }
        Failure::passing(Error::Unreachable { registry, source: Box::new(error.without_url()) })
    }

    /// A body that broke off.
    pub(super) fn cut(&self, error: std::io::Error) -> Failure {
        match error.downcast::<reqwest::Error>() {
            Ok(error) => self.broken(error),
            Err(source) => {
                Failure::passing(Error::Unreachable { registry: self.registry(), source: Box::new(source) })
            }
        }
    }

    /// A refusal in the registry's own terms. Its status is gone by now, and the specification says which it was.
    fn envelope(&self, envelope: &OciEnvelope) -> Failure {
        let said: Vec<&str> = envelope.errors.iter().map(|error| error.message.as_str()).collect();
        let code = envelope.errors.first().map(|error| &error.code);
        let status = match code {
            Some(
                OciErrorCode::BlobUnknown
                | OciErrorCode::ManifestUnknown
                | OciErrorCode::ManifestBlobUnknown
                | OciErrorCode::NameUnknown
                | OciErrorCode::NotFound,
            ) => 404,
            Some(OciErrorCode::Unauthorized) => 401,
            Some(OciErrorCode::Denied) => 403,
            Some(OciErrorCode::Toomanyrequests) => 429,
            _ => 400,
        };
        self.status(status, &said.join("; "))
    }

    fn status(&self, status: u16, said: &str) -> Failure {
        let (registry, what) = (self.registry(), self.what.clone());
        let again = match status {
            404 => return Failure::final_(Error::NotFound { registry, what }),
            401 | 403 => {
                return self.denied(&words(said).unwrap_or_else(|| format!("it answered {status}")));
            }
            429 => Again::After(TOO_OFTEN),
            408 | 500.. => Again::Later,
            _ => Again::Never,
        };
        Failure { error: Box::new(Error::Status { registry, status, what }), again }
    }

    fn digest(&self, error: &DigestError) -> Failure {
        let digests = match error {
            DigestError::VerificationError { expected, actual } => {
                Digest::parse(expected).ok().zip(Digest::parse(&with_algorithm(actual)).ok())
            }
            _ => None,
        };
        match digests {
            Some((expected, found)) => {
                Failure::final_(Error::DigestMismatch { what: self.what.clone(), expected, found })
            }
            None => self.malformed(&error.to_string()),
        }
    }

    fn malformed(&self, problem: &str) -> Failure {
        Failure::final_(Error::Malformed { what: self.what.clone(), problem: quoted(problem) })
    }
}

/// oci-client gives the found digest of a manifest without its algorithm.
fn with_algorithm(digest: &str) -> String {
    if digest.contains(':') { digest.to_owned() } else { format!("sha256:{digest}") }
}

/// What a server says in a refusal, in one line that is safe to print.
fn words(said: &str) -> Option<String> {
    let text = match serde_json::from_str::<OciEnvelope>(said) {
        Ok(envelope) => envelope.errors.into_iter().map(|error| error.message).collect::<Vec<_>>().join("; "),
        Err(_) => said.to_owned(),
    };
    let quoted = quoted(text.trim());
    // A page for browsers says nothing here, and `{}` says nothing anywhere.
    (!quoted.is_empty() && !quoted.starts_with(['<', '{'])).then_some(quoted)
}

fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(QUOTED).collect();
    let unsafe_here = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    cut.chars().map(|c| if unsafe_here(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        Asked::new(&Reference::parse("docker.io/library/python:3.11").expect("a reference"), "3.11")
    }

    #[test]
    fn a_servers_words_are_one_safe_line() {
        let body = r#"{"errors": [{"code": "DENIED", "message": "no \u001b[2Jentry"}]}"#;
        assert_eq!(words(body).as_deref(), Some("no  [2Jentry"));
        assert_eq!(words("down\n").as_deref(), Some("down"));
        assert_eq!(words("\u{202e}deined").as_deref(), Some(" deined"));
        assert_eq!(words("{}"), None);
        assert_eq!(words("<html>"), None);
        assert_eq!(words(&"x".repeat(1000)).expect("words").len(), QUOTED);
    }

    #[test]
    fn a_registrys_own_codes_mean_what_their_statuses_mean() {
        let meaning = |code: &str| {
            let body = format!(r#"{{"errors": [{{"code": "{code}", "message": "said"}}]}}"#);
            let envelope = serde_json::from_str(&body).expect("an envelope");
            let failure =
                asked().failed(OciDistributionError::RegistryError { envelope, url: String::new() });
            (failure.error.to_string(), failure.again)
        };
        assert_eq!(
            meaning("MANIFEST_UNKNOWN"),
            ("docker.io has no library/python:3.11".to_owned(), Again::Never)
        );
        assert_eq!(meaning("DENIED").0, "docker.io refused access to library/python: said");
        assert_eq!(meaning("TOOMANYREQUESTS").1, Again::After(TOO_OFTEN));
        assert_eq!(
            meaning("ARTIFACT_LOCKED"),
            ("docker.io answered 400 to a request for library/python:3.11".to_owned(), Again::Never)
        );
    }

    #[test]
    fn the_registry_is_named_as_it_was_written_and_others_as_they_are() {
        let unreachable = |host: &str| {
            let refusal = Refusal::Unreachable { host: host.to_owned(), source: "no".into() };
            asked().refused(refusal).error.to_string()
        };
        assert_eq!(unreachable("index.docker.io"), "cannot reach docker.io");
        assert_eq!(unreachable("cdn.test:8443"), "cannot reach cdn.test:8443");
    }
}
