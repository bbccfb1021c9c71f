//! Where requests may go: which addresses a registry may send its clients to, and through which proxy.
//!
//! A registry names other hosts in redirects and as token services, and that is how registries work. What none
//! of them has a reason to name is an address that answers only to this machine: 169.254.169.254 hands out a
//! cloud machine's keys.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::{fmt, io};

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Url;

use crate::{ProxyOptions, PullOptions, Reference};

/// Services that clouds give each machine at addresses that are not link-local: Amazon's metadata and its credentials
/// for pods, Google's metadata; Alibaba's, Oracle's, and Azure's.
const CLOUD_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];
const CLOUD_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];
/// What is never reached through a proxy: a proxy's loopback is not this machine's.
const NEVER_PROXIED: &str = "localhost,127.0.0.0/8,::1";

/// What a pull may connect to.
#[derive(Debug, Clone)]
pub(super) struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Whoever wrote the reference wanted this host.
    registry: String,
    registry_is_here: bool,
    /// Hosts of proxies: also the user's own choice.
    proxies: Vec<String>,
}

impl Guard {
    pub(super) fn new(reference: &Reference, options: &PullOptions) -> Self {
        let proxy = options.proxy.clone().unwrap_or_default();
        let proxies = [proxy.http, proxy.https].into_iter().flatten();
        let proxies = proxies.filter_map(|proxy| Some(proxy_url(&proxy)?.host_str()?.to_owned())).collect();
        let registry = format!("https://{}", reference.registry());
        let registry = Url::parse(&registry).ok().and_then(|url| url.host_str().map(str::to_owned));
        Self(Arc::new(Inner {
            registry: registry.unwrap_or_default(),
            registry_is_here: reference.is_loopback(),
            proxies,
        }))
    }

    /// Whether the registry may send us there.
    pub(super) fn allows(&self, target: &Url) -> bool {
        let Some(host) = target.host_str() else { return false };
        let address = host.trim_start_matches('[').trim_end_matches(']').parse();
        host == self.0.registry
            || match address {
                Ok(address) => self.allows_address(address),
                Err(_) => self.0.registry_is_here || !is_localhost(host),
            }
    }

    fn allows_address(&self, address: IpAddr) -> bool {
        let address = embedded(address);
        let forbidden = match address {
            IpAddr::V4(address) => {
                address.is_link_local() || address.is_unspecified() || CLOUD_V4.contains(&address)
            }
            IpAddr::V6(address) => {
                address.is_unicast_link_local() || address.is_unspecified() || CLOUD_V6.contains(&address)
            }
        };
        !forbidden && (self.0.registry_is_here || !is_own_address(address))
    }
}

/// Whether an address is this machine's: a socket can be bound to those only. None is left open, and none is heard of.
fn is_own_address(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

impl Guard {
    /// The addresses that a name may be reached at; none when all it has are forbidden ones. A name can resolve to what
    /// may not be written as an address.
    pub(super) async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((bare, port)).await?;
        let chosen = host == self.0.registry || self.0.proxies.iter().any(|proxy| proxy == host);
        Ok(found.filter(|found| chosen || self.allows_address(found.ip())).collect())
    }
}

/// The IPv4 address in an IPv6 one, where there is one: mapped, or behind NAT64.
fn embedded(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                let [a, b] = high.to_be_bytes();
                let [c, d] = low.to_be_bytes();
                Ipv4Addr::new(a, b, c, d).into()
            }
            _ => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        },
        IpAddr::V4(_) => address,
    }
}

fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    host == "localhost" || host.ends_with(".localhost")
}

/// The proxies of a pull.
#[derive(Debug)]
pub(super) struct Proxies(Matcher);

/// A proxy on the way to a target.
pub(super) struct ProxyRoute {
    /// Without user name and password.
    pub(super) url: Url,
    /// What to send as `Proxy-Authorization`.
    pub(super) authorization: Option<Vec<u8>>,
}

impl fmt::Debug for ProxyRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyRoute").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl Proxies {
    pub(super) fn new(options: &PullOptions) -> Self {
        let proxy = options.proxy.clone().unwrap_or_default();
        let exceptions = match proxy.no_proxy {
            Some(hosts) => format!("{hosts},{NEVER_PROXIED}"),
            None => NEVER_PROXIED.to_owned(),
        };
        let (http, https) = (proxy.http.unwrap_or_default(), proxy.https.unwrap_or_default());
        Self(Matcher::builder().http(http).https(https).no(exceptions).build())
    }

    /// The proxy that a target is reached through.
    pub(super) fn of(&self, target: &Url) -> Option<ProxyRoute> {
        let found = self.0.intercept(&target.as_str().parse().ok()?)?;
        let authorization = found.basic_auth().map(|value| value.as_bytes().to_vec());
        Some(ProxyRoute { url: proxy_url(&found.uri().to_string())?, authorization })
    }
}

/// Whether a setting names a proxy that can be spoken to. One that does not must not mean a direct connection.
pub(super) fn check_proxies(options: &PullOptions) -> Result<(), &'static str> {
    let proxy = options.proxy.clone().unwrap_or_default();
    let set = [proxy.http, proxy.https].into_iter().flatten().filter(|text| !text.is_empty());
    for text in set {
        // As the matcher reads it, whatever the target.
        let Some(url) = proxy_url(&text) else { return Err("a proxy's setting is no address") };
        if !matches!(url.scheme(), "http" | "https") {
            return Err("a proxy's setting names another kind of proxy than http and https");
        }
        let options = PullOptions {
            proxy: Some(ProxyOptions { https: Some(text), ..ProxyOptions::default() }),
            ..options.clone()
        };
        let target = Url::parse("https://registry.invalid/").map_err(|_| "no target")?;
        if Proxies::new(&options).of(&target).is_none() {
            return Err("a proxy's setting is no address");
        }
    }
    Ok(())
}

/// A proxy is often written without its scheme.
fn proxy_url(text: &str) -> Option<Url> {
    let parsed = Url::parse(text).ok().filter(Url::has_host);
    parsed.or_else(|| Url::parse(&format!("http://{text}")).ok())
}

/// Host and port as they stand in an address.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Platform;

    fn options(proxy: Option<ProxyOptions>) -> PullOptions {
        PullOptions { proxy, ..PullOptions::new(Platform::linux("amd64")) }
    }

    fn guard(registry: &str) -> Guard {
        Guard::new(&Reference::parse(&format!("{registry}/a:1")).expect(registry), &options(None))
    }

    #[test]
    fn addresses_of_this_machine_or_its_cloud_are_refused_unless_the_registry_is_there() {
        let allows = |registry: &str, url: &str| guard(registry).allows(&Url::parse(url).expect(url));
        for url in [
            "https://169.254.169.254/x",
            "https://169.254.170.2/",
            "https://2852039166/",
            "https://0xa9fea9fe/",
            "https://[fe80::1]/",
            "https://[fd00:ec2::254]/",
            "https://[fd00:ec2::23]/",
            "https://[fd20:ce::254]/",
            "https://100.100.100.200/",
            "https://168.63.129.16/",
            "https://[::ffff:169.254.169.254]/",
            "https://[64:ff9b::a9fe:a9fe]/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://localhost/",
            "https://localhost./",
            "https://a.localhost/",
            "https://0.0.0.0/",
        ] {
            assert!(!allows("public.ecr.aws", url), "{url}");
        }
        assert!(allows("public.ecr.aws", "https://cdn.example.org/x"));
        assert!(allows("public.ecr.aws", "https://10.1.2.3/x"));
        assert!(allows("127.0.0.1:5000", "http://127.0.0.1:9/x"));
        assert!(allows("localhost:5000", "http://[::1]:9/x"));
        assert!(!allows("127.0.0.1:5000", "http://169.254.169.254/x"));
        assert!(allows("169.254.7.7:5000", "https://169.254.7.7/x"));
        assert!(!allows("169.254.7.7:5000", "https://169.254.169.254/x"));
    }

    #[test]
    fn an_address_of_this_machine_is_known_by_binding_to_it() {
        let own = |address: &str| is_own_address(address.parse().expect(address));
        assert!(own("127.0.0.1") && own("127.200.1.1") && own("::1"));
        // For documentation: nobody's.
        assert!(!own("192.0.2.1") && !own("2001:db8::1"));
    }

    #[tokio::test]
    async fn a_name_may_not_resolve_to_this_machine_unless_the_user_named_it() {
        let resolve = async |guard: Guard| guard.addresses("localhost", 80).await.expect("a name").len();
        assert_eq!(resolve(guard("public.ecr.aws")).await, 0);
        assert_ne!(resolve(guard("localhost:5000")).await, 0);
        let proxy = ProxyOptions { https: Some("localhost:3128".to_owned()), ..ProxyOptions::default() };
        let reference = Reference::parse("public.ecr.aws/a:1").expect("a reference");
        assert_ne!(resolve(Guard::new(&reference, &options(Some(proxy)))).await, 0);
    }

    #[test]
    fn a_setting_that_names_no_proxy_is_an_error_and_not_a_direct_connection() {
        let check = |text: &str| {
            let (http, https) = (Some(text.to_owned()), None);
            check_proxies(&options(Some(ProxyOptions { http, https, no_proxy: None })))
        };
        for bad in
            ["http://us er:pw@127.0.0.1:1", "http://u:p@[::1", "ftp://u:p@127.0.0.1:1", "socks5://a.test"]
        {
            assert!(check(bad).is_err(), "{bad}");
        }
        for good in
            ["", "proxy.test:3128", "http://u:p@proxy.test", "https://proxy.test:443/", "user:pw@a.test:1"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn proxies_are_named_without_their_password_and_never_take_loopback() {
        let proxies = Proxies::new(&options(Some(ProxyOptions {
            http: Some("http://user:secret@proxy.test:3128".to_owned()),
            https: Some("proxy.test:3129".to_owned()),
            no_proxy: Some(".internal,10.0.0.0/8".to_owned()),
        })));
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
        assert!(Proxies::new(&options(None)).of(&Url::parse("https://a.test/").expect("a URL")).is_none());
    }
}
