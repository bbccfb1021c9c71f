//! HTTP clients, each set up when it is first needed: plain HTTP reads no certificates.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::io;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, RootCertStore};
use tokio::sync::OnceCell;

use super::route::{Guard, Proxies, authority};
use crate::error::CertificateProblem;
use crate::registry::Failure;
use crate::{Cause, Error, PullOptions, Reference};

const USER_AGENT: &str = concat!("lbx/", env!("CARGO_PKG_VERSION"));

#[derive(Debug)]
pub(super) struct Clients {
    registry: String,
    options: PullOptions,
    guard: Guard,
    proxies: Proxies,
    plain: OnceCell<Client>,
    tls: OnceCell<Client>,
}

impl Clients {
    pub(super) fn new(reference: &Reference, options: &PullOptions) -> Self {
        Self {
            registry: reference.registry().to_owned(),
            options: options.clone(),
            guard: Guard::new(reference, options),
            proxies: Proxies::new(options),
            plain: OnceCell::new(),
            tls: OnceCell::new(),
        }
    }

    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The client for an address.
    pub(super) async fn of(&self, url: &Url) -> Result<&Client, Failure> {
        let (cell, certificates) = if url.scheme() == "https" {
            (&self.tls, true)
        } else {
            (&self.plain, self.proxies.plain_needs_tls())
        };
        let client = cell.get_or_try_init(|| async { self.build(certificates) }).await;
        client.map_err(Failure::final_)
    }

    fn build(&self, certificates: bool) -> Result<Client, Error> {
        // The process has one default; whoever set it first chose the same or had a reason.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(self.options.connect_timeout)
            .read_timeout(self.options.stall_timeout)
            .redirect(Policy::none())
            .dns_resolver(self.guard.clone())
            .no_proxy();
        builder = if certificates {
            builder.tls_certs_merge(trusted(&self.options.extra_ca_pem).map_err(|source| self.setup(source))?)
        } else {
            // Nothing to trust, and nothing to fail over where no certificates are installed.
            builder.tls_certs_only([])
        };
        for proxy in self.proxies.all().map_err(|error| self.setup(error.into()))? {
            builder = builder.proxy(proxy);
        }
        builder.build().map_err(|error| self.setup(error.into()))
    }

    fn setup(&self, source: Cause) -> Error {
        Error::Setup { registry: self.registry.clone(), source }
    }

    /// What a request that got no answer, or one that broke off, means.
    pub(super) fn failed(&self, url: &Url, error: reqwest::Error) -> Failure {
        // The registry as it was written; another host as it was sent to.
        let host = authority(url);
        let registry = if self.is_registry(url) { self.registry.clone() } else { host };
        if let Some(problem) = certificate_problem(&error) {
            return Failure::final_(Error::Certificate { registry, problem });
        }
        // A malformed address stays what it is, however often it is asked for.
        let passing = !error.is_builder();
        let proxy = self.proxies.of(url).filter(|_| error.is_connect());
        let source = Box::new(error.without_url());
        let error = match proxy {
            Some(proxy) => Error::Proxy { registry, proxy, source },
            None => Error::Unreachable { registry, source },
        };
        if passing { Failure::passing(error) } else { Failure::final_(error) }
    }

    /// A proxy's own refusal, in place of an answer.
    pub(super) fn refused_by_proxy(&self, url: &Url) -> Failure {
        let proxy = self.proxies.of(url).unwrap_or_default();
        let source = "it wants a user name and a password (407)".into();
        Failure::final_(Error::Proxy { registry: authority(url), proxy, source })
    }

    fn is_registry(&self, url: &Url) -> bool {
        let own = Url::parse(&format!("{}://{}", url.scheme(), super::endpoint(&self.registry)));
        own.is_ok_and(|own| own.origin() == url.origin())
    }
}

/// The certificates of the bundles that can be used.
///
/// Bundles hold hundreds of certificates of all ages, and one that is broken or of a kind that rustls doesn't
/// know must not take the others with it. A bundle without a single good one is a mistake.
fn trusted(bundles: &[Vec<u8>]) -> Result<Vec<Certificate>, Cause> {
    let mut seen = HashSet::new();
    let mut certificates = Vec::new();
    for bundle in bundles {
        let before = seen.len();
        for found in CertificateDer::pem_slice_iter(bundle) {
            let usable = found.ok().filter(|found| RootCertStore::empty().add(found.clone()).is_ok());
            let Some(usable) = usable else {
                tracing::debug!("a certificate that can't be used is left out");
                continue;
            };
            if seen.insert(usable.to_vec()) {
                certificates.push(Certificate::from_der(&usable)?);
            }
        }
        if seen.len() == before && !has_known(bundle, &seen) {
            return Err("a CA bundle holds no certificate that can be used".into());
        }
    }
    Ok(certificates)
}

/// Whether a bundle that brought nothing new brought something at all.
fn has_known(bundle: &[u8], seen: &HashSet<Vec<u8>>) -> bool {
    CertificateDer::pem_slice_iter(bundle).flatten().any(|found| seen.contains(found.as_ref()))
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
pub(super) fn speaks_tls(error: &reqwest::Error) -> bool {
    matches!(
        tls_error(error),
        Some(
            rustls::Error::InvalidCertificate(_)
                | rustls::Error::AlertReceived(_)
                | rustls::Error::PeerIncompatible(_)
        )
    )
}

fn certificate_problem(error: &reqwest::Error) -> Option<CertificateProblem> {
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
        assert!(trusted(&[b"no certificate".to_vec()]).is_err());
        assert!(
            trusted(&[b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec()]).is_err()
        );
        assert!(trusted(&[b"-----BEGIN CERTIFICATE-----\nAAAA\n".to_vec()]).is_err());
        assert!(trusted(&[]).expect("nothing to trust").is_empty());
    }
}
