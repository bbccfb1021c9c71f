//! One repository of one registry, spoken to by oci-client through a gate of our own.
//!
//! oci-client does what a registry's client does: addresses, the handshake for a token, manifests, blobs from an
//! offset. Where its requests lead and how much comes back is the business of the `gate`, with the rules of `lbx-net`;
//! `failure` says what an error means.
//!
//! A registry is spoken to over HTTPS, and nothing makes that fall back. On this machine it is the other way
//! round: most registries there are started for a moment, without a certificate, so plain HTTP comes first, and
//! HTTPS when the answer shows that the other side wants TLS.

mod failure;
mod gate;

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use lbx_net::{Trust, speaks_tls};
use oci_client::client::{
    BlobResponse, Certificate, CertificateEncoding, ClientConfig, ClientProtocol, SizedStream,
};
use oci_client::errors::{DigestError, OciDistributionError};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};
use tokio::sync::Mutex;

use self::failure::Asked;
pub use self::gate::Outlet;
use self::gate::{Gate, Refusal, Route};
use super::{Blob, Body, Failure};
use crate::manifest::{self, MANIFEST_LIMIT};
use crate::{Cause, Digest, Error, PullOptions, Reference};

const USER_AGENT: &str = concat!("lbx/", env!("CARGO_PKG_VERSION"));
/// What may come besides a document, in bytes: headers, TLS, redirects, a token.
const BESIDES: u64 = 1 << 20;
/// How long a registry on this machine may take to show that it speaks TLS.
const PROBE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct HttpRegistry {
    reference: Reference,
    options: PullOptions,
    trust: Arc<Trust>,
    /// What the first contact found out.
    contact: Mutex<Option<Contact>>,
}

/// How the registry wants to be spoken to.
#[derive(Clone)]
struct Contact {
    /// The client that asks for documents, and for tokens.
    speaker: Speaker,
    /// The bearer token, if the registry wants one.
    token: Option<String>,
}

impl std::fmt::Debug for Contact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contact").field("encrypted", &self.encrypted()).finish_non_exhaustive()
    }
}

/// A client and its gate.
#[derive(Clone)]
struct Speaker {
    client: Client,
    gate: Arc<Gate>,
}

/// A blob's bytes on their way.
pub(super) struct HttpBody {
    stream: SizedStream,
    asked: Asked,
    /// Keeps the way open.
    speaker: Speaker,
}

impl std::fmt::Debug for HttpBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpBody").field("asked", &self.asked).finish_non_exhaustive()
    }
}

/// Why an attempt failed, as far as another one can be made differently.
enum Trouble {
    Failed(Failure),
    /// No token, or one that is no longer good.
    Unauthorized,
    /// A registry in plain HTTP leads to HTTPS.
    NeedsCertificates,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl HttpRegistry {
    pub(super) fn new(reference: &Reference, options: &PullOptions) -> Self {
        Self {
            reference: reference.clone(),
            options: options.clone(),
            trust: Arc::new(Trust::new(&options.extra_ca_pem)),
            contact: Mutex::new(None),
        }
    }

    pub(super) async fn manifest(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let asked = Asked::new(&self.reference, name);
        let mut contact = self.contact(&asked, None).await?;
        let mut renewed = false;
        loop {
            match self.document(&asked, &contact, name).await {
                Ok(bytes) => return Ok(bytes),
                Err(trouble) => contact = self.mend(&asked, &contact, trouble, &mut renewed).await?,
            }
        }
    }

    pub(super) async fn blob(&self, digest: &Digest, from: u64) -> Result<Blob, Failure> {
        let asked = Asked::new(&self.reference, digest.as_str());
        let mut contact = self.contact(&asked, None).await?;
        let mut renewed = false;
        loop {
            match self.begin(&asked, &contact, digest, from).await {
                Ok(blob) => return Ok(blob),
                Err(trouble) => contact = self.mend(&asked, &contact, trouble, &mut renewed).await?,
            }
        }
    }

    async fn document(&self, asked: &Asked, contact: &Contact, name: &str) -> Result<Vec<u8>, Trouble> {
        let (image, speaker) = (self.image(name), &contact.speaker);
        speaker.gate.allow(MANIFEST_LIMIT + BESIDES);
        // The token from the first contact is the client's own by now, and goes before this.
        let pulled = speaker.client.pull_manifest_raw(&image, &RegistryAuth::Anonymous, &manifest::ACCEPT);
        let (bytes, _) = speaker.guarded(asked, pulled).await?;
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err(asked.refused(Refusal::TooMuch).into());
        }
        Ok(bytes.to_vec())
    }

    /// Asks for a blob, with a client of its own, because each transfer has an allowance of its own.
    async fn begin(
        &self,
        asked: &Asked,
        contact: &Contact,
        digest: &Digest,
        from: u64,
    ) -> Result<Blob, Trouble> {
        let route = Route { patient: true, ..contact.speaker.gate.route() };
        let speaker = self.speaker(asked, route).await?;
        let (image, client) = (self.image(digest.as_str()), &speaker.client);
        if let Some(token) = &contact.token {
            let token = RegistryAuth::Bearer(token.clone());
            client.store_auth_if_needed(image.resolve_registry(), &token).await;
        }
        // Until the answer turns out to be the blob, little may come: the words of a refusal are kept in memory.
        speaker.gate.allow(BESIDES);
        let (start, stream) = if from == 0 {
            (0, speaker.guarded(asked, client.pull_blob_stream(&image, digest.as_str())).await?)
        } else {
            let begun = client.pull_blob_stream_partial(&image, digest.as_str(), from, None);
            match speaker.guarded(asked, begun).await? {
                BlobResponse::Full(stream) => (0, stream),
                BlobResponse::Partial(stream) => (from, stream),
            }
        };
        // Nothing is kept in memory from here on, and the caller counts.
        speaker.gate.lift();
        let body = HttpBody { stream, asked: asked.clone(), speaker };
        Ok(Blob { start, body: Body::Http(Box::new(body)) })
    }

    /// Finds out how else to speak to the registry, where that may help.
    async fn mend(
        &self,
        asked: &Asked,
        contact: &Contact,
        trouble: Trouble,
        renewed: &mut bool,
    ) -> Result<Contact, Failure> {
        match trouble {
            Trouble::Failed(failure) => return Err(failure),
            Trouble::NeedsCertificates if contact.certificates() => {
                return Err(asked.refused(Refusal::NeedsCertificates));
            }
            Trouble::NeedsCertificates => {}
            Trouble::Unauthorized if *renewed => {
                return Err(match contact.token {
                    Some(_) => asked.denied("it answered 401 Unauthorized"),
                    None => asked.denied("it wants a user name and a password"),
                });
            }
            // Either no token yet, or one that expired in the middle of a pull.
            Trouble::Unauthorized => *renewed = true,
        }
        self.contact(asked, Some(contact)).await
    }

    /// What is known of how to speak to the registry; anew when that is what did not do.
    async fn contact(&self, asked: &Asked, refused: Option<&Contact>) -> Result<Contact, Failure> {
        let mut known = self.contact.lock().await;
        let found = match (known.as_ref(), refused) {
            (Some(contact), None) => contact.clone(),
            // Another transfer was faster.
            (Some(contact), Some(refused)) if !contact.speaker.is(&refused.speaker) => contact.clone(),
            (_, Some(refused)) => self.greet(asked, refused.encrypted(), true).await?,
            (None, None) => self.first_contact(asked).await?,
        };
        Ok(known.insert(found).clone())
    }

    async fn first_contact(&self, asked: &Asked) -> Result<Contact, Failure> {
        // oci-client's library takes the brackets for part of the name that a certificate must have.
        if !self.options.plain_http
            && !self.reference.is_loopback()
            && self.reference.registry().starts_with('[')
        {
            let (given, problem) =
                (self.reference.to_string(), "an IPv6 address cannot be spoken to over HTTPS; use a name");
            return Err(Failure::final_(Error::Reference { given, problem }));
        }
        if self.options.plain_http || !self.reference.is_loopback() {
            return self.greet(asked, !self.options.plain_http, false).await;
        }
        let plain = self.greet(asked, false, false).await;
        let odd = match &plain {
            Ok(contact) => contact.speaker.gate.status() == Some(400),
            Err(failure) => broke_off(failure),
        };
        if !odd {
            return plain;
        }
        match tokio::time::timeout(PROBE, self.greet(asked, true, false)).await {
            Ok(Ok(contact)) => Ok(contact),
            Ok(Err(failure)) if spoke_tls(&failure) => Err(failure),
            _ => plain,
        }
    }

    /// Says hello, and gets a token where one is wanted.
    async fn greet(&self, asked: &Asked, encrypted: bool, certificates: bool) -> Result<Contact, Failure> {
        let route = Route { encrypted, plain: !encrypted && !certificates, patient: false };
        let speaker = self.speaker(asked, route).await?;
        let _ = speaker.gate.refusal();
        speaker.gate.allow(BESIDES);
        let image = self.image("latest");
        let token = speaker.client.auth(&image, &RegistryAuth::Anonymous, RegistryOperation::Pull).await;
        match speaker.gate.refusal() {
            None => {}
            Some(Refusal::NeedsCertificates) if !certificates => {
                return Box::pin(self.greet(asked, encrypted, true)).await;
            }
            Some(Refusal::TooMuch) => return Err(asked.denied("it, or its token service, sent far too much")),
            Some(refusal) => return Err(asked.refused(refusal)),
        }
        let token = token.map_err(|error| asked.unauthenticated(error))?;
        // oci-client would put it into a header as it is, and panic.
        let usable = |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        if token.as_ref().is_some_and(|token| !usable(token)) {
            return Err(asked.denied("its token service sent a malformed token"));
        }
        Ok(Contact { speaker, token })
    }

    async fn speaker(&self, asked: &Asked, route: Route) -> Result<Speaker, Failure> {
        lbx_net::check_proxies(self.options.proxy.as_ref()).map_err(|error| asked.setup(error.into()))?;
        let gate = Gate::open(&self.reference, &self.options, &self.trust, route).await;
        let gate = gate.map_err(|error| asked.setup(error.into()))?;
        let client = self.client(&gate).map_err(|source| asked.setup(source))?;
        Ok(Speaker { client, gate: Arc::new(gate) })
    }

    fn client(&self, gate: &Gate) -> Result<Client, Cause> {
        let route = gate.route();
        // A client of oci-client's cannot be made without the system's certificates, also when it is not going to use
        // any: a default one is made on the way, and panics.
        self.trust.check_system()?;
        let protocol = if route.encrypted { ClientProtocol::Https } else { ClientProtocol::Http };
        let proxy = Some(gate.proxy().to_owned());
        Ok(Client::try_from(ClientConfig {
            protocol,
            // Plain HTTP must not fail because no certificates are installed. This client never sees one: the gate
            // lets no tunnel through for it.
            accept_invalid_certificates: route.plain,
            extra_root_certificates: if route.plain { Vec::new() } else { self.extra_certificates()? },
            platform_resolver: None,
            read_timeout: Some(self.options.stall_timeout),
            // The gate opens connections, and knows better why one did not open. This is for the rest: TLS.
            connect_timeout: Some(self.options.connect_timeout * 3),
            user_agent: USER_AGENT,
            http_proxy: proxy.clone(),
            https_proxy: proxy,
            ..ClientConfig::default()
        })?)
    }

    /// The certificates besides the system's, in oci-client's terms.
    fn extra_certificates(&self) -> Result<Vec<Certificate>, Cause> {
        let certificate = |der: &[u8]| Certificate { encoding: CertificateEncoding::Der, data: der.to_vec() };
        Ok(self.trust.extra()?.iter().map(|der| certificate(der)).collect())
    }

    /// A tag or a digest of the repository, in oci-client's terms.
    fn image(&self, name: &str) -> oci_client::Reference {
        let (registry, repository) =
            (self.reference.registry().to_owned(), self.reference.repository().to_owned());
        if name.contains(':') {
            oci_client::Reference::with_digest(registry, repository, name.to_owned())
        } else {
            oci_client::Reference::with_tag(registry, repository, name.to_owned())
        }
    }
}

impl Contact {
    fn encrypted(&self) -> bool {
        self.speaker.gate.route().encrypted
    }

    fn certificates(&self) -> bool {
        !self.speaker.gate.route().plain
    }
}

impl Speaker {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.gate, &other.gate)
    }

    /// Waits for an answer, and lets the gate say why there was none.
    async fn guarded<T>(
        &self,
        asked: &Asked,
        work: impl Future<Output = Result<T, OciDistributionError>>,
    ) -> Result<T, Trouble> {
        let _ = self.gate.refusal();
        // A token that came later than the one that was looked at.
        let done = AssertUnwindSafe(work).catch_unwind().await;
        let done = done.map_err(|_| asked.denied("its token service sent a malformed token"))?;
        match (self.gate.refusal(), done) {
            (Some(Refusal::NeedsCertificates), _) => Err(Trouble::NeedsCertificates),
            (Some(refusal), _) => Err(asked.refused(refusal).into()),
            (None, Ok(done)) => Ok(done),
            (None, Err(OciDistributionError::UnauthorizedError { .. })) => Err(Trouble::Unauthorized),
            (None, Err(error)) => Err(asked.failed(error).into()),
        }
    }
}

impl HttpBody {
    pub(super) async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        match self.stream.next().await {
            None => Ok(None),
            Some(Ok(bytes)) => Ok(Some(bytes.to_vec())),
            // The caller has the size and the digest that count, and says more about them.
            Some(Err(error)) if is_digest_error(&error) => Ok(None),
            Some(Err(error)) => Err(match self.speaker.gate.refusal() {
                Some(refusal) => self.asked.refused(refusal),
                None => self.asked.cut(error),
            }),
        }
    }
}

fn is_digest_error(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<DigestError>())
}

/// Docker Hub's name is not where its registry answers.
fn endpoint(registry: &str) -> &str {
    if registry == "docker.io" { "index.docker.io" } else { registry }
}

/// A connection that opened, and then gave no answer that could be read: what a TLS server does with plain HTTP
/// when it doesn't say so in words.
fn broke_off(failure: &Failure) -> bool {
    let Error::Unreachable { source, .. } = failure.error.as_ref() else { return false };
    source.downcast_ref::<reqwest::Error>().is_some_and(|error| !error.is_connect() && !error.is_timeout())
}

/// Whether what went wrong went wrong over TLS.
fn spoke_tls(failure: &Failure) -> bool {
    match failure.error.as_ref() {
        Error::Unreachable { source, .. } => speaks_tls(source.as_ref()),
        Error::Certificate { .. } | Error::Denied { .. } | Error::Misdirected { .. } => true,
        _ => false,
    }
}
