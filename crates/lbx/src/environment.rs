//! The environment, read once. Everything below gets values.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use lbx_build::ProxyOptions;

/// What the environment says.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    /// Where the store is; an explanation when there is no place for it.
    pub(crate) cache_dir: Result<PathBuf, String>,
    /// The folder that lbx was started in.
    pub(crate) current_dir: PathBuf,
    /// `SOURCE_DATE_EPOCH`, as text.
    pub(crate) source_date_epoch: Option<String>,
    /// The CA bundle that TLS is to trust; an explanation when a variable names one that cannot be read.
    pub(crate) ca_bundle: Result<Option<PathBuf>, String>,
    /// Variables about package indexes.
    pub(crate) pip: Vec<(&'static str, String)>,
    /// The files that configure pip, those that count more after the others. They need not be there.
    pub(crate) pip_conf: Vec<PathBuf>,
    /// Where logins may be, each instead of the next. They need not be there.
    pub(crate) netrc: Vec<PathBuf>,
    /// The proxies that registries are reached through.
    pub(crate) proxy: Option<ProxyOptions>,
    /// The folders in which programs of the host are found.
    pub(crate) path: Vec<PathBuf>,
    /// The path of this program, as the kernel names it; empty when there is none.
    pub(crate) program: PathBuf,
    /// Whether the user is root.
    pub(crate) is_root: bool,
    /// Whether stderr is a terminal whose user has nothing against colours.
    pub(crate) colours: bool,
    /// The kind of the terminal that stdin and stdout are: empty when nobody says it, none when they are no terminal.
    pub(crate) terminal: Option<String>,
}

/// Variables that name a CA bundle, strongest first.
const CA_VARIABLES: [&str; 5] =
    ["SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE"];

/// How a certificate begins in PEM.
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Where distributions keep theirs.
const CA_FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What says where packages are, and how to get there.
const PIP_VARIABLES: [&str; 12] = [
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_NO_INDEX",
    "PIP_TRUSTED_HOST",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_PROXY",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_TIMEOUT",
    "PIP_RETRIES",
    "PIP_KEYRING_PROVIDER",
];

impl Environment {
    /// Reads it.
    pub(crate) fn read() -> Self {
        let current_dir = current_dir();
        Self {
            cache_dir: cache_dir(&current_dir),
            source_date_epoch: variable("SOURCE_DATE_EPOCH"),
            ca_bundle: ca_bundle(),
            pip: PIP_VARIABLES.into_iter().filter_map(|name| Some((name, variable(name)?))).collect(),
            pip_conf: pip_conf(),
            netrc: netrc(),
            proxy: proxy(),
            path: path(),
            program: program(),
            is_root: is_root(),
            colours: colours(),
            terminal: terminal(),
            current_dir,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `$PATH`; none, where programs are then looked for in the usual places.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
fn path() -> Vec<PathBuf> {
    std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect()
}

/// The effective user id, which the kernel lists second.
fn is_root() -> bool {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
}

/// This program's own path; nothing when its file has been removed or replaced since it started.
fn program() -> PathBuf {
    std::env::current_exe().and_then(fs_err::canonicalize).unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that asks for the current directory")]
fn current_dir() -> PathBuf {
    // A deleted directory has no name; every path in it fails later with its own message.
    std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."))
}

/// `$LBX_CACHE_DIR`, which may be relative, or `lbx` in `$XDG_CACHE_HOME` or `~/.cache`. There, relative ones are
/// ignored, as the base directory specification asks.
fn cache_dir(current_dir: &Path) -> Result<PathBuf, String> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // By components, so that `.` and a slash at the end are gone: the store's own checks look at what it is called.
    variable("LBX_CACHE_DIR")
        .map(|path| current_dir.join(path).components().collect())
        .or_else(|| Some(absolute("XDG_CACHE_HOME")?.join("lbx")))
        .or_else(|| Some(absolute("HOME")?.join(".cache/lbx")))
        .ok_or_else(|| {
            "neither HOME nor XDG_CACHE_HOME nor LBX_CACHE_DIR names a folder for the store".to_owned()
        })
}

/// Where pip looks: for all users, for this one, for the virtual environment, and where it is told to. That last one
/// takes the place of the user's own; as `/dev/null`, of all.
fn pip_conf() -> Vec<PathBuf> {
    let told = variable("PIP_CONFIG_FILE").map(PathBuf::from);
    if told.as_deref() == Some(Path::new("/dev/null")) {
        return Vec::new();
    }
    let home = variable("HOME").map(PathBuf::from);
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(home.as_ref()?.join(".config")));
    let shared = variable("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".to_owned());
    let mut files: Vec<PathBuf> =
        std::env::split_paths(&shared).map(|path| path.join("pip/pip.conf")).collect();
    files.push("/etc/pip.conf".into());
    if told.is_none() {
        files.extend(home.map(|home| home.join(".pip/pip.conf")));
        files.extend(config.map(|config| config.join("pip/pip.conf")));
    }
    files.extend(variable("VIRTUAL_ENV").map(|path| PathBuf::from(path).join("pip.conf")));
    files.extend(told);
    files
}

/// `$NETRC`, or one of two names in the home directory.
fn netrc() -> Vec<PathBuf> {
    if let Some(path) = variable("NETRC") {
        return vec![path.into()];
    }
    let home = variable("HOME").map(PathBuf::from);
    home.into_iter().flat_map(|home| [home.join(".netrc"), home.join("_netrc")]).collect()
}

fn terminal() -> Option<String> {
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    is_terminal.then(|| variable("TERM").unwrap_or_default())
}

/// A terminal that cannot do anything says so in `TERM`, or has none.
fn colours() -> bool {
    let is_able = variable("TERM").is_some_and(|term| term != "dumb");
    std::io::stderr().is_terminal() && is_able && variable("NO_COLOR").is_none()
}

/// The proxies, in the variables that every tool reads. `HTTP_PROXY` is not one of them: a server that
/// runs programs for its clients lets them set it.
fn proxy() -> Option<ProxyOptions> {
    let either = |lower: &str, upper: &str| variable(lower).or_else(|| variable(upper));
    let options = ProxyOptions {
        http: variable("http_proxy"),
        https: either("https_proxy", "HTTPS_PROXY"),
        no_proxy: either("no_proxy", "NO_PROXY"),
    };
    (options.http.is_some() || options.https.is_some()).then_some(options)
}

/// The bundle that the strongest variable names, or else the system's. A variable that names nothing that can be read
/// is an error: whoever set it does not want another bundle trusted in its place.
fn ca_bundle() -> Result<Option<PathBuf>, String> {
    let named = CA_VARIABLES.iter().find_map(|name| Some((name, PathBuf::from(variable(name)?))));
    let Some((name, path)) = named else {
        return Ok(CA_FILES.map(PathBuf::from).into_iter().find(|path| check_file(path).is_ok()));
    };
    match check_file(&path) {
        Ok(()) => Ok(Some(path)),
        Err(problem) => Err(format!("{name} names no CA bundle that can be read: {problem}")),
    }
}

fn check_file(path: &Path) -> Result<(), String> {
    // Not opened before it is known to be a file: a pipe would be waited for.
    if !path.is_file() {
        let problem = if path.exists() { "is not a file" } else { "does not exist" };
        return Err(format!("`{}` {problem}", path.display()));
    }
    let bytes = fs_err::read(path).map_err(|error| error.to_string())?;
    // Without a single one, the HTTP client panics.
    if bytes.windows(CERTIFICATE.len()).any(|window| window == CERTIFICATE) {
        return Ok(());
    }
    Err(format!("`{}` holds no certificate in PEM", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test kit stands beside the house and cannot ask; so that its tests reach what lbx reaches, it has a list.
    #[test]
    fn the_tests_of_the_binary_pass_on_what_it_reads() {
        let read: Vec<_> = CA_VARIABLES.into_iter().chain(PIP_VARIABLES).collect();
        for passed in lbx_testkit::command::PASSED {
            let is_proxy = passed.to_ascii_lowercase().ends_with("_proxy") && !passed.starts_with("PIP_");
            assert!(is_proxy || read.contains(&passed), "{passed}");
        }
    }
}
