//! A registry that falls silent in the middle of a blob: what a pull meets when a network goes away.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::process::wait_for;
use crate::registry::request;

/// Stands before a real registry. Blobs over a size stop half-way; all else passes.
#[derive(Debug)]
pub struct StallingRegistry {
    address: String,
    stalled: Arc<AtomicUsize>,
}

impl StallingRegistry {
    /// Starts it; it serves until the test's process ends. Blobs of more than `limit` bytes stall after `limit`.
    pub fn start(upstream: &str, limit: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address").to_string();
        let stalled = Arc::new(AtomicUsize::new(0));
        let (counter, upstream) = (Arc::clone(&stalled), upstream.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (counter, upstream) = (Arc::clone(&counter), upstream.clone());
                // A client that goes away ends the conversation, and that is all there is to say.
                std::thread::spawn(move || drop(serve(stream, &upstream, limit, &counter)));
            }
        });
        Self { address, stalled }
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns once a blob has stalled.
    pub fn wait_until_stalled(&self) {
        wait_for("a blob to stall", || (self.stalled.load(Ordering::SeqCst) > 0).then_some(()));
    }
}

fn serve(stream: TcpStream, upstream: &str, limit: usize, stalled: &AtomicUsize) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut accept = String::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("accept") {
            value.trim().clone_into(&mut accept);
        }
    }
    let answer = request(upstream, method, path, &[("Accept", &accept)], &[])?;
    write!(stream, "HTTP/1.1 {} Whatever\r\nConnection: close\r\n", answer.status)?;
    for name in ["content-type", "docker-content-digest"] {
        if let Some(value) = answer.header(name) {
            write!(stream, "{name}: {value}\r\n")?;
        }
    }
    write!(stream, "Content-Length: {}\r\n\r\n", answer.body.len())?;
    let stalls = path.contains("/blobs/") && answer.body.len() > limit;
    stream.write_all(if stalls { &answer.body[..limit] } else { &answer.body })?;
    stream.flush()?;
    if stalls {
        stalled.fetch_add(1, Ordering::SeqCst);
        // Nothing more comes from here; the client's end of the connection ends it.
        reader.read_to_end(&mut Vec::new())?;
    }
    Ok(())
}
