//! `pip.conf` and `PIP_*`: what pip would be configured with, as settings.
//!
//! The text is read as pip reads it: sections, `name = value` or `name: value`, values that go on in indented lines,
//! comments on lines of their own. Sections that count later win, name by name.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use lbx_net::ProxyOptions;

use crate::{Address, Error, FindLinks, Keyring, Settings, TrustedHost};

/// The sections that matter when wheels are fetched and made; later ones win.
pub const SECTIONS: [&str; 4] = ["global", "install", "download", "wheel"];
const FILE: &str = "pip.conf";

/// What a file sets; what it says nothing of is absent.
#[derive(Debug, Clone, Default)]
pub struct PipConf {
    /// `index-url`
    pub index: Option<Address>,
    /// `extra-index-url`
    pub extra: Option<Vec<Address>>,
    /// `find-links`
    pub find_links: Option<Vec<FindLinks>>,
    /// `no-index`
    pub no_index: Option<bool>,
    /// `trusted-host`
    pub trusted_hosts: Option<Vec<TrustedHost>>,
    /// `cert`: a file for the caller to read.
    pub cert: Option<PathBuf>,
    /// `client-cert`: a file for the caller to read.
    pub client_cert: Option<PathBuf>,
    /// `proxy`, for all that is asked.
    pub proxy: Option<ProxyOptions>,
    /// `timeout`
    pub timeout: Option<Duration>,
    /// `retries`
    pub retries: Option<u32>,
    /// `keyring-provider`: whether a program is to be asked for passwords. pip's `auto` asks none where it must not
    /// prompt.
    pub keyring: Option<bool>,
}

impl PipConf {
    /// Reads a file's text. Of the sections, [`SECTIONS`] count.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let values = values(text)?;
        let mut found = Self::default();
        for section in SECTIONS {
            for (name, value) in values.get(section).into_iter().flatten() {
                let wrong = |problem| error(value.line, format!("sets {name} to {problem}"));
                found.set(name, &value.text).map_err(wrong)?;
            }
        }
        Ok(found)
    }

    /// Reads variables: `PIP_INDEX_URL` is what `index-url` is in a file.
    pub fn variables<'v>(variables: impl IntoIterator<Item = (&'v str, &'v str)>) -> Result<Self, Error> {
        let mut found = Self::default();
        for (name, value) in variables {
            let Some(option) = name.strip_prefix("PIP_") else { continue };
            let option = option.to_ascii_lowercase().replace('_', "-");
            let wrong = |problem| Error::Setting { what: name.to_owned(), problem: format!("is {problem}") };
            found.set(&option, value).map_err(wrong)?;
        }
        Ok(found)
    }

    /// Sets one of them; an error is what its value is.
    fn set(&mut self, name: &str, text: &str) -> Result<(), &'static str> {
        let at = |_: Error| "what it cannot be";
        let words = || text.split_whitespace();
        match name {
            // An empty value is what pip takes for none.
            _ if text.is_empty() => {}
            "index-url" => self.index = Some(Address::parse(name, text).map_err(at)?),
            "extra-index-url" => {
                let all = words().map(|word| Address::parse(name, word)).collect::<Result<_, _>>();
                self.extra = Some(all.map_err(at)?);
            }
            "find-links" => {
                self.find_links = Some(words().map(FindLinks::parse).collect::<Result<_, _>>().map_err(at)?);
            }
            "trusted-host" => {
                let all = words().map(TrustedHost::parse).collect::<Result<_, _>>();
                self.trusted_hosts = Some(all.map_err(at)?);
            }
            "no-index" => {
                self.no_index = Some(match text.to_ascii_lowercase().as_str() {
                    "y" | "yes" | "t" | "true" | "on" | "1" => true,
                    "n" | "no" | "f" | "false" | "off" | "0" => false,
                    _ => return Err("neither true nor false"),
                });
            }
            "cert" => self.cert = Some(text.into()),
            "client-cert" => self.client_cert = Some(text.into()),
            "proxy" => {
                let (http, https) = (Some(text.to_owned()), Some(text.to_owned()));
                self.proxy = Some(ProxyOptions { http, https, no_proxy: None });
            }
            "timeout" | "default-timeout" => {
                let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
                let timeout = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                self.timeout = Some(timeout.ok_or("no number of seconds")?);
            }
            "retries" => self.retries = Some(text.parse().map_err(|_| "no number")?),
            "keyring-provider" => {
                self.keyring = Some(match text {
                    "import" | "subprocess" => true,
                    "auto" | "disabled" => false,
                    _ => return Err("none of auto, disabled, import and subprocess"),
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// Changes the settings that the file sets. The files that it names are the caller's to read.
    pub fn apply(self, settings: &mut Settings) {
        fn set<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        if self.index.is_some() {
            settings.index = self.index;
        }
        set(&mut settings.extra, self.extra);
        set(&mut settings.find_links, self.find_links);
        set(&mut settings.no_index, self.no_index);
        set(&mut settings.trusted_hosts, self.trusted_hosts);
        set(&mut settings.timeouts.stall, self.timeout);
        set(&mut settings.timeouts.connect, self.timeout);
        set(&mut settings.attempts, self.retries.map(|retries| retries.saturating_add(1)));
        if self.proxy.is_some() {
            settings.proxy = self.proxy;
        }
        if let Some(keyring) = self.keyring {
            settings.credentials.keyring = keyring.then(|| Keyring::new(["keyring"]));
        }
    }
}

/// A value, and where it begins.
struct Value {
    text: String,
    line: usize,
}

type Sections = BTreeMap<String, BTreeMap<String, Value>>;

fn error(line: usize, problem: String) -> Error {
    Error::Configuration { file: FILE, line, problem }
}

fn values(text: &str) -> Result<Sections, Error> {
    let mut sections = Sections::new();
    let mut section: Option<String> = None;
    let mut name: Option<String> = None;
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with(char::is_whitespace)
            && let (Some(section), Some(name)) = (&section, &name)
            && let Some(value) = sections.get_mut(section).and_then(|values| values.get_mut(name))
        {
            value.text.push('\n');
            value.text.push_str(trimmed);
            value.text = value.text.trim().to_owned();
            continue;
        }
        if let Some(title) = trimmed.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let title = title.0.to_owned();
            if sections.insert(title.clone(), BTreeMap::new()).is_some() {
                return Err(error(number, "begins a section for the second time".to_owned()));
            }
            (section, name) = (Some(title), None);
            continue;
        }
        let Some(section) = &section else {
            return Err(error(number, "stands before the first section".to_owned()));
        };
        let Some((key, value)) = trimmed.split_once(['=', ':']) else {
            return Err(error(number, "is neither a section nor `name = value`".to_owned()));
        };
        let key = key.trim().to_ascii_lowercase().replace('_', "-").trim_start_matches("--").to_owned();
        let value = Value { text: value.trim().to_owned(), line: number };
        let values = sections.entry(section.clone()).or_default();
        if values.insert(key.clone(), value).is_some() {
            return Err(error(number, "sets a name for the second time".to_owned()));
        }
        name = Some(key);
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_that_matters_is_read_and_later_sections_win() {
        let text = "# mine\n[global]\nindex_url = https://me:hush@index.test/simple\nTimeout: 2.5\nretries=7\n\
            extra-index-url =\n    https://a.test/simple\n    # no more\n    https://b.test/simple\n\
            ; and\ntrusted-host = a.test b.test:8080\nproxy = http://u:hush@proxy.test:3128\ncert=~/ca.pem\n\
            [wheel]\nno-index = yes\nfind-links = wheels https://files.test/\n[list]\nformat = columns\n\
            [install]\nno-index = no\nclient-cert = /me.pem\n";
        let conf = PipConf::parse(text).expect("a configuration");
        assert!(!format!("{conf:?}").contains("hush"), "{conf:?}");
        let mut settings =
            Settings::new(Address::parse("i", "https://x.test").expect("an address"), "/store");
        assert_eq!(conf.cert.as_deref(), Some("~/ca.pem".as_ref()));
        assert_eq!(conf.client_cert.as_deref(), Some("/me.pem".as_ref()));
        conf.apply(&mut settings);
        let index = settings.index.expect("an index");
        assert_eq!((index.safe().as_str(), index.login().is_some()), ("https://index.test/simple", true));
        let extra: Vec<_> = settings.extra.iter().map(|address| address.safe().to_string()).collect();
        assert_eq!(extra, ["https://a.test/simple", "https://b.test/simple"]);
        assert!(settings.no_index, "[wheel] comes after [install]");
        assert_eq!((settings.find_links.len(), settings.trusted_hosts.len()), (2, 2));
        assert_eq!((settings.attempts, settings.timeouts.stall), (8, Duration::from_millis(2500)));
        assert!(settings.proxy.is_some());
    }

    #[test]
    fn what_pip_would_not_read_is_an_error_with_its_line() {
        let message = |text: &str| PipConf::parse(text).expect_err(text).to_string();
        assert_eq!(message("timeout = 1"), "line 1 of pip.conf stands before the first section");
        assert_eq!(message("[global]\n\nwhat"), "line 3 of pip.conf is neither a section nor `name = value`");
        assert_eq!(message("[global]\na=1\nA=2"), "line 3 of pip.conf sets a name for the second time");
        assert_eq!(message("[a]\n[a]"), "line 2 of pip.conf begins a section for the second time");
        assert_eq!(
            message("[global]\nno-index = perhaps"),
            "line 2 of pip.conf sets no-index to neither true nor false"
        );
        for bad in ["timeout = -1", "timeout = x", "timeout = inf", "retries = 1.5", "index-url = simple"] {
            assert!(PipConf::parse(&format!("[global]\n{bad}")).is_err(), "{bad}");
        }
        let secret = message("[global]\nindex-url = ftp://me:hush@a.test");
        assert!(!secret.contains("hush"), "{secret}");
    }

    #[test]
    fn variables_are_read_as_the_file_is() {
        let conf = PipConf::variables([
            ("PIP_INDEX_URL", "https://me:hush@index.test/simple"),
            ("PIP_DEFAULT_TIMEOUT", "3"),
            ("PIP_KEYRING_PROVIDER", "subprocess"),
            ("HOME", "/"),
        ])
        .expect("values");
        assert_eq!((conf.timeout, conf.keyring), (Some(Duration::from_secs(3)), Some(true)));
        assert!(conf.index.is_some_and(|index| index.login().is_some()));
        let error = PipConf::variables([("PIP_NO_INDEX", "perhaps")]).expect_err("neither").to_string();
        assert_eq!(error, "PIP_NO_INDEX is neither true nor false");
        let error = PipConf::variables([("PIP_INDEX_URL", "ftp://me:hush@a.test")]).expect_err("no address");
        assert_eq!(error.to_string(), "PIP_INDEX_URL is what it cannot be");
    }

    #[test]
    fn an_empty_file_and_empty_values_set_nothing() {
        for text in ["", "[global]", "[global]\nindex-url =\nextra-index-url=", "\u{feff}[global]\n"] {
            let conf = PipConf::parse(text).expect(text);
            assert!(conf.index.is_none() && conf.extra.is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\[|\\]|global|wheel|index-url|=|:| |\n|#|https://a.test|x|ä){0,40}") {
            let _ = PipConf::parse(&text);
        }

        #[test]
        fn what_is_set_is_found(host in "[a-z]{1,12}", blank in "[ \t]{0,3}", sign in "[=:]") {
            let text = format!("[global]\nindex-url{blank}{sign}{blank}https://{host}.test/simple\n");
            let conf = PipConf::parse(&text).expect("a configuration");
            let found = conf.index.expect("an index").safe().to_string();
            prop_assert_eq!(found, format!("https://{host}.test/simple"));
        }
    }
}
