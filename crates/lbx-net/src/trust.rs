//! Whom to trust over TLS, and what is wrong with a certificate that is not.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::sync::{Arc, OnceLock};
use std::{fmt, io};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;

use crate::{CertificateProblem, Error, bare_host};

/// The system's certificates and those of the given bundles, which are read when they are first needed.
pub struct Trust {
    bundles: Vec<Vec<u8>>,
    /// A certificate with its key, for servers that want one.
    client: Option<Vec<u8>>,
    extra: OnceLock<Vec<CertificateDer<'static>>>,
    /// Set once it is known that the system has certificates.
    system: OnceLock<()>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("bundles", &self.bundles.len()).finish_non_exhaustive()
    }
}

impl Trust {
    /// Each bundle is a PEM file's bytes. Certificates in it that can't be used are left out.
    pub fn new(bundles: &[Vec<u8>]) -> Self {
        // The process has one default; whoever set it first chose the same or had a reason.
        let _ = ring::default_provider().install_default();
        Self { bundles: bundles.to_vec(), client: None, extra: OnceLock::new(), system: OnceLock::new() }
    }

    /// With a certificate of the user's own: a PEM file's bytes, with the key.
    #[must_use]
    pub fn with_client_certificate(mut self, pem: Option<Vec<u8>>) -> Self {
        self.client = pem;
        self
    }

    /// Whether the system has certificates at all.
    pub fn check_system(&self) -> Result<(), Error> {
        if self.system.get().is_none() {
            Verifier::new(Arc::new(ring::default_provider()))?;
        }
        self.system.get_or_init(|| ());
        Ok(())
    }

    /// The certificates besides the system's.
    pub fn extra(&self) -> Result<&[CertificateDer<'static>], Error> {
        if let Some(found) = self.extra.get() {
            return Ok(found);
        }
        let found = usable(&self.bundles)?;
        Ok(self.extra.get_or_init(|| found))
    }

    /// A configuration that trusts them all, and shows a certificate of the user's to servers that want one.
    pub fn rustls(&self) -> Result<Arc<ClientConfig>, Error> {
        self.rustls_without(&[])
    }

    /// The same, where these hosts may show whatever certificate they like: the user said so.
    pub fn rustls_without(&self, unverified: &[String]) -> Result<Arc<ClientConfig>, Error> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier::new_with_extra_roots(self.extra()?.to_vec(), Arc::clone(&provider))?;
        let verifier: Arc<dyn ServerCertVerifier> = if unverified.is_empty() {
            Arc::new(verifier)
        } else {
            Arc::new(Lenient { hosts: unverified.to_vec(), verifier })
        };
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        // Dangerous is what a verifier of one's own can be.
        let config = config.dangerous().with_custom_certificate_verifier(verifier);
        Ok(Arc::new(match &self.client {
            None => config.with_no_client_auth(),
            Some(pem) => {
                let (chain, key) = client_certificate(pem)?;
                config.with_client_auth_cert(chain, key)?
            }
        }))
    }
}

fn client_certificate(pem: &[u8]) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let missing = |missing| Error::ClientCertificate { missing };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect();
    if chain.is_empty() {
        return Err(missing("certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| missing("private key that can be used"))?;
    Ok((chain, key))
}

/// The platform's verifier, but for some hosts.
#[derive(Debug)]
struct Lenient {
    hosts: Vec<String>,
    verifier: Verifier,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.hosts.iter().any(|host| bare_host(host).eq_ignore_ascii_case(&server_name.to_str())) {
            return Ok(ServerCertVerified::assertion());
        }
        self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// The certificates of the bundles that can be used.
///
/// Bundles hold hundreds of certificates of all ages, and one that is broken or of a kind that rustls doesn't
/// know must not take the others with it. A bundle without a single good one is a mistake.
fn usable(bundles: &[Vec<u8>]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let mut seen = HashSet::new();
    let mut certificates = Vec::new();
    for bundle in bundles {
        let mut good = false;
        for found in CertificateDer::pem_slice_iter(bundle) {
            let usable = found.ok().filter(|found| RootCertStore::empty().add(found.clone()).is_ok());
            let Some(usable) = usable else {
                tracing::debug!("a certificate that can't be used is left out");
                continue;
            };
            good = true;
            if seen.insert(usable.to_vec()) {
                certificates.push(usable);
            }
        }
        if !good {
            return Err(Error::EmptyBundle);
        }
    }
    Ok(certificates)
}

fn tls_error<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e rustls::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An I/O error's source is that of the error inside it, not that error.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = inner.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| error.source());
    }
    None
}

/// Whether the other side speaks TLS, be it content with us or not.
pub fn speaks_tls(error: &(dyn StdError + 'static)) -> bool {
    matches!(
        tls_error(error),
        Some(
            rustls::Error::InvalidCertificate(_)
                | rustls::Error::AlertReceived(_)
                | rustls::Error::PeerIncompatible(_)
        )
    )
}

/// Whether the other side answered TLS with something else.
pub fn speaks_no_tls(error: &(dyn StdError + 'static)) -> bool {
    matches!(tls_error(error), Some(rustls::Error::InvalidMessage(_)))
}

/// What is wrong with a server's certificate, when that is why a connection failed.
pub fn certificate_problem(error: &(dyn StdError + 'static)) -> Option<CertificateProblem> {
    let Some(rustls::Error::InvalidCertificate(error)) = tls_error(error) else { return None };
    Some(match error {
        CertificateError::UnknownIssuer => CertificateProblem::UnknownIssuer,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => CertificateProblem::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            CertificateProblem::NotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            CertificateProblem::OtherName
        }
        // webpki's own error is not part of what rustls exports.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => CertificateProblem::Authority,
        other => CertificateProblem::Other(format!("{other:?}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_without_certificates_is_an_error_and_odd_ones_are_left_out() {
        assert!(usable(&[b"no certificate".to_vec()]).is_err());
        assert!(
            usable(&[b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec()]).is_err()
        );
        assert!(usable(&[b"-----BEGIN CERTIFICATE-----\nAAAA\n".to_vec()]).is_err());
        assert!(usable(&[]).expect("nothing to trust").is_empty());
    }

    #[test]
    fn a_client_certificate_has_two_halves_and_is_never_shown() {
        let home = tempfile::tempdir().expect("a directory");
        let authority = lbx_testkit::tls::authority(home.path());
        let key = fs_err::read(&authority.key).expect("a key");
        let trust = |pem: Vec<u8>| Trust::new(&[]).with_client_certificate(Some(pem));
        let missing = |pem: Vec<u8>| trust(pem).rustls().expect_err("half").to_string();
        assert_eq!(missing(key.clone()), "the client certificate's file holds no certificate");
        assert!(missing(authority.pem()).ends_with("no private key that can be used"));
        let whole = trust([authority.pem(), key].concat());
        assert!(whole.rustls().is_ok());
        assert!(!format!("{whole:?}").contains("45, 45, 45"), "{whole:?}");
    }
}
