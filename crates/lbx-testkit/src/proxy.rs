//! Things that stand between a client and a server: a proxy, and a server that hangs up on plain HTTP.
//!
//! Both lead to one address whatever was asked for, so that names need no resolver.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A running proxy; it serves until the test's process ends.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts a proxy for plain HTTP and for `CONNECT` whose every way leads to `to`.
    pub fn start(to: &str) -> Self {
        Self::run(to, None)
    }

    /// Starts a proxy that answers everything with a status.
    pub fn refusing(status: u16) -> Self {
        Self::run("", Some(status))
    }

    fn run(to: &str, refusal: Option<u16>) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, to) = (Arc::clone(&seen), to.to_owned());
        let address = listen(move |stream| pass(stream, &to, refusal, &log));
        Self { address, seen }
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What was asked for so far: `CONNECT host:port`, `GET http://host/path`.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no handler panicked").clone()
    }
}

/// Starts a server that passes TLS on to `to` and hangs up on everything else without a word. Returns its address;
/// it serves until the test's process ends.
pub fn tls_only(to: &str) -> String {
    let to = to.to_owned();
    listen(move |stream| {
        let mut first = [0];
        // A TLS connection begins with a handshake record.
        if stream.peek(&mut first)? == 1 && first == [22] {
            relay(&stream, &TcpStream::connect(&to)?)
        } else {
            Ok(())
        }
    })
}

fn listen(serve: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket has an address").to_string();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            // A client that goes away ends the conversation, and that is all there is to say.
            std::thread::spawn(move || drop(serve(stream)));
        }
    });
    address
}

fn pass(stream: TcpStream, to: &str, refusal: Option<u16>, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let mut words = lines.first().map(String::as_str).unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    log.lock().expect("no handler panicked").push(format!("{method} {target}"));
    if let Some(status) = refusal {
        return write!(stream, "HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let mut upstream = TcpStream::connect(to)?;
    if method == "CONNECT" {
        stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    } else {
        let path = target.splitn(4, '/').nth(3).unwrap_or_default();
        write!(upstream, "{method} /{path} HTTP/1.1\r\nConnection: close\r\n")?;
        for line in &lines[1..] {
            write!(upstream, "{line}\r\n")?;
        }
        upstream.write_all(b"\r\n")?;
    }
    relay(&stream, &upstream)
}

/// Copies both ways until one end has nothing more to say.
fn relay(client: &TcpStream, server: &TcpStream) -> std::io::Result<()> {
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    let upwards = std::thread::spawn(move || copy(&from, &to));
    let copied = copy(server, client);
    // The other direction waits for a client that waits for us.
    let _ = client.shutdown(Shutdown::Both);
    let _ = upwards.join();
    copied
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 1 << 14];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return to.shutdown(Shutdown::Write);
        }
        to.write_all(&buffer[..count])?;
    }
}
