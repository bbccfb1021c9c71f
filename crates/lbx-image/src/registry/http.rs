//! One repository of one registry over HTTP.
//!
//! oci-client does the authentication handshake, explicitly, so that its errors are seen. The bodies are read
//! here: oci-client reads a manifest without a limit, drops its content type, and knows neither `Retry-After`
//! nor a redirect policy.

use std::net::IpAddr;
use std::time::Duration;

use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, RANGE, RETRY_AFTER};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{NoProxy, Proxy, Response, StatusCode, Url};
use tokio::sync::Mutex;

use super::{Again, Blob, Body, Failure, RawManifest};
use crate::manifest::{self, MANIFEST_LIMIT};
use crate::{Digest, Error, PullOptions, Reference};

const USER_AGENT: &str = concat!("lbx/", env!("CARGO_PKG_VERSION"));
/// How often a request may be sent elsewhere.
const REDIRECTS: usize = 5;
/// How long a `Retry-After` may make us wait.
const LONGEST_WAIT: Duration = Duration::from_mins(2);

#[derive(Debug)]
pub(super) struct HttpRegistry {
    reference: Reference,
    options: PullOptions,
    plain: bool,
    client: reqwest::Client,
    /// The bearer token, once the registry asked for one.
    token: Mutex<Option<String>>,
}

#[derive(Debug)]
pub(super) struct HttpBody {
    response: Response,
    registry: String,
}

impl HttpRegistry {
    pub(super) fn new(reference: &Reference, options: &PullOptions) -> Result<Self, Error> {
        // The process has one default; whoever set it first chose the same or had a reason.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let plain = options.plain_http || reference.is_loopback();
        let setup = |source: reqwest::Error| Error::Setup {
            registry: reference.registry().to_owned(),
            source: Box::new(source),
        };
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.stall_timeout)
            .redirect(redirect_policy(plain, reference.registry().to_owned()))
            .no_proxy();
        if plain {
            // Nothing to trust, and nothing to fail over where no certificates are installed.
            builder = builder.tls_certs_only([]);
        } else {
            for pem in &options.extra_ca_pem {
                let bundle = reqwest::Certificate::from_pem_bundle(pem).map_err(setup)?;
                builder = builder.tls_certs_merge(bundle);
            }
        }
        for proxy in proxies(options).map_err(setup)? {
            builder = builder.proxy(proxy);
        }
        let client = builder.build().map_err(setup)?;
        Ok(Self {
            reference: reference.clone(),
            options: options.clone(),
            plain,
            client,
            token: Mutex::new(None),
        })
    }

    pub(super) async fn manifest(&self, name: &str) -> Result<RawManifest, Failure> {
        let headers = [(ACCEPT, manifest::ACCEPT.to_owned())].into_iter();
        let mut response = self.get("manifests", name, headers).await?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let (media_type, digest) = (header(CONTENT_TYPE.as_str()), header("docker-content-digest"));
        let too_large = || {
            let what = self.what(name);
            Failure::final_(Error::TooLarge { what, limit: MANIFEST_LIMIT })
        };
        if response.content_length().is_some_and(|length| length > MANIFEST_LIMIT) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > MANIFEST_LIMIT {
                return Err(too_large());
            }
        }
        Ok(RawManifest { bytes, media_type, digest })
    }

    pub(super) async fn blob(&self, digest: &Digest, from: u64) -> Result<Blob, Failure> {
        let range = (from > 0).then(|| (RANGE, format!("bytes={from}-")));
        let response = self.get("blobs", digest.as_str(), range.into_iter()).await?;
        // Anything but the partial answer that was asked for is the whole blob.
        let partial = response.status() == StatusCode::PARTIAL_CONTENT
            && response
                .headers()
                .get("content-range")
                .and_then(|value| value.to_str().ok())
                .is_some_and(|value| value.starts_with(&format!("bytes {from}-")));
        if response.status() == StatusCode::PARTIAL_CONTENT && !partial {
            return Err(self.status(StatusCode::PARTIAL_CONTENT, digest.as_str(), response.headers()));
        }
        let body = HttpBody { response, registry: self.reference.registry().to_owned() };
        Ok(Blob { start: if partial { from } else { 0 }, body: Body::Http(body) })
    }

    async fn get(
        &self,
        kind: &str,
        name: &str,
        headers: impl Iterator<Item = (reqwest::header::HeaderName, String)>,
    ) -> Result<Response, Failure> {
        let (scheme, registry) =
            (if self.plain { "http" } else { "https" }, endpoint(self.reference.registry()));
        let url = format!("{scheme}://{registry}/v2/{}/{kind}/{name}", self.reference.repository());
        let mut request = self.client.get(&url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let again = request.try_clone();
        let token = self.token.lock().await.clone();
        if let Some(token) = &token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        tracing::debug!(url, status = response.status().as_u16(), "asked the registry");
        let (StatusCode::UNAUTHORIZED, Some(again)) = (response.status(), again) else {
            return self.check(response, name);
        };
        // Either no token yet, or one that expired in the middle of a pull.
        let token = self.authenticate(token.as_deref()).await?;
        let response = again
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .send()
            .await
            .map_err(|error| self.unreachable(error))?;
        self.check(response, name)
    }

    fn check(&self, response: Response, name: &str) -> Result<Response, Failure> {
        let status = response.status();
        if status.is_success() { Ok(response) } else { Err(self.status(status, name, response.headers())) }
    }

    /// Gets a token, unless another request got a new one meanwhile.
    async fn authenticate(&self, refused: Option<&str>) -> Result<String, Failure> {
        let mut token = self.token.lock().await;
        if let Some(fresh) = token.as_deref().filter(|fresh| Some(*fresh) != refused) {
            return Ok(fresh.to_owned());
        }
        let client = Client::try_from(self.auth_config()).map_err(|error| {
            let registry = self.reference.registry().to_owned();
            Failure::final_(Error::Setup { registry, source: Box::new(error) })
        })?;
        let (registry, repository) = (self.reference.registry(), self.reference.repository());
        let image =
            oci_client::Reference::with_tag(registry.to_owned(), repository.to_owned(), String::new());
        let answer = client.auth(&image, &RegistryAuth::Anonymous, RegistryOperation::Pull).await;
        let fresh = answer.map_err(|error| match error {
            OciDistributionError::RequestError(error) => self.unreachable(error),
            error => self.denied(&error.to_string()),
        })?;
        let fresh = fresh.ok_or_else(|| self.denied("it wants a user name and a password"))?;
        Ok(token.insert(fresh).clone())
    }

    fn auth_config(&self) -> ClientConfig {
        let certificate =
            |pem: &Vec<u8>| Certificate { encoding: CertificateEncoding::Pem, data: pem.clone() };
        let options = &self.options;
        let proxy = options.proxy.clone().unwrap_or_default();
        let direct = proxy.http.is_none() && proxy.https.is_none();
        // Without a proxy of its own, oci-client would take the environment's; one that nothing uses prevents it.
        let unused = direct.then(|| "http://127.0.0.1:9".to_owned());
        ClientConfig {
            protocol: if self.plain { ClientProtocol::Http } else { ClientProtocol::Https },
            extra_root_certificates: options.extra_ca_pem.iter().map(certificate).collect(),
            platform_resolver: None,
            read_timeout: Some(options.stall_timeout),
            connect_timeout: Some(options.connect_timeout),
            user_agent: USER_AGENT,
            https_proxy: proxy.https,
            http_proxy: proxy.http.or(unused),
            no_proxy: if direct { Some("*,0.0.0.0/0,::/0".to_owned()) } else { proxy.no_proxy },
            ..ClientConfig::default()
        }
    }

    fn what(&self, name: &str) -> String {
        let joint = if name.contains(':') { '@' } else { ':' };
        format!("{}{joint}{name}", self.reference.repository())
    }

    fn denied(&self, reason: &str) -> Failure {
        let (registry, repository) =
            (self.reference.registry().to_owned(), self.reference.repository().to_owned());
        Failure::final_(Error::Denied { registry, repository, reason: reason.trim().to_owned() })
    }

    fn status(&self, status: StatusCode, name: &str, headers: &HeaderMap) -> Failure {
        let (registry, what) = (self.reference.registry().to_owned(), self.what(name));
        match status {
            StatusCode::NOT_FOUND => Failure::final_(Error::NotFound { registry, what }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.denied(&format!("it answered {status}")),
            _ => {
                let error = Error::Status { registry, status: status.as_u16(), what };
                let passing = status.is_server_error()
                    || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
                let again = match retry_after(headers) {
                    _ if !passing => Again::Never,
                    Some(pause) => Again::After(pause),
                    None => Again::Later,
                };
                Failure { error: Box::new(error), again }
            }
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> Failure {
        unreachable(self.reference.registry(), error)
    }
}

impl HttpBody {
    pub(super) async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let chunk = self.response.chunk().await.map_err(|error| unreachable(&self.registry, error))?;
        Ok(chunk.map(|bytes| bytes.to_vec()))
    }
}

/// Docker Hub's name is not where its registry answers.
fn endpoint(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

fn unreachable(registry: &str, error: reqwest::Error) -> Failure {
    // A refused redirect or a malformed address stays what it is, however often it is asked for.
    let passing = !(error.is_redirect() || error.is_builder());
    let error = Error::Unreachable { registry: registry.to_owned(), source: Box::new(error.without_url()) };
    if passing { Failure::passing(error) } else { Failure::final_(error) }
}

/// `Retry-After` in seconds; the form with a date is rare and is treated as absent.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

fn proxies(options: &PullOptions) -> Result<Vec<Proxy>, reqwest::Error> {
    let Some(proxy) = &options.proxy else { return Ok(Vec::new()) };
    let exceptions = || proxy.no_proxy.as_deref().and_then(NoProxy::from_string);
    let http = proxy.http.as_deref().map(|url| Ok(Proxy::http(url)?.no_proxy(exceptions())));
    let https = proxy.https.as_deref().map(|url| Ok(Proxy::https(url)?.no_proxy(exceptions())));
    http.into_iter().chain(https).collect()
}

/// Registries send blobs' readers to a CDN; reqwest drops credentials on the way to another host. What no
/// registry has a reason to do is to lead from https to http, or to an address that answers only to this
/// machine (169.254.169.254 hands out a cloud machine's keys).
fn redirect_policy(plain: bool, registry: String) -> Policy {
    Policy::custom(move |attempt: Attempt<'_>| {
        let target = attempt.url();
        let refused = if attempt.previous().len() > REDIRECTS {
            Some("too many redirects")
        } else if target.scheme() != "https" && !plain {
            Some("a redirect from https to http")
        } else if is_forbidden(target, &registry) {
            Some("a redirect to an address of this machine or its cloud")
        } else {
            None
        };
        match refused {
            Some(reason) => {
                let target = target.host_str().unwrap_or_default().to_owned();
                attempt.error(format!("{reason} ({target})"))
            }
            None => attempt.follow(),
        }
    })
}

fn is_forbidden(target: &Url, registry: &str) -> bool {
    let Some(host) = target.host_str() else { return true };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let registry_is_here = Reference::parse(&format!("{registry}/x")).is_ok_and(|name| name.is_loopback());
    match address {
        Ok(IpAddr::V4(address)) => {
            address.is_link_local()
                || address.is_unspecified()
                || (address.is_loopback() && !registry_is_here)
        }
        Ok(IpAddr::V6(address)) => {
            address.is_unicast_link_local()
                || address.is_unspecified()
                || address.to_ipv4_mapped().is_some()
                || (address.is_loopback() && !registry_is_here)
        }
        Err(_) => host == "localhost" && !registry_is_here,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_to_this_machine_or_its_cloud_are_refused() {
        let forbidden = |url: &str, registry: &str| is_forbidden(&Url::parse(url).expect(url), registry);
        for url in [
            "https://169.254.169.254/x",
            "https://[fe80::1]/",
            "https://127.0.0.1/",
            "https://localhost/",
            "https://[::ffff:169.254.169.254]/",
            "https://0.0.0.0/",
        ] {
            assert!(forbidden(url, "public.ecr.aws"), "{url}");
        }
        assert!(!forbidden("https://cdn.example.org/x", "public.ecr.aws"));
        assert!(!forbidden("http://127.0.0.1:9/x", "127.0.0.1:5000"));
        assert!(forbidden("http://169.254.169.254/x", "127.0.0.1:5000"));
    }
}
