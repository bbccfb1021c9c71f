//! Where requests may go: which addresses a server may send its clients to.
//!
//! Registries and indexes name other hosts in redirects, as token services and in links, and that is how they work.
//! What none of them has a reason to name is an address that answers only to this machine: 169.254.169.254 hands out
//! a cloud machine's keys.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use url::Url;

use crate::ProxyOptions;

/// Services that clouds give each machine at addresses that are not link-local: Amazon's metadata and its credentials
/// for pods, Google's metadata; Alibaba's, Oracle's, and Azure's.
const CLOUD_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];
const CLOUD_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];
/// Names that machines have for themselves in their hosts files, and that clouds have for their metadata services. A proxy may
/// know them, too.
const OWN_NAMES: [&str; 5] =
    ["localhost.localdomain", "ip6-localhost", "ip6-loopback", "metadata.google.internal", "instance-data"];
/// What may be connected to. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The user wanted these hosts.
    chosen: Vec<String>,
    own: bool,
    /// Hosts of proxies, with their ports: also the user's own choice.
    proxies: Vec<(String, u16)>,
}

impl Guard {
    /// A guard for the hosts that the user named, as they stand in addresses, and for the user's proxies. With `own`,
    /// servers may lead to any address of this machine, because they are there themselves.
    pub fn new(chosen: impl IntoIterator<Item = String>, own: bool, proxy: Option<&ProxyOptions>) -> Self {
        let proxies = proxy.map(ProxyOptions::places).unwrap_or_default();
        Self(Arc::new(Inner { chosen: chosen.into_iter().collect(), own, proxies }))
    }

    /// Whether a server may send us there.
    pub fn allows(&self, target: &Url) -> bool {
        let Some(host) = target.host_str() else { return false };
        self.is_chosen(host)
            || match bare_host(host).parse() {
                Ok(address) => self.allows_address(address),
                Err(_) => self.0.own || !is_localhost(host),
            }
    }

    fn is_chosen(&self, host: &str) -> bool {
        self.0.chosen.iter().any(|chosen| chosen == host)
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
        !forbidden && (self.0.own || !is_own_address(address))
    }
}

/// Whether an address is this machine's: a socket can be bound to those only. None is left open, and none is heard of.
fn is_own_address(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

impl Guard {
    /// The addresses that a name may be reached at; none when all it has are forbidden ones. A name can resolve to what
    /// may not be written as an address.
    pub async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let found = tokio::net::lookup_host((bare_host(host), port)).await?;
        // Whoever resolves a name alone does not know the port yet. Where it is known, what else listens beside a proxy is
        // not it.
        let is_proxy = |(name, own): &(String, u16)| name == host && (port == 0 || *own == port);
        let chosen = self.is_chosen(host) || self.0.proxies.iter().any(is_proxy);
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
            // The form that nobody uses any more, and programs still read.
            [0, 0, 0, 0, 0, 0, high, _] if high != 0 => v6.to_ipv4().map_or(address, IpAddr::V4),
            _ => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        },
        IpAddr::V4(_) => address,
    }
}

fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    host == "localhost" || host.ends_with(".localhost") || OWN_NAMES.contains(&host)
}

/// A host without the brackets that an IPv6 address has in a URL.
pub fn bare_host(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Host and port as they stand in an address.
pub fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For a server at this host, which may be on this machine.
    fn guard(host: &str) -> Guard {
        let own = is_localhost(host) || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        Guard::new([host.to_owned()], own, None)
    }

    #[test]
    fn addresses_of_this_machine_or_its_cloud_are_refused_unless_the_server_is_there() {
        let allows = |host: &str, url: &str| guard(host).allows(&Url::parse(url).expect(url));
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
            assert!(!allows("index.test", url), "{url}");
        }
        assert!(allows("index.test", "https://cdn.example.org/x"));
        assert!(allows("index.test", "https://10.1.2.3/x"));
        assert!(allows("127.0.0.1", "http://127.0.0.1:9/x"));
        assert!(allows("localhost", "http://[::1]:9/x"));
        assert!(!allows("127.0.0.1", "http://169.254.169.254/x"));
        assert!(allows("169.254.7.7", "https://169.254.7.7/x"));
        assert!(!allows("169.254.7.7", "https://169.254.169.254/x"));
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
        assert_eq!(resolve(guard("index.test")).await, 0);
        assert_ne!(resolve(guard("localhost")).await, 0);
        let proxy = ProxyOptions { https: Some("localhost:3128".to_owned()), ..ProxyOptions::default() };
        let guarded = Guard::new(["index.test".to_owned()], false, Some(&proxy));
        assert_ne!(guarded.addresses("localhost", 3128).await.expect("a name").len(), 0);
        assert_eq!(resolve(guarded).await, 0, "what else listens beside a proxy is not it");
        for name in ["http://ip6-localhost:1/", "http://localhost.localdomain/", "http://[::7f00:1]:1/"] {
            assert!(!guard("index.test").allows(&Url::parse(name).expect(name)), "{name}");
        }
        let named = Guard::new(["index.test".to_owned(), "localhost".to_owned()], false, None);
        assert_ne!(resolve(named).await, 0, "one of several");
    }
}
