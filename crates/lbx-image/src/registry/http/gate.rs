//! The gate: the one way from oci-client to the network, and back.
//!
//! oci-client speaks the protocol. It follows realms and redirects anywhere, reads documents without a limit, and has
//! no say in names: all of that is judged here, below it. It is told of one proxy, on loopback, for this process
//! alone: the gate opens connections only to where they may lead ([`lbx_net::Guard`]), through the user's own proxies
//! where there are any, and lets back only as many bytes as were allowed. TLS runs through it end to end, so that
//! the gate moves bytes that it can't read.
//!
//! Another user of this machine can reach the port, and gets nothing without the client's secret.

mod dial;
mod head;
mod outlet;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lbx_net::{Guard, Trust, authority};
use reqwest::Url;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use self::dial::{Connection, Dialer, Upstream};
use self::head::{Head, read_answer, read_head};
pub use self::outlet::Outlet;
use crate::{Cause, PullOptions, Reference};

/// How long a client of the gate may take to say what it wants: it is this process.
const ASKING: Duration = Duration::from_secs(10);
/// How many hosts are written down.
const MOST_HOSTS: usize = 100;
/// How much is moved at once, in bytes.
const PIECE: usize = 64 << 10;

/// A gate that is open, for one client. Dropping it closes it, and every connection through it.
#[derive(Debug)]
pub(super) struct Gate {
    proxy: String,
    session: Arc<Session>,
    acceptor: AbortHandle,
}

/// What the client may do, how much may come back, and what it was refused.
#[derive(Debug)]
struct Session {
    /// Where the client of this process comes to; none where clients are others.
    address: Option<SocketAddr>,
    /// `Basic …`, as the client presents it.
    credentials: String,
    guard: Guard,
    dialer: Dialer,
    route: Route,
    /// Bytes that may still come back.
    allowance: AtomicU64,
    lifted: watch::Sender<bool>,
    refusal: Mutex<Option<Refusal>>,
    /// The last status that came in plain HTTP; 0 for none.
    status: AtomicU16,
    /// Where it has led.
    hosts: Mutex<BTreeSet<String>>,
}

/// Where a gate may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    /// Plain HTTP is refused: the registry is spoken to over HTTPS, and must not lead out of it.
    pub(super) encrypted: bool,
    /// Tunnels are refused: the client has no certificates to judge what is at the other end.
    pub(super) plain: bool,
    /// What comes when the allowance is used up waits for [`Gate::lift`]. Otherwise it ends the connection.
    pub(super) patient: bool,
}

/// Why the gate let something not pass.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Not there.
    Misdirected { target: String, problem: &'static str },
    /// A tunnel, from a client without certificates.
    NeedsCertificates,
    /// No connection.
    Unreachable { host: String, source: Cause },
    /// No connection, or a refusal, from the proxy in between.
    Proxy { host: String, proxy: String, source: Cause },
    /// More than was allowed.
    TooMuch,
}

/// Whoever wrote the reference wanted its host, and only a registry that is on this machine may lead to it.
fn guard(reference: &Reference, options: &PullOptions) -> Guard {
    let registry = Url::parse(&format!("https://{}", reference.registry())).ok();
    let host = registry.and_then(|url| url.host_str().map(str::to_owned));
    Guard::new(host, reference.is_loopback(), options.proxy.as_ref())
}

impl Gate {
    pub(super) async fn open(
        reference: &Reference,
        options: &PullOptions,
        trust: &Arc<Trust>,
        route: Route,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, secret, guard) = (listener.local_addr()?, secret()?, guard(reference, options));
        let session = Arc::new(Session {
            address: Some(address),
            credentials: head::basic("lbx", &secret),
            dialer: Dialer::new(guard.clone(), options, Arc::clone(trust)),
            guard,
            route,
            allowance: AtomicU64::new(0),
            lifted: watch::Sender::new(false),
            refusal: Mutex::new(None),
            status: AtomicU16::new(0),
            hosts: Mutex::default(),
        });
        let acceptor = tokio::spawn(accept(listener, Arc::clone(&session))).abort_handle();
        Ok(Self { proxy: format!("http://lbx:{secret}@{address}"), session, acceptor })
    }

    /// The proxy to tell the client of.
    pub(super) fn proxy(&self) -> &str {
        &self.proxy
    }

    pub(super) fn route(&self) -> Route {
        self.session.route
    }

    /// Lets that many bytes come back from now on, headers and encryption included.
    pub(super) fn allow(&self, bytes: u64) {
        self.session.allowance.store(bytes, Ordering::SeqCst);
    }

    /// Lets everything come back: the client hands it on as it comes.
    pub(super) fn lift(&self) {
        self.allow(u64::MAX);
        self.session.lifted.send_replace(true);
    }

    /// What was refused last, once.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.session.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The last status that came in plain HTTP.
    pub(super) fn status(&self) -> Option<u16> {
        Some(self.session.status.load(Ordering::SeqCst)).filter(|status| *status != 0)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

/// What nobody guesses.
fn secret() -> io::Result<String> {
    let mut bytes = [0; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if filled == bytes.len() { Ok(hex::encode(bytes)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

impl Session {
    fn refuse(&self, refusal: Refusal) {
        tracing::debug!(?refusal, "refused");
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
    }

    /// How much of a piece may come back; 0 for nothing, ever.
    async fn allowed(&self) -> usize {
        loop {
            let allowed = self.allowance.load(Ordering::SeqCst).min(PIECE as u64);
            if allowed > 0 {
                return usize::try_from(allowed).unwrap_or(PIECE);
            }
            if !self.route.patient {
                self.refuse(Refusal::TooMuch);
                return 0;
            }
            // The sender is in the session, so it outlives the wait.
            let _ = self.lifted.subscribe().wait_for(|lifted| *lifted).await;
        }
    }

    fn spend(&self, bytes: usize) {
        let spend = |allowance: u64| match allowance {
            u64::MAX => None,
            _ => Some(allowance.saturating_sub(bytes as u64)),
        };
        // `None` leaves what has no limit without one.
        let _ = self.allowance.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend);
    }

    async fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let asked = tokio::time::timeout(ASKING, read_head(&mut client)).await;
        let head = asked.map_err(|_| io::ErrorKind::TimedOut)??;
        let known = match head.field("proxy-authorization") {
            Some(given) => given == self.credentials,
            // reqwest drops them when plain HTTP leads to another host.
            // Whoever is this user may read this process's memory anyway.
            None => self
                .address
                .zip(client.peer_addr().ok())
                .is_some_and(|(here, peer)| is_own(peer, here).unwrap_or(false)),
        };
        if !known {
            return answer(&mut client, 407).await;
        }
        let passed = match head.method() {
            "CONNECT" => self.tunnel(&head, &mut client).await,
            _ => self.plain(&head, &mut client).await,
        };
        match passed {
            Ok(()) => Ok(()),
            Err(refusal) => {
                self.refuse(refusal);
                answer(&mut client, 403).await
            }
        }
    }

    async fn tunnel(&self, head: &Head, client: &mut TcpStream) -> Result<(), Refusal> {
        let url = Url::parse(&format!("https://{}", head.target())).map_err(|_| nowhere(head.target()))?;
        if self.route.plain {
            return Err(Refusal::NeedsCertificates);
        }
        self.may_lead(&url)?;
        let mut upstream = self.dialer.tunnel(&url).await?;
        // From here on the client speaks to the other end, and so do its errors.
        let _ = async {
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            upstream.write_all(head.rest()).await?;
            upstream.flush().await?;
            let (mut client_reader, mut client_writer) = client.split();
            let (mut reader, mut writer) = tokio::io::split(upstream);
            tokio::select! {
                up = tokio::io::copy(&mut client_reader, &mut writer) => up.map(drop),
                down = self.rest(&mut reader, &mut client_writer) => down,
            }
        }
        .await;
        Ok(())
    }

    async fn plain(&self, head: &Head, client: &mut TcpStream) -> Result<(), Refusal> {
        let url = Url::parse(head.target()).ok().filter(|url| url.scheme() == "http");
        let url = url.ok_or_else(|| nowhere(head.target()))?;
        if self.route.encrypted {
            let target = url.host_str().unwrap_or_default().to_owned();
            return Err(Refusal::Misdirected { target, problem: "without encryption" });
        }
        self.may_lead(&url)?;
        self.status.store(0, Ordering::SeqCst);
        let (mut upstream, proxy) = self.dialer.plain(&url).await?;
        let request = head.forwarded(&url, proxy.as_ref());
        let _ = async {
            upstream.write_all(&request).await?;
            upstream.flush().await?;
            self.answer(&url, client, upstream, proxy.as_ref()).await
        }
        .await;
        Ok(())
    }

    /// Hands back the answer to one request. The next one needs a connection of its own, so that it is judged too, and
    /// so that nothing meant for the gate reaches the other end: the client is told, and what it says is not read.
    async fn answer(
        &self,
        url: &Url,
        client: &mut TcpStream,
        mut upstream: Box<dyn Connection>,
        proxy: Option<&Upstream>,
    ) -> io::Result<()> {
        let answer = read_answer(&mut upstream).await?;
        self.status.store(answer.status, Ordering::SeqCst);
        if let Some(proxy) = proxy.filter(|_| answer.status == 407) {
            self.refuse(proxy.refusal(url, answer.status));
        }
        let (mut reader, mut writer) = client.split();
        tokio::select! {
            gone = async { reader.read(&mut [0]).await } => gone.map(drop),
            done = async {
                self.hand_back(&answer.head, &mut writer).await?;
                self.hand_back(&answer.rest, &mut writer).await?;
                self.rest(&mut upstream, &mut writer).await
            } => done,
        }
    }

    /// Lets back bytes that have been read already.
    async fn hand_back(&self, mut bytes: &[u8], to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.allowed().await.min(bytes.len());
            if count == 0 {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.spend(count);
            to.write_all(&bytes[..count]).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Lets back everything that comes, as far as it is allowed.
    async fn rest(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let allowed = self.allowed().await;
            let count = from.read(&mut piece[..allowed]).await?;
            if count == 0 {
                return to.shutdown().await;
            }
            self.spend(count);
            to.write_all(&piece[..count]).await?;
        }
    }

    fn may_lead(&self, url: &Url) -> Result<(), Refusal> {
        tracing::debug!(to = authority(url), encrypted = self.route.encrypted, "a request");
        if !self.guard.allows(url) {
            return Err(forbidden(url));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() < MOST_HOSTS {
            hosts.insert(host);
        }
        Ok(())
    }
}

fn nowhere(target: &str) -> Refusal {
    let target = target.chars().filter(|c| !c.is_control()).take(200).collect();
    Refusal::Misdirected { target, problem: "which is no web address" }
}

fn forbidden(url: &Url) -> Refusal {
    let target = url.host_str().unwrap_or_default().to_owned();
    Refusal::Misdirected { target, problem: "an address of this machine or its cloud" }
}

/// Whether a connection comes from this user: both ends are on this machine, and the kernel lists whose they are.
fn is_own(peer: SocketAddr, here: SocketAddr) -> io::Result<bool> {
    let (SocketAddr::V4(peer), SocketAddr::V4(here)) = (peer, here) else { return Ok(false) };
    let own = rustix::process::geteuid().as_raw();
    Ok(owner(&fs_err::read_to_string("/proc/self/net/tcp")?, peer, here) == Some(own))
}

/// The user id of the socket at `local` that is connected to `remote`, in the kernel's table.
fn owner(table: &str, local: SocketAddrV4, remote: SocketAddrV4) -> Option<u32> {
    // Addresses are in the machine's own byte order, ports are not.
    let written = |address: SocketAddrV4| {
        format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
    };
    let (local, remote) = (written(local), written(remote));
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let found = fields.next() == Some(&local) && fields.next() == Some(&remote);
        // State, queues, timer, retransmissions, user.
        fields.nth(4).filter(|_| found)?.parse().ok()
    })
}

async fn accept(listener: TcpListener, session: Arc<Session>) {
    // Dropped with this task, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let session = Arc::clone(&session);
                    connections.spawn(async move { session.serve(client).await });
                }
                // Out of descriptors, most likely: some come back when a connection ends.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(ended) = connections.join_next() => {
                // A client that goes away ends its conversation, and that is all there is to say.
                if let Ok(Err(error)) = ended {
                    tracing::trace!(%error, "a connection ended");
                }
            }
        }
    }
}

async fn answer(client: &mut TcpStream, status: u16) -> io::Result<()> {
    let mut answer = String::new();
    let _ = write!(answer, "HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Length: 0\r\n");
    if status == 407 {
        // Some clients show what they know only to whoever asks for it so.
        answer.push_str("Proxy-Authenticate: Basic realm=\"lbx\"\r\n");
    }
    answer.push_str("\r\n");
    client.write_all(answer.as_bytes()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Platform;

    const PATIENT: Route = Route { encrypted: false, plain: true, patient: true };

    async fn gate(registry: &str, route: Route) -> Gate {
        let reference = Reference::parse(&format!("{registry}/a:1")).expect("a reference");
        let options = PullOptions::new(Platform::linux("amd64"));
        let gate = Gate::open(&reference, &options, &Arc::new(Trust::new(&[])), route).await;
        gate.expect("loopback has a free port")
    }

    /// What the gate answers to a head, with or without the secret.
    async fn ask(gate: &Gate, request: &str, secret: bool) -> String {
        let mut stream = TcpStream::connect(gate.session.address.expect("a client of this process"))
            .await
            .expect("the gate is open");
        let credentials = if secret { gate.session.credentials.as_str() } else { "Basic eDp5" };
        let head = format!("{request} HTTP/1.1\r\nProxy-Authorization: {credentials}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("a listener");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    /// A server that sends a number of bytes after a head.
    async fn sender(bytes: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = read_head(&mut stream).await;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
                let _ = stream.write_all(&[head.into_bytes(), vec![b'x'; bytes]].concat()).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn whoever_lacks_the_secret_gets_nothing() {
        let server = sender(10).await;
        let gate = gate(&server, PATIENT).await;
        gate.lift();
        let request = format!("GET http://{server}/");
        assert!(ask(&gate, &request, false).await.starts_with("HTTP/1.1 407"));
        assert!(ask(&gate, &request, true).await.ends_with("xxxxxxxxxx"));
        assert_eq!(gate.status(), Some(200));
    }

    #[tokio::test]
    async fn a_connection_is_good_for_one_request_and_no_secret_leaves() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = listener.local_addr().expect("an address").to_string();
        // One that keeps connections, whatever it is asked for, and writes down all that comes.
        let seen = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("the gate");
            let mut seen = vec![0; 4096];
            let mut length = stream.read(&mut seen).await.expect("a request");
            let answer = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(answer).await.expect("the gate");
            length += stream.read(&mut seen[length..]).await.unwrap_or(0);
            String::from_utf8_lossy(&seen[..length]).into_owned()
        });
        let gate = gate(&server, PATIENT).await;
        gate.lift();
        let mut stream = TcpStream::connect(gate.session.address.expect("a client of this process"))
            .await
            .expect("the gate is open");
        let request = format!(
            "GET http://{server}/ HTTP/1.1\r\nProxy-Authorization: {}\r\n\r\n",
            gate.session.credentials
        );
        stream.write_all(request.as_bytes()).await.expect("a listener");
        let mut answer = [0; 60];
        let length = stream.read(&mut answer).await.expect("an answer");
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(answer.contains("Connection: close") && !answer.contains("keep-alive"), "{answer}");
        let _ = stream.write_all(request.as_bytes()).await;
        let seen = seen.await.expect("a server");
        assert_eq!(seen.matches("GET").count(), 1, "{seen}");
        assert!(!seen.to_ascii_lowercase().contains("proxy-"), "{seen}");
    }

    #[tokio::test]
    async fn it_leads_nowhere_else_and_says_why() {
        let everything = Route { encrypted: false, plain: false, patient: false };
        let gate = gate("127.0.0.1:5000", everything).await;
        for target in
            ["CONNECT 169.254.169.254:443", "GET http://169.254.169.254/latest", "GET file:///etc/passwd"]
        {
            assert!(ask(&gate, target, true).await.starts_with("HTTP/1.1 403"), "{target}");
            assert!(matches!(gate.refusal(), Some(Refusal::Misdirected { .. })), "{target}");
        }
        assert!(gate.refusal().is_none(), "told once");
        let encrypted = self::gate("public.ecr.aws", Route { encrypted: true, ..everything }).await;
        assert!(ask(&encrypted, "GET http://cdn.test/", true).await.starts_with("HTTP/1.1 403"));
        let Some(Refusal::Misdirected { problem, .. }) = encrypted.refusal() else { panic!("not refused") };
        assert_eq!(problem, "without encryption");
        for host in ["CONNECT 127.0.0.1:443", "CONNECT localhost:443", "CONNECT [::1]:443"] {
            assert!(ask(&encrypted, host, true).await.starts_with("HTTP/1.1 403"), "{host}");
        }
        let plain = self::gate("127.0.0.1:5000", PATIENT).await;
        assert!(ask(&plain, "CONNECT cdn.test:443", true).await.starts_with("HTTP/1.1 403"));
        assert!(matches!(plain.refusal(), Some(Refusal::NeedsCertificates)));
    }

    #[tokio::test]
    async fn no_more_comes_back_than_was_allowed_until_it_is_lifted() {
        let server = sender(1_000_000).await;
        let request = format!("GET http://{server}/");
        let strict = gate(&server, Route { patient: false, ..PATIENT }).await;
        strict.allow(100_000);
        assert_eq!(ask(&strict, &request, true).await.len(), 100_000);
        assert!(matches!(strict.refusal(), Some(Refusal::TooMuch)));
        let patient = gate(&server, PATIENT).await;
        patient.allow(100_000);
        let lifted = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            patient.lift();
        };
        let (answer, ()) = tokio::join!(ask(&patient, &request, true), lifted);
        assert!(answer.len() > 1_000_000);
        assert!(patient.refusal().is_none());
    }

    #[tokio::test]
    async fn a_closed_gate_ends_what_went_through_it() {
        let server = sender(10_000_000).await;
        let gate = gate(&server, PATIENT).await;
        let address = gate.session.address.expect("a client of this process");
        gate.allow(1000);
        let request = format!("GET http://{server}/");
        let (answer, ()) = tokio::join!(ask(&gate, &request, true), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            gate.acceptor.abort();
        });
        assert_eq!(answer.len(), 1000);
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn without_the_secret_only_this_users_own_connections_pass() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let here = listener.local_addr().expect("an address");
        let client = TcpStream::connect(here).await.expect("a listener");
        let peer = client.local_addr().expect("an address");
        assert!(is_own(peer, here).expect("a table"));
        let other = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        assert!(!is_own(other, here).expect("a table"));
        assert!(!is_own(peer, other).expect("a table"));
    }

    #[test]
    fn a_sockets_owner_is_read_from_the_kernels_table() {
        let ip = u32::from_ne_bytes([127, 0, 0, 1]);
        let table = format!(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: {ip:08X}:1F90 {ip:08X}:C350 01 00000000:00000000 00:00000000 00000000  1000        0 22 1\n"
        );
        let at = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        assert_eq!(owner(&table, at(8080), at(50000)), Some(1000));
        assert_eq!(owner(&table, at(50000), at(8080)), None);
        assert_eq!(owner("", at(1), at(2)), None);
    }
}
