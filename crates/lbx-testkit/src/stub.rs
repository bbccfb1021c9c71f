//! An HTTP server on loopback that answers what a test tells it to: right, wrong, late or cut off.
//!
//! A registry that works is [`crate::registry::Registry`].

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::images::Image;

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `HEAD`…
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// As long as its `Content-Length` says.
    pub body: Vec<u8>,
}

impl Request {
    /// The first value of a header; `name` is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a blob is asked for.
    pub fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }

    /// Whether a manifest is asked for.
    pub fn is_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// The status; 0 closes the connection without an answer.
    pub status: u16,
    /// Headers besides the length.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// How many zeros follow the body; they are in the declared length.
    pub zeros: u64,
    /// Send no length: the body ends with the connection.
    pub unsized_body: bool,
    /// Close the connection after this many bytes of the body.
    pub cut_after: Option<usize>,
    /// Wait this long before the body.
    pub pause: Duration,
}

impl Reply {
    /// A complete answer.
    pub fn new(status: u16, body: &[u8]) -> Self {
        Self { status, body: body.to_vec(), ..Self::default() }
    }

    /// The same with one header more.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A running server. Dropping it stops it.
pub struct Stub {
    address: String,
    seen: Arc<Mutex<Vec<Request>>>,
    stopping: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Stub {
    /// Starts a server that asks `handler` for every answer.
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address").to_string();
        let (seen, stopping) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, stop, handler): (_, _, Arc<Handler>) = (seen.clone(), stopping.clone(), Arc::new(handler));
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (log, handler) = (log.clone(), handler.clone());
                // A client that goes away in the middle is what some tests are about.
                std::thread::spawn(move || drop(serve(&stream, &log, handler.as_ref())));
            }
        });
        Self { address, seen, stopping, acceptor: Some(acceptor) }
    }

    /// A registry that holds one image under every name, with each answer passed through `change`.
    pub fn registry(image: Image, change: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(move |request| change(request, image_reply(&image, request)))
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("no handler panicked").clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // The acceptor waits for a connection; this is the last one.
        drop(TcpStream::connect(&self.address));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
    }
}

/// What a good registry answers.
fn image_reply(image: &Image, request: &Request) -> Reply {
    if request.is_manifest() {
        return Reply::new(200, &image.manifest).with_header("Content-Type", &image.manifest_type);
    }
    let digest = request.path.rsplit('/').next().unwrap_or_default();
    let layer = image.layers.iter().find(|layer| layer.digest() == digest).map(|layer| &layer.blob);
    let config = (crate::images::sha256(&image.config) == digest).then_some(&image.config);
    let Some(blob) = layer.or(config) else { return Reply::new(404, b"{}") };
    let from = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    match from.and_then(|from| from.parse::<usize>().ok()).filter(|from| *from < blob.len()) {
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
            Reply::new(206, &blob[from..]).with_header("Content-Range", &range)
        }
        None => Reply::new(200, blob),
    }
}

fn serve(mut stream: &TcpStream, log: &Mutex<Vec<Request>>, handler: &Handler) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request { method, path, headers, body: Vec::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_end(&mut request.body)?;
    log.lock().expect("no handler panicked").push(request.clone());
    let reply = handler(&request);
    if reply.status == 0 {
        return Ok(());
    }
    write!(stream, "HTTP/1.1 {} Status\r\nConnection: close\r\n", reply.status)?;
    if !reply.unsized_body {
        write!(stream, "Content-Length: {}\r\n", reply.body.len() as u64 + reply.zeros)?;
    }
    for (name, value) in &reply.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    stream.flush()?;
    std::thread::sleep(reply.pause);
    let end = reply.cut_after.unwrap_or(reply.body.len()).min(reply.body.len());
    stream.write_all(&reply.body[..end])?;
    let mut zeros = if reply.cut_after.is_some() { 0 } else { reply.zeros };
    while zeros > 0 {
        let count = zeros.min(1 << 16);
        stream.write_all(&vec![0; usize::try_from(count).unwrap_or(0)])?;
        zeros -= count;
    }
    stream.flush()
}
