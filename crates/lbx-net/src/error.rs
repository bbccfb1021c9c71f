//! Settings that cannot be used, and what is wrong with certificates.
//!
//! Messages are fragments that chain; whose server it was is known to the caller.

use std::fmt;

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A bundle without a single good certificate.
    #[error("a CA bundle holds no certificate that can be used")]
    EmptyBundle,
    /// A client certificate that lacks one of its halves.
    #[error("the client certificate's file holds no {missing}")]
    ClientCertificate {
        /// Which half.
        missing: &'static str,
    },
    /// A proxy that has no address.
    #[error("a proxy's setting is no address")]
    ProxyAddress,
    /// A proxy of a kind that lbx does not speak to.
    #[error("a proxy's setting names another kind of proxy than http and https")]
    ProxyKind,
    /// The TLS library, in its own words.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateProblem {
    /// Nobody known here has signed it.
    UnknownIssuer,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It is somebody else's.
    OtherName,
    /// It is made to sign others, not to be shown by a server.
    Authority,
    /// Anything else, in the words of the TLS library.
    Other(String),
}

impl CertificateProblem {
    /// What to do about it; `server` is what the server is: a registry, an index.
    pub fn hint(&self, server: &str) -> String {
        match self {
            Self::UnknownIssuer | Self::Other(_) => format!(
                "if the {server} or a proxy has an authority of its own, let SSL_CERT_FILE name a bundle that \
                 includes its certificate"
            ),
            Self::Expired | Self::NotYetValid => {
                format!("check this machine's clock; if it is right, the {server} must renew it")
            }
            Self::OtherName => "use the name that the certificate was made for".to_owned(),
            Self::Authority => {
                "make the server a certificate that is no authority's: `openssl req -x509 -addext \
                                basicConstraints=critical,CA:FALSE …`"
                    .to_owned()
            }
        }
    }
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownIssuer => "its issuer is not known here",
            Self::Expired => "it has expired",
            Self::NotYetValid => "it is not valid yet",
            Self::OtherName => "it is for another name",
            Self::Authority => "it is an authority's own certificate, which no server may show",
            Self::Other(words) => words,
        })
    }
}
