//! One repository of one registry over HTTP.
//!
//! A registry is spoken to over HTTPS, and nothing makes that fall back. On this machine it is the other way
//! round: most registries there are started for a moment, without a certificate, so plain HTTP comes first, and
//! HTTPS when the answer shows that the other side wants TLS.
//!
//! Redirects are followed here, one at a time: each hop is checked, gets the client that fits its scheme, and
//! sees the token only where it was meant for. `client` sets up connections, `route` says where they may lead,
//! `token` is the handshake for access.

mod client;
mod route;
mod token;

use std::time::Duration;

use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::{Response, StatusCode, Url};
use tokio::sync::{Mutex, OnceCell};

use self::client::{Clients, speaks_tls};
use self::token::{ANSWER_LIMIT, Challenge, read_token, words};
use super::{Again, Blob, Body, Failure, RawManifest};
use crate::manifest::{self, MANIFEST_LIMIT};
use crate::{Digest, Error, PullOptions, Reference};

/// How often a request may be sent elsewhere.
const REDIRECTS: usize = 5;
/// How long a `Retry-After` may make us wait.
const LONGEST_WAIT: Duration = Duration::from_mins(2);
/// How long a registry on this machine may take to show that it speaks TLS.
const PROBE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct HttpRegistry {
    reference: Reference,
    clients: Clients,
    /// Whether the registry is spoken to in plain HTTP; unknown until one on this machine has answered.
    plain: OnceCell<bool>,
    /// The bearer token, once the registry asked for one.
    token: Mutex<Option<String>>,
}

#[derive(Debug)]
pub(super) struct HttpBody {
    response: Response,
    registry: String,
}

impl HttpRegistry {
    pub(super) fn new(reference: &Reference, options: &PullOptions) -> Self {
        let known = options.plain_http || !reference.is_loopback();
        Self {
            reference: reference.clone(),
            clients: Clients::new(reference, options),
            plain: OnceCell::new_with(known.then_some(options.plain_http)),
            token: Mutex::new(None),
        }
    }

    pub(super) async fn manifest(&self, name: &str) -> Result<RawManifest, Failure> {
        let response = self.get("manifests", name, &[(ACCEPT, manifest::ACCEPT.to_owned())]).await?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let (media_type, digest) = (header(CONTENT_TYPE.as_str()), header("docker-content-digest"));
        let bytes = self.body(response, MANIFEST_LIMIT).await?.ok_or_else(|| {
            let what = self.what(name);
            Failure::final_(Error::TooLarge { what, limit: MANIFEST_LIMIT })
        })?;
        Ok(RawManifest { bytes, media_type, digest })
    }

    pub(super) async fn blob(&self, digest: &Digest, from: u64) -> Result<Blob, Failure> {
        let range = (from > 0).then(|| (RANGE, format!("bytes={from}-")));
        let response = self.get("blobs", digest.as_str(), range.as_slice()).await?;
        // Anything but the partial answer that was asked for is the whole blob.
        let partial = response.status() == StatusCode::PARTIAL_CONTENT
            && response
                .headers()
                .get(CONTENT_RANGE)
                .and_then(|value| value.to_str().ok())
                .is_some_and(|value| value.starts_with(&format!("bytes {from}-")));
        if response.status() == StatusCode::PARTIAL_CONTENT && !partial {
            let headers = response.headers();
            return Err(self.status(StatusCode::PARTIAL_CONTENT, digest.as_str(), headers, None));
        }
        let body = HttpBody { response, registry: self.reference.registry().to_owned() };
        Ok(Blob { start: if partial { from } else { 0 }, body: Body::Http(body) })
    }

    async fn get(
        &self,
        kind: &str,
        name: &str,
        headers: &[(HeaderName, String)],
    ) -> Result<Response, Failure> {
        let path = format!("v2/{}/{kind}/{name}", self.reference.repository());
        let token = self.token.lock().await.clone();
        let response = self.ask(&path, headers, token.as_deref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.check(response, name).await;
        }
        let Some(challenge) = Challenge::read(response.headers()) else {
            return Err(self.denied("it wants a user name and a password"));
        };
        // Either no token yet, or one that expired in the middle of a pull.
        let token = self.authenticate(token.as_deref(), &challenge).await?;
        let response = self.ask(&path, headers, Some(&token)).await?;
        self.check(response, name).await
    }

    /// Asks the registry itself, in the way that it speaks.
    async fn ask(
        &self,
        path: &str,
        headers: &[(HeaderName, String)],
        token: Option<&str>,
    ) -> Result<Response, Failure> {
        let plain = self.plain.get().copied();
        let answer = self.fetch(self.url(plain.unwrap_or(true), path)?, headers, token).await;
        if plain.is_some() {
            return answer;
        }
        let wants_tls = match &answer {
            Ok(response) => response.status() == StatusCode::BAD_REQUEST,
            Err(failure) => broke_off(failure),
        };
        if !*self.plain.get_or_init(|| async { !(wants_tls && self.speaks_tls().await) }).await {
            return self.fetch(self.url(false, path)?, headers, token).await;
        }
        answer
    }

    /// Whether a registry that answered plain HTTP badly speaks TLS.
    async fn speaks_tls(&self) -> bool {
        let Ok(url) = self.url(false, "v2/") else { return false };
        let Ok(client) = self.clients.of(&url).await else { return false };
        match client.get(url).timeout(PROBE).send().await {
            Ok(_) => true,
            Err(error) => speaks_tls(&error),
        }
    }

    /// Sends a request, and sends it again wherever the answer says.
    async fn fetch(
        &self,
        from: Url,
        headers: &[(HeaderName, String)],
        token: Option<&str>,
    ) -> Result<Response, Failure> {
        let mut url = from.clone();
        for _ in 0..=REDIRECTS {
            let mut request = self.clients.of(&url).await?.get(url.clone());
            for (name, value) in headers {
                request = request.header(name, value);
            }
            if let Some(token) = token.filter(|_| url.origin() == from.origin()) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.send().await.map_err(|error| self.clients.failed(&url, error))?;
            let status = response.status();
            tracing::debug!(%url, status = status.as_u16(), "asked");
            if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
                return Err(self.clients.refused_by_proxy(&url));
            }
            let location = response.headers().get(LOCATION).filter(|_| is_redirect(status));
            let Some(location) = location else { return Ok(response) };
            let next = location.to_str().ok().and_then(|location| url.join(location).ok());
            let next = next.ok_or_else(|| self.misdirected("nowhere", "which is no address"))?;
            self.may_follow(&url, &next)?;
            url = next;
        }
        Err(self.misdirected(url.host_str().unwrap_or_default(), "after too many others"))
    }

    /// Registries send blobs' readers to other hosts, and clients to token services. None has a reason to lead
    /// from https to http, or to an address that answers only to this machine.
    fn may_follow(&self, from: &Url, to: &Url) -> Result<(), Failure> {
        let host = to.host_str().unwrap_or_default();
        match (from.scheme(), to.scheme()) {
            (_, "https") | ("http", "http") => {}
            ("https", "http") => return Err(self.misdirected(host, "without encryption")),
            _ => return Err(self.misdirected(host, "which is no web address")),
        }
        if self.clients.guard().allows(to) {
            Ok(())
        } else {
            Err(self.misdirected(host, "an address of this machine or its cloud"))
        }
    }

    async fn check(&self, response: Response, name: &str) -> Result<Response, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let headers = response.headers().clone();
        let body = if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            // The words are worth having, but no failure of their own.
            self.body(response, ANSWER_LIMIT).await.unwrap_or_default()
        } else {
            None
        };
        Err(self.status(status, name, &headers, body.as_deref().and_then(words)))
    }

    /// Gets a token, unless another request got a new one meanwhile.
    async fn authenticate(&self, refused: Option<&str>, challenge: &Challenge) -> Result<String, Failure> {
        let mut token = self.token.lock().await;
        if let Some(fresh) = token.as_deref().filter(|fresh| Some(*fresh) != refused) {
            return Ok(fresh.to_owned());
        }
        let url = challenge.url(self.reference.repository()).map_err(|reason| self.denied(&reason))?;
        let plain = self.plain.get().copied().unwrap_or(true);
        self.may_follow(&self.url(plain, "v2/")?, &url)?;
        let response = self.fetch(url, &[], None).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.body(response, ANSWER_LIMIT).await?;
        let body = body.ok_or_else(|| self.denied("its token service sent far too much"))?;
        if !status.is_success() {
            let said = words(&body).map(|words| format!(": {words}")).unwrap_or_default();
            let mut failure = self.denied(&format!("its token service answered {status}{said}"));
            failure.again = again(status, &headers);
            return Err(failure);
        }
        let fresh = read_token(&body).map_err(|reason| self.denied(reason))?;
        Ok(token.insert(fresh).clone())
    }

    /// A whole body; `None` when it is over the limit.
    async fn body(&self, mut response: Response, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
        if response.content_length().is_some_and(|length| length > limit) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let failed = |error| unreachable(self.reference.registry(), error);
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > limit {
                return Ok(None);
            }
        }
        Ok(Some(bytes))
    }

    fn url(&self, plain: bool, path: &str) -> Result<Url, Failure> {
        let (scheme, registry) = (if plain { "http" } else { "https" }, self.reference.registry());
        Url::parse(&format!("{scheme}://{}/{path}", endpoint(registry))).map_err(|_| {
            let given = registry.to_owned();
            Failure::final_(Error::Reference { given, problem: "the registry's name makes no address" })
        })
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

    fn misdirected(&self, target: &str, problem: &'static str) -> Failure {
        let (registry, target) = (self.reference.registry().to_owned(), target.to_owned());
        Failure::final_(Error::Misdirected { registry, target, problem })
    }

    fn status(&self, status: StatusCode, name: &str, headers: &HeaderMap, words: Option<String>) -> Failure {
        let (registry, what) = (self.reference.registry().to_owned(), self.what(name));
        match status {
            StatusCode::NOT_FOUND => Failure::final_(Error::NotFound { registry, what }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                self.denied(&words.unwrap_or_else(|| format!("it answered {status}")))
            }
            _ => {
                let error = Error::Status { registry, status: status.as_u16(), what };
                Failure { error: Box::new(error), again: again(status, headers) }
            }
        }
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

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// A connection that opened, and then gave no answer that could be read: what a TLS server does with plain HTTP
/// when it doesn't say so in words.
fn broke_off(failure: &Failure) -> bool {
    let Error::Unreachable { source, .. } = failure.error.as_ref() else { return false };
    source.downcast_ref::<reqwest::Error>().is_some_and(|error| !error.is_connect() && !error.is_timeout())
}

/// For a body that broke off.
fn unreachable(registry: &str, error: reqwest::Error) -> Failure {
    let source = Box::new(error.without_url());
    Failure::passing(Error::Unreachable { registry: registry.to_owned(), source })
}

/// Whether a refusal may pass, and when.
fn again(status: StatusCode, headers: &HeaderMap) -> Again {
    let passing = status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    match retry_after(headers) {
        _ if !passing => Again::Never,
        Some(pause) => Again::After(pause),
        None => Again::Later,
    }
}

/// `Retry-After` in seconds; the form with a date is rare and is treated as absent.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Platform;

    #[test]
    fn a_registry_may_lead_elsewhere_but_not_out_of_encryption_or_into_this_machine() {
        let leads = |reference: &str, from: &str, to: &str| {
            let reference = Reference::parse(reference).expect("a reference");
            let registry = HttpRegistry::new(&reference, &PullOptions::new(Platform::linux("amd64")));
            let [from, to] = [from, to].map(|url| Url::parse(url).expect("an address"));
            registry.may_follow(&from, &to).map_err(|failure| failure.error.to_string())
        };
        let ecr = |to: &str| leads("public.ecr.aws/lambda/python:3.11", "https://public.ecr.aws/v2/", to);
        assert_eq!(ecr("https://d2glxqk2uabbnd.cloudfront.net/layer"), Ok(()));
        assert!(ecr("http://d2glxqk2uabbnd.cloudfront.net/layer").expect_err("plain").contains("encryption"));
        assert!(ecr("https://169.254.169.254/").expect_err("keys").contains("its cloud"));
        assert!(ecr("file:///etc/passwd").expect_err("a file").contains("no web address"));
        let here = |to: &str| leads("127.0.0.1:5000/a:1", "http://127.0.0.1:5000/v2/", to);
        assert_eq!(here("http://10.0.0.7:9000/bucket"), Ok(()));
        assert_eq!(here("https://s3.example.org/bucket"), Ok(()));
        assert!(here("http://169.254.169.254/").is_err());
    }
}
