//! Whom to trust over TLS, and what is wrong with a certificate that is not.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::io;
use std::sync::{Arc, OnceLock};

use oci_client::client::{Certificate, CertificateEncoding};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use crate::Cause;
use crate::error::CertificateProblem;

/// The system's certificates and those of the given bundles, which are read when they are first needed.
#[derive(Debug)]
pub(super) struct Trust {
    bundles: Vec<Vec<u8>>,
    extra: OnceLock<Vec<CertificateDer<'static>>>,
    /// Set once it is known that the system has certificates.
    system: OnceLock<()>,
}

impl Trust {
    pub(super) fn new(bundles: &[Vec<u8>]) -> Self {
        // The process has one default; whoever set it first chose the same or had a reason.
        let _ = ring::default_provider().install_default();
        Self { bundles: bundles.to_vec(), extra: OnceLock::new(), system: OnceLock::new() }
    }

    /// Whether the system has certificates at all. A client of oci-client's cannot be made without, also when it is not
    /// going to use any: a default one is made on the way, and panics.
    pub(super) fn check_system(&self) -> Result<(), Cause> {
        if self.system.get().is_none() {
            Verifier::new(Arc::new(ring::default_provider()))?;
        }
        self.system.get_or_init(|| ());
        Ok(())
    }

    /// The certificates besides the system's.
    pub(super) fn extra(&self) -> Result<Vec<Certificate>, Cause> {
        let certificate =
            |der: &CertificateDer<'_>| Certificate { encoding: CertificateEncoding::Der, data: der.to_vec() };
        Ok(self.usable()?.iter().map(certificate).collect())
    }

    /// For TLS that is not oci-client's.
    pub(super) fn rustls(&self) -> Result<Arc<ClientConfig>, Cause> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier::new_with_extra_roots(self.usable()?.to_vec(), Arc::clone(&provider))?;
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        // Dangerous is what a verifier of one's own can be; this one is the platform's.
        let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        Ok(Arc::new(config.with_no_client_auth()))
    }

    fn usable(&self) -> Result<&[CertificateDer<'static>], Cause> {
        if let Some(found) = self.extra.get() {
            return Ok(found);
        }
        let found = usable(&self.bundles)?;
        Ok(self.extra.get_or_init(|| found))
    }
}

/// The certificates of the bundles that can be used.
///
/// Bundles hold hundreds of certificates of all ages, and one that is broken or of a kind that rustls doesn't
/// know must not take the others with it. A bundle without a single good one is a mistake.
fn usable(bundles: &[Vec<u8>]) -> Result<Vec<CertificateDer<'static>>, Cause> {
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
            return Err("a CA bundle holds no certificate that can be used".into());
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
pub(super) fn speaks_tls(error: &(dyn StdError + 'static)) -> bool {
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
pub(super) fn speaks_no_tls(error: &(dyn StdError + 'static)) -> bool {
    matches!(tls_error(error), Some(rustls::Error::InvalidMessage(_)))
}

pub(super) fn certificate_problem(error: &(dyn StdError + 'static)) -> Option<CertificateProblem> {
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
}
