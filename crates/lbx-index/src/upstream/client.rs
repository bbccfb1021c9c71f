//! One request to an index, with the redirects that it takes.
//!
//! Where a request goes is judged before it goes there, at each step: by the guard of `lbx-net`, by name and by
//! address, and never from HTTPS to plain HTTP. A login goes to its own origin, and none goes along once a redirect
//! has led to another.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lbx_net::{Guard, Proxies, Trust, authority, certificate_problem, speaks_no_tls};
use reqwest::dns::{Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, Response, StatusCode};
use url::Url;

use super::retry::{Again, Failure, retry_after};
use crate::{Address, Cause, Error, Login, Origin, SafeUrl, Settings};

const USER_AGENT: &str = concat!("lbx/", env!("CARGO_PKG_VERSION"));
/// The most redirects that are followed.
const REDIRECTS: usize = 10;

/// What speaks to all indexes.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) settings: Settings,
    guard: Guard,
    /// Hosts that the user named.
    named: Vec<String>,
    proxies: Arc<Proxies>,
    trust: Trust,
    plain: OnceLock<Client>,
    verified: OnceLock<Client>,
    /// For trusted hosts.
    lenient: OnceLock<Client>,
    /// What a keyring knew.
    remembered: Mutex<HashMap<Origin, Login>>,
}

/// What to ask for.
pub(crate) struct Ask<'a> {
    pub(crate) address: &'a Address,
    /// Whose login may go along, besides the address's own.
    pub(crate) index: Option<&'a Address>,
    /// What led here came over HTTPS, so this must, too.
    pub(crate) encrypted: bool,
    pub(crate) headers: HeaderMap,
}

/// What came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// Where it came from in the end.
    pub(crate) url: Url,
}

/// Says that a name leads nowhere but to where it must not.
#[derive(Debug, thiserror::Error)]
#[error("it leads to this machine, or to what only its cloud answers")]
struct Forbidden;

/// Names are resolved by the guard.
#[derive(Debug)]
struct Resolver(Guard);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            let found = guard.addresses(name.as_str(), 0).await?;
            if found.is_empty() {
                return Err(Cause::from(Forbidden));
            }
            Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

impl Upstream {
    pub(crate) fn new(settings: Settings) -> Result<Self, Error> {
        settings.check()?;
        let chosen = settings.addresses().into_iter();
        let mut named: Vec<String> = chosen.map(|address| address.origin().host().to_owned()).collect();
        named.extend(settings.trusted_hosts.iter().map(|trusted| trusted.host().to_owned()));
        let certificate = settings.client_certificate.as_ref().map(|certificate| certificate.0.clone());
        Ok(Self {
            guard: Guard::new(named.clone(), false, settings.proxy.as_ref()),
            named,
            proxies: Arc::new(Proxies::new(settings.proxy.as_ref())),
            trust: Trust::new(&settings.ca_pem).with_client_certificate(certificate),
            plain: OnceLock::new(),
            verified: OnceLock::new(),
            lenient: OnceLock::new(),
            remembered: Mutex::default(),
            settings,
        })
    }

    /// Asks, and returns whatever answer comes in the end: success, not modified, not found. Refusals and what may
    /// pass are failures.
    pub(crate) async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, Failure> {
        let what = ask.address.safe();
        if self.settings.offline {
            return Err(Error::Offline { what: what.to_string() }.into());
        }
        let start = ask.address.origin();
        let mut login = self.known_login(ask);
        let mut asked_keyring = false;
        let (mut url, mut at_home) = (ask.address.url().clone(), true);
        let mut encrypted = ask.encrypted;
        let mut from = start.clone();
        for _ in 0..=REDIRECTS {
            self.check(&from, &url, encrypted)?;
            let response = self.send(&url, ask, login.as_ref().filter(|_| at_home)).await?;
            let status = response.status();
            if let Some(target) = redirect(&response, &url) {
                from = Origin::of(&url);
                encrypted |= url.scheme() == "https";
                url = target.map_err(|target| misdirected(&from, &target, "which is no web address"))?;
                at_home &= Origin::of(&url) == start;
                continue;
            }
            if status == StatusCode::UNAUTHORIZED && at_home && !asked_keyring {
                asked_keyring = true;
                let found = self.keyring_login(ask, login.as_ref()).await;
                if found.is_some() {
                    login = found;
                    continue;
                }
            }
            return accept(response, url, &what, login.is_some() && at_home);
        }
        Err(misdirected(&from, &authority(&url), "after too many others").into())
    }

    /// Whether a request may go there.
    fn check(&self, from: &Origin, url: &Url, encrypted: bool) -> Result<(), Error> {
        let origin = Origin::of(url);
        if !matches!(url.scheme(), "http" | "https") {
            return Err(misdirected(from, &format!("{}:…", url.scheme()), "which is no web address"));
        }
        if !self.guard.allows(url) {
            return Err(misdirected(from, &origin.authority(), FORBIDDEN));
        }
        if origin.is_encrypted() {
            return Ok(());
        }
        if encrypted {
            return Err(misdirected(from, &origin.authority(), "without encryption"));
        }
        if !self.settings.may_be_plain(&origin) {
            return Err(Error::Insecure { address: SafeUrl::of(url) });
        }
        Ok(())
    }

    async fn send(&self, url: &Url, ask: &Ask<'_>, login: Option<&Login>) -> Result<Response, Failure> {
        let client = self.client(url)?;
        // The fragment is the client's own.
        let mut bare = url.clone();
        bare.set_fragment(None);
        let mut request = client.get(bare).headers(ask.headers.clone());
        if let Some(login) = login {
            request = request.header(AUTHORIZATION, basic(login)?);
        }
        request.send().await.map_err(|error| self.failure(url, error))
    }

    fn known_login(&self, ask: &Ask<'_>) -> Option<Login> {
        let origin = ask.address.origin();
        let named = self.named.iter().any(|host| host == origin.host());
        let found = self.settings.credentials.login(ask.address, ask.index, named);
        if found.as_ref().is_some_and(|login| login.password.is_some()) {
            return found;
        }
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(&origin).cloned().or(found)
    }

    /// Somebody is known by name and not by password, and the server wants one.
    async fn keyring_login(&self, ask: &Ask<'_>, login: Option<&Login>) -> Option<Login> {
        let keyring = self.settings.credentials.keyring.as_ref()?;
        let user = &login.filter(|login| login.password.is_none())?.user;
        let origin = ask.address.origin();
        let found = keyring.login(&ask.index.unwrap_or(ask.address).safe(), &origin, user).await?;
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).insert(origin, found.clone());
        Some(found)
    }

    /// The client for an address. Certificates are read when one is first needed.
    fn client(&self, url: &Url) -> Result<Client, Error> {
        let origin = Origin::of(url);
        let proxy_is_encrypted = self.proxies.of(url).is_some_and(|proxy| proxy.url.scheme() == "https");
        let setup = |source: Cause| Error::Setup { source };
        let (place, config) = if !origin.is_encrypted() && !proxy_is_encrypted {
            (&self.plain, None)
        } else if self.settings.trusts(&origin) {
            let hosts: Vec<_> =
                self.settings.trusted_hosts.iter().map(|trusted| trusted.host().to_owned()).collect();
            (&self.lenient, Some(hosts))
        } else {
            (&self.verified, Some(Vec::new()))
        };
        if let Some(client) = place.get() {
            return Ok(client.clone());
        }
        let config = match config {
            None => None,
            Some(hosts) => Some(self.trust.rustls_without(&hosts).map_err(|error| setup(error.into()))?),
        };
        let client = self.build(config).map_err(setup)?;
        Ok(place.get_or_init(|| client).clone())
    }

    fn build(&self, config: Option<Arc<rustls::ClientConfig>>) -> Result<Client, Cause> {
        let config = match config {
            Some(config) => Arc::unwrap_or_clone(config),
            // Never shakes a hand.
            None => rustls::ClientConfig::builder()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
        };
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(self.settings.timeouts.connect)
            .read_timeout(self.settings.timeouts.stall)
            .pool_idle_timeout(Duration::from_secs(30))
            .dns_resolver(Arc::new(Resolver(self.guard.clone())))
            .tls_backend_preconfigured(config);
        for scheme in ["http", "https"] {
            builder = builder.proxy(self.proxy(scheme)?);
        }
        Ok(builder.build()?)
    }

    /// The proxy for a scheme, which is chosen by target.
    fn proxy(&self, scheme: &'static str) -> Result<reqwest::Proxy, Cause> {
        let proxies = Arc::clone(&self.proxies);
        let proxy = reqwest::Proxy::custom(move |url| {
            if url.scheme() == scheme { proxies.of(url).map(|proxy| proxy.url) } else { None }
        });
        let sample = Url::parse(&format!("{scheme}://server.invalid/"))?;
        let Some(authorization) = self.proxies.of(&sample).and_then(|proxy| proxy.authorization) else {
            return Ok(proxy);
        };
        let mut value = HeaderValue::from_bytes(&authorization)?;
        value.set_sensitive(true);
        Ok(proxy.custom_http_auth(value))
    }

    /// What it means that a request got no answer, or that an answer broke off.
    pub(crate) fn failure(&self, url: &Url, error: reqwest::Error) -> Failure {
        let origin = Origin::of(url);
        let host = origin.authority();
        // Its own words may have the address in them.
        let error = error.without_url();
        if let Some(problem) = certificate_problem(&error) {
            return Error::Certificate { host, problem }.into();
        }
        if has_cause::<Forbidden>(&error) {
            return misdirected(&origin, &host, FORBIDDEN).into();
        }
        if speaks_no_tls(&error) {
            return Error::Unreachable { host, source: "it does not speak TLS".into() }.into();
        }
        if error.is_timeout() && !error.is_connect() {
            let seconds = self.settings.timeouts.stall.as_secs();
            return Failure::passing(Error::Stalled { host, seconds });
        }
        let source = Box::new(error);
        match self.proxies.of(url) {
            Some(proxy) if source.is_connect() => {
                let proxy = format!("{}://{}", proxy.url.scheme(), authority(&proxy.url));
                Failure::passing(Error::Proxy { host, proxy, source })
            }
            _ => Failure::passing(Error::Unreachable { host, source }),
        }
    }
}

const FORBIDDEN: &str = "an address of this machine, or one that only its cloud answers";

fn has_cause<T: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<T>() {
            return true;
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = inner.map(|inner| inner as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    }
    false
}

fn misdirected(from: &Origin, target: &str, problem: &'static str) -> Error {
    Error::Misdirected { host: from.authority(), target: target.to_owned(), problem }
}

/// Where an answer sends on to, without a login that a stranger wrote into it; else what it says.
fn redirect(response: &Response, url: &Url) -> Option<Result<Url, String>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let said = response.headers().get(LOCATION)?.to_str().ok()?;
    let target = url.join(said).ok().filter(Url::has_host);
    Some(match target {
        Some(target) => Ok(Address::from_url(target).url().clone()),
        // The words are not repeated: they may have a login in them.
        None => Err("somewhere".to_owned()),
    })
}

fn accept(response: Response, url: Url, what: &SafeUrl, shown: bool) -> Result<Answer, Failure> {
    let host = Origin::of(&url).authority();
    let (status, what) = (response.status().as_u16(), what.clone());
    let again = match status {
        200 | 206 | 304 | 404 | 410 | 416 => return Ok(Answer { response, url }),
        401 | 403 => {
            let reason =
                if shown { "the login that it was given is not good" } else { "it was given no login" };
            return Err(Error::Denied { host, what, status, reason }.into());
        }
        429 | 503 => retry_after(response.headers()).map_or(Again::Later, Again::After),
        408 | 500.. => Again::Later,
        _ => Again::Never,
    };
    Err(Failure { error: Box::new(Error::Status { host, status, what }), again })
}

fn basic(login: &Login) -> Result<HeaderValue, Error> {
    let password = login.password.as_ref().map(crate::Password::expose).unwrap_or_default();
    let encoded = STANDARD.encode(format!("{}:{password}", login.user));
    // Base64 is always a value.
    let mut value = HeaderValue::from_str(&format!("Basic {encoded}"))
        .map_err(|error| Error::Setup { source: error.into() })?;
    value.set_sensitive(true);
    Ok(value)
}
