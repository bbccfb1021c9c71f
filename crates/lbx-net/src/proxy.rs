//! Proxies: which one leads to a target, and what to tell it.

use std::fmt;

use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

use crate::{Error, authority};

/// What is never reached through a proxy: a proxy's loopback is not this machine's.
const NEVER_PROXIED: &str = "localhost,127.0.0.0/8,::1";

/// Proxies, in the forms of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxyOptions {
    /// For plain HTTP.
    pub http: Option<String>,
    /// For HTTPS.
    pub https: Option<String>,
    /// Hosts to reach directly, separated by commas.
    pub no_proxy: Option<String>,
}

impl ProxyOptions {
    /// The hosts of the proxies, as they stand in addresses, with their ports.
    pub(crate) fn places(&self) -> Vec<(String, u16)> {
        let set = [&self.http, &self.https].into_iter().flatten();
        set.filter_map(|proxy| {
            let url = proxy_url(proxy)?;
            Some((url.host_str()?.to_owned(), url.port_or_known_default()?))
        })
        .collect()
    }
}

impl fmt::Debug for ProxyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An address may have a password in it.
        let shown = |text: &Option<String>| {
            text.as_ref().map(|text| proxy_url(text).map_or("no address".to_owned(), |url| authority(&url)))
        };
        f.debug_struct("ProxyOptions")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

/// The proxies to targets.
pub struct Proxies(Matcher);

/// A proxy on the way to a target.
pub struct ProxyRoute {
    /// Without user name and password.
    pub url: Url,
    /// What to send as `Proxy-Authorization`.
    pub authorization: Option<Vec<u8>>,
}

impl fmt::Debug for ProxyRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyRoute").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The matcher would show what the proxies are told.
        f.debug_struct("Proxies").finish_non_exhaustive()
    }
}

impl Proxies {
    /// Without options, every target is reached directly.
    pub fn new(options: Option<&ProxyOptions>) -> Self {
        let proxy = options.cloned().unwrap_or_default();
        let exceptions = match proxy.no_proxy {
            Some(hosts) => format!("{hosts},{NEVER_PROXIED}"),
            None => NEVER_PROXIED.to_owned(),
        };
        let (http, https) = (proxy.http.unwrap_or_default(), proxy.https.unwrap_or_default());
        Self(Matcher::builder().http(http).https(https).no(exceptions).build())
    }

    /// The proxy that a target is reached through.
    pub fn of(&self, target: &Url) -> Option<ProxyRoute> {
        let found = self.0.intercept(&target.as_str().parse().ok()?)?;
        let authorization = found.basic_auth().map(|value| value.as_bytes().to_vec());
        Some(ProxyRoute { url: proxy_url(&found.uri().to_string())?, authorization })
    }
}

/// Whether the settings name proxies that can be spoken to. One that does not must not mean a direct connection.
pub fn check_proxies(options: Option<&ProxyOptions>) -> Result<(), Error> {
    let proxy = options.cloned().unwrap_or_default();
    let set = [proxy.http, proxy.https].into_iter().flatten().filter(|text| !text.is_empty());
    for text in set {
        // As the matcher reads it, whatever the target.
        let url = proxy_url(&text).ok_or(Error::ProxyAddress)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::ProxyKind);
        }
        let options = ProxyOptions { https: Some(text), ..ProxyOptions::default() };
        let target = Url::parse("https://server.invalid/").map_err(|_| Error::ProxyAddress)?;
        if Proxies::new(Some(&options)).of(&target).is_none() {
            return Err(Error::ProxyAddress);
        }
    }
    Ok(())
}

/// A proxy is often written without its scheme.
fn proxy_url(text: &str) -> Option<Url> {
    let parsed = Url::parse(text).ok().filter(Url::has_host);
    parsed.or_else(|| Url::parse(&format!("http://{text}")).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_names_no_proxy_is_an_error_and_not_a_direct_connection() {
        let check = |text: &str| {
            let (http, https) = (Some(text.to_owned()), None);
            check_proxies(Some(&ProxyOptions { http, https, no_proxy: None }))
        };
        for bad in
            ["http://us er:pw@127.0.0.1:1", "http://u:p@[::1", "ftp://u:p@127.0.0.1:1", "socks5://a.test"]
        {
            assert!(check(bad).is_err(), "{bad}");
        }
        for good in
            ["", "proxy.test:3128", "http://u:p@proxy.test", "https://proxy.test:443/", "user:pw@a.test:1"]
        {
            assert!(check(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn proxies_are_named_without_their_password_and_never_take_loopback() {
        let options = ProxyOptions {
            http: Some("http://user:secret@proxy.test:3128".to_owned()),
            https: Some("proxy.test:3129".to_owned()),
            no_proxy: Some(".internal,10.0.0.0/8".to_owned()),
        };
        let proxies = Proxies::new(Some(&options));
        let shown = format!("{options:?} {proxies:?}");
        assert!(shown.contains("proxy.test:3128") && !shown.contains("secret"), "{shown}");
        let found = |url: &str| proxies.of(&Url::parse(url).expect(url));
        let of = |url: &str| found(url).map(|proxy| proxy.url.to_string());
        assert_eq!(of("http://a.test/").as_deref(), Some("http://proxy.test:3128/"));
        assert_eq!(of("https://a.test/").as_deref(), Some("http://proxy.test:3129/"));
        let proxy = found("http://a.test/").expect("a proxy");
        assert_eq!(proxy.authorization.as_deref(), Some(&b"Basic dXNlcjpzZWNyZXQ="[..]));
        assert!(!format!("{proxy:?}").contains("dXNl"), "{proxy:?}");
        for direct in
            ["https://a.internal/", "http://10.1.2.3/", "http://127.0.0.1:5000/", "http://localhost:1/"]
        {
            assert_eq!(of(direct), None, "{direct}");
        }
        assert!(Proxies::new(None).of(&Url::parse("https://a.test/").expect("a URL")).is_none());
    }
}
