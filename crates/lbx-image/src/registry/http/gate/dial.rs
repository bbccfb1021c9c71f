//! Connections: by name or address, each address judged before it is tried; through the user's proxy where there is
//! one for the target.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lbx_net::{Guard, Proxies, ProxyRoute, Trust, authority};
use reqwest::Url;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::head::read_status;
use super::{Refusal, forbidden};
use crate::{Cause, PullOptions};

/// What bytes go through: a socket, or TLS to a proxy.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

#[derive(Debug)]
pub(super) struct Dialer {
    guard: Guard,
    proxies: Proxies,
    trust: Arc<Trust>,
    timeout: Duration,
}

/// A proxy that requests are handed to.
#[derive(Debug)]
pub(super) struct Upstream(ProxyRoute);

impl Upstream {
    pub(super) fn authorization(&self) -> Option<&[u8]> {
        self.0.authorization.as_deref()
    }

    pub(super) fn refusal(&self, url: &Url, status: u16) -> Refusal {
        let source: Cause = match status {
            407 => "it wants a user name and a password (407)".into(),
            _ => format!("it answered {status}").into(),
        };
        self.failed(url, source)
    }

    fn failed(&self, url: &Url, source: Cause) -> Refusal {
        let proxy = format!("{}://{}", self.0.url.scheme(), authority(&self.0.url));
        Refusal::Proxy { host: authority(url), proxy, source }
    }
}

impl Dialer {
    pub(super) fn new(guard: Guard, options: &PullOptions, trust: Arc<Trust>) -> Self {
        Self { guard, proxies: Proxies::new(options.proxy.as_ref()), trust, timeout: options.connect_timeout }
    }

    /// A connection whose other end is the target.
    pub(super) async fn tunnel(&self, url: &Url) -> Result<Box<dyn Connection>, Refusal> {
        let (mut stream, proxy) = self.plain(url).await?;
        let Some(proxy) = proxy else { return Ok(stream) };
        let target = format!("{}:{}", url.host_str().unwrap_or_default(), port(url));
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
        if let Some(authorization) = proxy.authorization() {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(authorization);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        let answer = within(self.timeout, async {
            stream.write_all(&request).await?;
            stream.flush().await?;
            read_status(&mut stream).await
        });
        match answer.await.map_err(|error| proxy.failed(url, error.into()))? {
            200..300 => Ok(stream),
            status => Err(proxy.refusal(url, status)),
        }
    }

    /// A connection to the target, or to the proxy that it is reached through.
    pub(super) async fn plain(&self, url: &Url) -> Result<(Box<dyn Connection>, Option<Upstream>), Refusal> {
        let Some(proxy) = self.proxies.of(url).map(Upstream) else {
            return Ok((Box::new(self.connect(url).await?), None));
        };
        let reached = async {
            let stream = match self.connect(&proxy.0.url).await {
                Ok(stream) => stream,
                Err(Refusal::Unreachable { source, .. }) => return Err(source),
                Err(_) => return Err("it is an address of this machine or its cloud".into()),
            };
            let stream: Box<dyn Connection> = match proxy.0.url.scheme() {
                "https" => Box::new(self.encrypt(stream, &proxy.0.url).await?),
                "http" => Box::new(stream),
                other => return Err(format!("{other} is not a kind of proxy that lbx speaks to").into()),
            };
            Ok(stream)
        };
        let reached = reached.await;
        match reached {
            Ok(stream) => Ok((stream, Some(proxy))),
            Err(source) => Err(proxy.failed(url, source)),
        }
    }

    async fn connect(&self, url: &Url) -> Result<TcpStream, Refusal> {
        let host = url.host_str().unwrap_or_default();
        let failed = |error: io::Error| Refusal::Unreachable { host: authority(url), source: error.into() };
        let addresses = within(self.timeout, self.guard.addresses(host, port(url))).await.map_err(failed)?;
        if addresses.is_empty() {
            return Err(forbidden(url));
        }
        let mut last = None;
        // A share each, so that one address that swallows packets doesn't keep the others from their turn.
        let share = self.timeout / u32::try_from(addresses.len().min(4)).unwrap_or(1);
        for address in addresses.into_iter().take(4) {
            match within(share, TcpStream::connect(address)).await {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(failed)?;
                    return Ok(stream);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(failed(last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())))
    }

    async fn encrypt(&self, stream: TcpStream, proxy: &Url) -> Result<impl Connection + use<>, Cause> {
        let host = proxy.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())?;
        let connector = TlsConnector::from(self.trust.rustls()?);
        Ok(within(self.timeout, connector.connect(name, stream)).await?)
    }
}

fn port(url: &Url) -> u16 {
    url.port_or_known_default().unwrap_or(443)
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} s", limit.as_secs_f32()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lbx_testkit::tls;
    use rustls::ServerConfig;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::super::head::read_head;
    use super::*;
    use crate::{Platform, ProxyOptions, Reference};

    /// A proxy behind TLS that opens one tunnel, to an echo. Returns its address and what it was asked.
    async fn proxy(
        directory: &Path,
        authority: &tls::Certificate,
    ) -> (String, tokio::task::JoinHandle<String>) {
        let certificate = tls::server(directory, "IP:127.0.0.1", authority);
        let chain = CertificateDer::pem_slice_iter(&certificate.pem()).collect::<Result<Vec<_>, _>>();
        let key = PrivateKeyDer::from_pem_file(&certificate.key).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_no_client_auth();
        let config = config.with_single_cert(chain.expect("certificates"), key).expect("a certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            let mut stream = acceptor.accept(stream).await.expect("TLS");
            let head = read_head(&mut stream).await.expect("a head");
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("a client");
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).await.expect("a client");
            stream.write_all(&bytes).await.expect("a client");
            stream.flush().await.expect("a client");
            let authorization = head.field("proxy-authorization").unwrap_or_default();
            format!("{} {} {authorization}", head.method(), head.target())
        });
        (address, asked)
    }

    #[tokio::test]
    async fn a_proxy_may_be_behind_tls_and_must_show_who_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let authority = tls::authority(directory.path());
        for trusted in [true, false] {
            let (address, asked) = proxy(directory.path(), &authority).await;
            let https = Some(format!("https://user:secret@{address}"));
            let options = PullOptions {
                proxy: Some(ProxyOptions { https, ..ProxyOptions::default() }),
                ..PullOptions::new(Platform::linux("amd64"))
            };
            let reference = Reference::parse("registry.test/a:1").expect("a reference");
            let bundles = if trusted { vec![authority.pem()] } else { Vec::new() };
            let trust = Arc::new(Trust::new(&bundles));
            let dialer = Dialer::new(super::super::guard(&reference, &options), &options, trust);
            let tunnel = dialer.tunnel(&Url::parse("https://registry.test/v2/").expect("an address")).await;
            if !trusted {
                let Err(Refusal::Proxy { proxy, .. }) = tunnel else { panic!("not refused") };
                assert_eq!(proxy, format!("https://{address}"));
                asked.abort();
                continue;
            }
            let mut tunnel = tunnel.expect("a tunnel");
            tunnel.write_all(b"ping").await.expect("an echo");
            tunnel.flush().await.expect("an echo");
            let mut bytes = [0; 4];
            tunnel.read_exact(&mut bytes).await.expect("an echo");
            assert_eq!(&bytes, b"ping");
            assert_eq!(asked.await.expect("a proxy"), "CONNECT registry.test:443 Basic dXNlcjpzZWNyZXQ=");
        }
    }
}
