//! A gate for an image's own package manager, in a sandbox that reaches nothing else.
//!
//! The mirrors are those that the image names, and packages are signed with keys that it has, so any host will do but
//! those of this machine and its cloud. Which ones they were is written down.

use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use lbx_net::{Guard, Trust};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::dial::Dialer;
use super::{Refusal, Route, Session, accept, head, secret};
use crate::PullOptions;

/// A way out for whoever knows its secret, over HTTP and HTTPS. Dropping it closes it, and every connection through it.
#[derive(Debug)]
pub struct Outlet {
    session: Arc<Session>,
    secret: String,
    accepting: Mutex<JoinSet<()>>,
}

impl Outlet {
    /// One that goes through the proxies of the options. Nothing is asked yet.
    pub fn new(options: &PullOptions) -> io::Result<Self> {
        let secret = secret()?;
        let guard = Guard::new([], false, options.proxy.as_ref());
        let trust = Arc::new(Trust::new(&options.extra_ca_pem));
        let session = Session {
            address: None,
            credentials: head::basic("lbx", &secret),
            dialer: Dialer::new(guard.clone(), options, trust),
            guard,
            route: Route { encrypted: false, plain: false, patient: false },
            allowance: AtomicU64::new(u64::MAX),
            lifted: watch::Sender::new(true),
            refusal: Mutex::new(None),
            status: AtomicU16::new(0),
            hosts: Mutex::default(),
        };
        Ok(Self { session: Arc::new(session), secret, accepting: Mutex::default() })
    }

    /// Serves a socket that is bound and listens, wherever that is. Must be called in a runtime of tokio.
    pub fn listen(&self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        accepting.spawn(accept(listener, Arc::clone(&self.session)));
        Ok(())
    }

    /// The proxy to tell the package manager of, whose port of 127.0.0.1 leads here.
    pub fn proxy_url(&self, port: u16) -> String {
        format!("http://lbx:{}@127.0.0.1:{port}", self.secret)
    }

    /// The hosts that were asked for something until now.
    pub fn hosts(&self) -> BTreeSet<String> {
        self.session.hosts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the last request that led nowhere did so, in words. Said once.
    pub fn refused(&self) -> Option<String> {
        let refusal = self.session.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(match refusal {
            Refusal::Misdirected { target, problem } => format!("{target} is {problem}"),
            Refusal::Unreachable { host, source } => format!("{host} cannot be reached: {source}"),
            Refusal::Proxy { host, proxy, source } => {
                format!("{host} cannot be reached through the proxy {proxy}: {source}")
            }
            Refusal::NeedsCertificates | Refusal::TooMuch => return None,
        })
    }

    /// A text without the secret.
    pub fn redact(&self, text: &str) -> String {
        text.replace(&self.secret, "***")
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;
    use crate::{Platform, ProxyOptions};

    /// What a server gets to see, and answers.
    fn server() -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            String::from_utf8_lossy(&buffer[..count]).into_owned()
        });
        (address, seen)
    }

    fn outlet(proxy: Option<&str>) -> (Outlet, u16) {
        let proxy =
            proxy.map(|proxy| ProxyOptions { http: Some(proxy.to_owned()), ..ProxyOptions::default() });
        let options = PullOptions { proxy, ..PullOptions::new(Platform::linux("amd64")) };
        let outlet = Outlet::new(&options).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        outlet.listen(listener).unwrap();
        (outlet, port)
    }

    /// Asks for an address through an outlet, with these credentials.
    fn ask(port: u16, line: &str, credentials: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let request = format!("{line} HTTP/1.1\r\nHost: x\r\nProxy-Authorization: {credentials}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_asked_for_goes_through_the_users_proxy_and_is_written_down() {
        let (address, seen) = server();
        let (outlet, port) = outlet(Some(&format!("http://me:pw@{address}")));
        let known = head::basic("lbx", &outlet.secret);
        assert!(outlet.proxy_url(7).ends_with("@127.0.0.1:7"));
        let answer = ask(port, "GET http://mirror.test/dists/x", &known);
        assert!(answer.ends_with("ok"), "{answer}");
        let seen = seen.join().unwrap();
        assert!(seen.starts_with("GET http://mirror.test/dists/x HTTP/1.1\r\n"), "{seen}");
        assert!(seen.contains("Proxy-Authorization: Basic bWU6cHc="), "{seen}");
        assert!(!seen.contains(&known), "{seen}");
        assert_eq!(outlet.hosts(), BTreeSet::from(["mirror.test".to_owned()]));
        assert_eq!(outlet.refused(), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn this_machine_its_cloud_and_strangers_get_nothing() {
        let (address, _seen) = server();
        let (outlet, port) = outlet(None);
        let known = head::basic("lbx", &outlet.secret);
        for target in [address.as_str(), "169.254.169.254", "localhost:1", "[::1]:1"] {
            let answer = ask(port, &format!("GET http://{target}/"), &known);
            assert!(answer.starts_with("HTTP/1.1 403"), "{target}: {answer}");
            let refused = outlet.refused().unwrap();
            assert!(refused.ends_with(" is an address of this machine or its cloud"), "{refused}");
            let port_and_host =
                if target.contains(':') { target.to_owned() } else { format!("{target}:443") };
            let answer = ask(port, &format!("CONNECT {port_and_host}"), &known);
            assert!(answer.starts_with("HTTP/1.1 403"), "{target}: {answer}");
        }
        let answer = ask(port, "GET http://mirror.test/", "Basic bGJ4Ong=");
        assert!(answer.starts_with("HTTP/1.1 407"), "{answer}");
        assert!(outlet.hosts().is_empty(), "{:?}", outlet.hosts());
    }
}
