//! The token handshake: what a registry asks for, and what its token service answers.
//!
//! oci-client has such a handshake too, and its types are used here; but it sends its requests itself, to any
//! address a registry names, through redirects that nobody sees, and reads answers without a limit.

use http_auth::parse_challenges;
use oci_client::errors::OciEnvelope;
use oci_client::token_cache::RegistryToken;
use reqwest::Url;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// The most of an answer that is read.
pub(super) const ANSWER_LIMIT: u64 = 1 << 20;
/// The most of a server's words that a message repeats, in characters.
const QUOTED: usize = 300;

/// The first Bearer challenge of a refusal: where to ask for a token, as which service.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    realm: String,
    service: Option<String>,
}

impl Challenge {
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).into_iter().filter_map(|value| value.to_str().ok());
        values.filter_map(|value| parse_challenges(value).ok()).flatten().find_map(|challenge| {
            let parameter = |wanted: &str| {
                let mut parameters = challenge.params.iter();
                let (_, value) = parameters.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
                Some(value.to_unescaped())
            };
            let bearer = challenge.scheme.eq_ignore_ascii_case("bearer");
            Some(Self { realm: parameter("realm").filter(|_| bearer)?, service: parameter("service") })
        })
    }

    /// The request for a token that lets us read a repository.
    pub(super) fn url(&self, repository: &str) -> Result<Url, String> {
        let url = Url::parse(&self.realm).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let mut url = url.ok_or_else(|| {
            format!("it names a token service that is no web address: {}", quoted(&self.realm))
        })?;
        // A registry has no business in telling us what to log in as.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let scope = format!("repository:{repository}:pull");
        url.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = &self.service {
            url.query_pairs_mut().append_pair("service", service);
        }
        Ok(url)
    }
}

/// The token in a token service's answer.
pub(super) fn read_token(body: &[u8]) -> Result<String, &'static str> {
    let token: RegistryToken = serde_json::from_slice(body).map_err(|_| "its token service sent no token")?;
    let printable = token.token().bytes().all(|byte| byte.is_ascii_graphic());
    let usable = printable && !token.token().is_empty();
    if usable { Ok(token.token().to_owned()) } else { Err("its token service sent a malformed token") }
}

/// What a server says in the body of a refusal, in one line that is safe to print.
pub(super) fn words(body: &[u8]) -> Option<String> {
    let text = match serde_json::from_slice::<OciEnvelope>(body) {
        Ok(envelope) => envelope.errors.into_iter().map(|error| error.message).collect::<Vec<_>>().join("; "),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let quoted = quoted(text.trim());
    // A page for browsers says nothing here, and `{}` says nothing anywhere.
    (!quoted.is_empty() && !quoted.starts_with(['<', '{'])).then_some(quoted)
}

fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(QUOTED).collect();
    cut.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().expect("a header"));
        }
        Challenge::read(&headers)
    }

    #[test]
    fn the_bearer_challenge_is_found_among_others() {
        let found = challenge(&[
            r#"Basic realm="x""#,
            r#"Negotiate, bearer Realm="https://auth.test/token?account=a",service="s",scope="ignored""#,
        ]);
        let url = found.expect("a challenge").url("lambda/python").expect("an address");
        assert_eq!(
            url.as_str(),
            "https://auth.test/token?account=a&scope=repository%3Alambda%2Fpython%3Apull&service=s"
        );
        assert_eq!(challenge(&[r#"Basic realm="x""#]), None);
        assert_eq!(challenge(&["Bearer service=x"]), None);
        assert_eq!(challenge(&[]), None);
    }

    #[test]
    fn a_realm_must_be_a_web_address_and_gets_no_credentials() {
        for realm in ["file:///etc/passwd", "token", "ftp://a.test/", ""] {
            let challenge = Challenge { realm: realm.to_owned(), service: None };
            assert!(challenge.url("a").is_err(), "{realm:?}");
        }
        let challenge = Challenge { realm: "https://u:p@a.test/".to_owned(), service: None };
        assert!(challenge.url("a").expect("an address").as_str().starts_with("https://a.test/"));
    }

    #[test]
    fn both_names_of_a_token_are_read_and_one_that_splits_a_header_is_not() {
        assert_eq!(read_token(br#"{"token": "a", "access_token": "b"}"#).as_deref(), Ok("a"));
        assert_eq!(read_token(br#"{"access_token": "b"}"#).as_deref(), Ok("b"));
        for bad in [&br#"{"token": ""}"#[..], br#"{"token": "a\r\nb"}"#, b"{}", b"token"] {
            assert!(read_token(bad).is_err());
        }
    }

    #[test]
    fn a_servers_words_are_one_safe_line() {
        let body = br#"{"errors": [{"code": "DENIED", "message": "no \u001b[2Jentry"}]}"#;
        assert_eq!(words(body).as_deref(), Some("no  [2Jentry"));
        assert_eq!(words(b"down\n").as_deref(), Some("down"));
        assert_eq!(words(b"{}"), None);
        assert_eq!(words(b"<html>"), None);
        assert_eq!(words(&[b'x'; 1000]).expect("words").len(), QUOTED);
    }
}
