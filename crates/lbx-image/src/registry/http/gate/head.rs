//! Heads of HTTP messages: what a client of the gate asks for, what a proxy answers, what is passed on.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use httparse::{EMPTY_HEADER, Status};
use reqwest::Url;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::dial::Upstream;

/// The longest head that is read, in bytes. A signed address may be some thousand.
const LONGEST: usize = 32 << 10;
const FIELDS: usize = 64;

/// A request's head, and what came after it.
#[derive(Debug)]
pub(super) struct Head {
    method: String,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    rest: Vec<u8>,
}

impl Head {
    pub(super) fn method(&self) -> &str {
        &self.method
    }

    /// An absolute address, or host and port for `CONNECT`.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// The first value of a field that is text.
    pub(super) fn field(&self, wanted: &str) -> Option<&str> {
        let mut fields = self.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        str::from_utf8(&fields.next()?.1).ok()
    }

    /// The request as it goes on: one per connection, without what was meant for the gate.
    pub(super) fn forwarded(&self, url: &Url, proxy: Option<&Upstream>) -> Vec<u8> {
        let target = match (proxy, url.query()) {
            (Some(_), _) => url.as_str().to_owned(),
            (None, Some(query)) => format!("{}?{query}", url.path()),
            (None, None) => url.path().to_owned(),
        };
        let mut request = format!("{} {target} HTTP/1.1\r\n", self.method).into_bytes();
        for (name, value) in self.fields.iter().filter(|(name, _)| !is_own(name)) {
            write_field(&mut request, name, value);
        }
        write_field(&mut request, "Connection", b"close");
        if let Some(authorization) = proxy.and_then(Upstream::authorization) {
            write_field(&mut request, "Proxy-Authorization", authorization);
        }
        request.extend_from_slice(b"\r\n");
        request
    }
}

/// Reads a request's head.
pub(super) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Head> {
    let mut read = Vec::new();
    loop {
        more(stream, &mut read).await?;
        if let Some(head) = parse(&read)? {
            return Ok(head);
        }
    }
}

/// Reads a proxy's answer to `CONNECT`: its status. What comes after it belongs to the tunnel, and a server
/// speaks second in TLS, so there is nothing.
pub(super) async fn read_status(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<u16> {
    let mut read = Vec::new();
    loop {
        more(stream, &mut read).await?;
        let mut fields = [EMPTY_HEADER; FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(&read).map_err(io::Error::other)? {
            Status::Complete(length) if length < read.len() && response.code == Some(200) => {
                return Err(io::Error::other("the proxy spoke before it was spoken to"));
            }
            Status::Complete(_) => return Ok(response.code.unwrap_or_default()),
            Status::Partial => {}
        }
    }
}

async fn more(stream: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>) -> io::Result<()> {
    if read.len() >= LONGEST {
        return Err(io::Error::other("the head is too long"));
    }
    let count = stream.take((LONGEST - read.len()) as u64).read_buf(read).await?;
    if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

fn parse(read: &[u8]) -> io::Result<Option<Head>> {
    let mut fields = [EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let Status::Complete(length) = request.parse(read).map_err(io::Error::other)? else { return Ok(None) };
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    Ok(Some(Head {
        method: text(request.method),
        target: text(request.path),
        fields: request.headers.iter().map(|field| (field.name.to_owned(), field.value.to_vec())).collect(),
        rest: read[length..].to_vec(),
    }))
}

/// An answer's head as it goes back, and what came after it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: Vec<u8>,
    pub(super) rest: Vec<u8>,
}

/// Reads an answer's head, and makes it say that the connection ends with it.
pub(super) async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Answer> {
    let mut read = Vec::new();
    loop {
        more(stream, &mut read).await?;
        while let Some((answer, length)) = parse_answer(&read)? {
            if answer.status >= 200 {
                return Ok(answer);
            }
            // One that is only on the way; nobody here asked for any.
            read.drain(..length);
        }
    }
}

fn parse_answer(read: &[u8]) -> io::Result<Option<(Answer, usize)>> {
    let mut fields = [EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let Status::Complete(length) = response.parse(read).map_err(io::Error::other)? else { return Ok(None) };
    let status = response.code.unwrap_or_default();
    let mut head = format!("HTTP/1.1 {status} -\r\n").into_bytes();
    for field in response.headers.iter().filter(|field| !is_own(field.name)) {
        write_field(&mut head, field.name, field.value);
    }
    write_field(&mut head, "Connection", b"close");
    head.extend_from_slice(b"\r\n");
    Ok(Some((Answer { status, head, rest: read[length..].to_vec() }, length)))
}

/// Whether a field is about a connection, of which there is another one on each side of the gate.
fn is_own(name: &str) -> bool {
    ["proxy-authorization", "proxy-connection", "connection", "keep-alive", "upgrade"]
        .iter()
        .any(|own| name.eq_ignore_ascii_case(own))
}

fn write_field(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// `Basic …`.
pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn read(bytes: &[u8]) -> io::Result<Head> {
        read_head(&mut &bytes[..]).await
    }

    #[tokio::test]
    async fn a_request_goes_on_without_what_was_meant_for_the_gate() {
        let head = read(
            b"GET http://a.test:81/v2/?n=1 HTTP/1.1\r\nHost: a.test:81\r\nproxy-authorization: Basic eA==\r\n\
              Proxy-Connection: x\r\nConnection: keep-alive\r\nAccept: */*\r\n\r\nrest",
        )
        .await
        .expect("a head");
        assert_eq!(head.field("Proxy-Authorization"), Some("Basic eA=="));
        let url = Url::parse(head.target()).expect("an address");
        let forwarded = String::from_utf8(head.forwarded(&url, None)).expect("text");
        assert_eq!(
            forwarded, "GET /v2/?n=1 HTTP/1.1\r\nHost: a.test:81\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            "and with nothing that came after it"
        );
    }

    #[tokio::test]
    async fn what_is_no_head_is_an_error_and_so_is_one_without_end() {
        assert!(read(b"\x16\x03\x01\x02\x00").await.is_err());
        assert!(read(b"GET / HTTP/1.1\r\nHost: a").await.is_err());
        let endless = [b"GET / HTTP/1.1\r\nA: ".to_vec(), vec![b'a'; 2 * LONGEST]].concat();
        assert!(read(&endless).await.expect_err("too long").to_string().contains("too long"));
        assert!(read_status(&mut &endless[..]).await.is_err());
    }

    #[tokio::test]
    async fn an_answer_goes_back_with_the_end_of_its_connection() {
        let mut answer = &b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\
            Keep-Alive: timeout=5\r\nContent-Length: 4\r\n\r\nbody"[..];
        let answer = read_answer(&mut answer).await.expect("an answer");
        let head = String::from_utf8(answer.head).expect("text");
        assert_eq!(head, "HTTP/1.1 200 -\r\nContent-Length: 4\r\nConnection: close\r\n\r\n");
        assert_eq!((answer.status, answer.rest.as_slice()), (200, &b"body"[..]));
        assert!(read_answer(&mut &b"\x15\x03\x01\x00\x02\x02"[..]).await.is_err());
        assert!(read_answer(&mut &b"HTTP/1.1 200 OK\r\nA: b"[..]).await.is_err());
    }

    #[tokio::test]
    async fn a_proxys_status_is_read_and_nothing_may_come_before_the_tunnel() {
        let status = async |bytes: &[u8]| read_status(&mut &bytes[..]).await.ok();
        assert_eq!(status(b"HTTP/1.1 200 Connection established\r\n\r\n").await, Some(200));
        assert_eq!(status(b"HTTP/1.0 407 No\r\nContent-Length: 2\r\n\r\nno").await, Some(407));
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n\r\nhello").await, None);
        assert_eq!(status(b"SSH-2.0\r\n").await, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
            let _ = parse_answer(&bytes);
        }
    }
}
