//! Pages: asked for, decoded within limits, and kept, so that a server only has to say that one is the same.

use std::io::Read;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};

use super::client::{Answer, Ask, Upstream};
use super::retry::{Failure, Retry};
use crate::store::{Kept, State};
use crate::{Address, Digest, Error, Page, SafeUrl, Store};

impl Upstream {
    /// The page at an address, as the index has it now; none when the index does not have it. Offline, as it was.
    pub(crate) async fn page(&self, store: &Store, address: &Address) -> Result<Option<Page>, Error> {
        let key = Digest::of(address.safe().as_str().as_bytes()).to_string();
        let (reader, name) = (store.clone(), key.clone());
        let read = move || {
            let (reader, name) = (reader.clone(), name.clone());
            blocking(move || Ok(reader.page(&name)))
        };
        if self.settings.offline {
            let missing = || Error::Offline { what: format!("the page {}", address.safe()) };
            return read().await?.map(|kept| kept.page).ok_or_else(missing);
        }
        let (reader, name) = (store.clone(), key.clone());
        let mut state = blocking(move || Ok(reader.state(&name))).await?;
        let mut retry = Retry::new(&self.settings);
        loop {
            let asked =
                tokio::time::timeout(self.settings.timeouts.page, self.fresh_page(address, state.as_ref()));
            let failure = match asked.await {
                Ok(Ok(None)) => {
                    if let Some(kept) = read().await? {
                        return Ok(kept.page);
                    }
                    // It is damaged in the part that was not read yet, or somebody has just taken it away.
                    state = None;
                    continue;
                }
                Ok(Ok(Some(fresh))) => {
                    let writer = store.clone();
                    return blocking(move || match writer.put_page(&key, &fresh) {
                        Err(Error::Io(error)) if is_closed(&error) => {
                            tracing::debug!(%error, "a page is not kept");
                            Ok(fresh.page)
                        }
                        kept => kept.map(|()| fresh.page),
                    })
                    .await;
                }
                Ok(Err(failure)) => failure,
                Err(_) => {
                    let seconds = self.settings.timeouts.page.as_secs();
                    Error::Slow { what: address.safe(), seconds }.into()
                }
            };
            retry.pause(failure).await?;
        }
    }

    /// None when what is kept is as good.
    async fn fresh_page(&self, address: &Address, kept: Option<&State>) -> Result<Option<Kept>, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(crate::page::ACCEPT));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        if let Some(kept) = kept {
            insert(&mut headers, IF_NONE_MATCH, kept.etag.as_deref());
            insert(&mut headers, IF_MODIFIED_SINCE, kept.modified.as_deref());
        }
        let conditional = headers.contains_key(IF_NONE_MATCH) || headers.contains_key(IF_MODIFIED_SINCE);
        let encrypted = address.url().scheme() == "https";
        let answer = self.ask(&Ask { address, index: None, encrypted, headers }).await?;
        match answer.response.status().as_u16() {
            304 if conditional => Ok(None),
            404 | 410 => Ok(Some(Kept { etag: None, modified: None, page: None })),
            200 => {
                let (etag, modified) = (text(&answer, &ETAG), text(&answer, &LAST_MODIFIED));
                let content_type = text(&answer, &CONTENT_TYPE).unwrap_or_default();
                let (shown, base) = (address.safe(), answer.url.clone());
                let bytes = self.body(answer, shown.as_str(), self.settings.limits.page).await?;
                let page = blocking(move || Page::read(&content_type, &bytes, &base)).await?;
                // What is signed is not kept, and is no good later, so the page has to be had again.
                let signed = page.files.iter().any(|file| file.address.url().query().is_some());
                let (etag, modified) = if signed { (None, None) } else { (etag, modified) };
                Ok(Some(Kept { etag, modified, page: Some(page) }))
            }
            status => Err(odd(&answer, status, address.safe())),
        }
    }

    /// A whole body, decoded, of no more than so many bytes.
    pub(crate) async fn body(&self, answer: Answer, what: &str, limit: u64) -> Result<Vec<u8>, Failure> {
        let too_large = || Error::TooLarge { what: what.to_owned(), limit };
        let encoding = text(&answer, &CONTENT_ENCODING).unwrap_or_default().trim().to_ascii_lowercase();
        let Answer { mut response, url } = answer;
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(too_large().into());
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failure(&url, error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > limit {
                return Err(too_large().into());
            }
        }
        match encoding.as_str() {
            "" | "identity" => Ok(bytes),
            "gzip" | "x-gzip" => {
                let decoded = blocking(move || Ok(inflate(&bytes, limit))).await?;
                match decoded {
                    Ok(Some(decoded)) => Ok(decoded),
                    Ok(None) => Err(too_large().into()),
                    // Cut, perhaps.
                    Err(error) => Err(Failure::passing(Error::Malformed {
                        what: SafeUrl::of(&url),
                        problem: format!("its compression is broken: {error}"),
                    })),
                }
            }
            other => {
                let problem = format!("expected gzip or no encoding, found `{}`", crate::page::words(other));
                Err(Error::Malformed { what: SafeUrl::of(&url), problem }.into())
            }
        }
    }
}

/// Whether the store is one that may only be read: its pages are asked for again each time.
fn is_closed(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied)
}

/// None when it is more than the limit.
fn inflate(bytes: &[u8], limit: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut decoded = Vec::new();
    MultiGzDecoder::new(bytes).take(limit + 1).read_to_end(&mut decoded)?;
    Ok((decoded.len() as u64 <= limit).then_some(decoded))
}

/// An answer that nobody asked for.
pub(crate) fn odd(answer: &Answer, status: u16, what: SafeUrl) -> Failure {
    let host = crate::Origin::of(&answer.url).authority();
    Error::Status { host, status, what }.into()
}

pub(crate) fn text(answer: &Answer, name: &HeaderName) -> Option<String> {
    Some(answer.response.headers().get(name)?.to_str().ok()?.to_owned())
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: Option<&str>) {
    if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
        headers.insert(name, value);
    }
}

/// Runs what waits for a disk or a processor where it holds up nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::Io(error.into())),
    }
}

/// How often a lock is tried that somebody else holds.
pub(crate) const LOCK_STEP: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use lbx_testkit::images::gzip;

    #[test]
    fn a_body_is_inflated_up_to_a_limit() {
        let bomb = gzip(&vec![0; 1 << 20]);
        assert!(bomb.len() < 1 << 19);
        assert_eq!(inflate(&bomb, 1 << 10).expect("gzip"), None);
        assert_eq!(inflate(&bomb, 1 << 20).expect("gzip").map(|bytes| bytes.len()), Some(1 << 20));
        assert!(inflate(&bomb[..bomb.len() / 2], 1 << 20).is_err());
        assert!(inflate(b"no gzip", 100).is_err());
    }
}
