//! Which package indexes there are and as whom they are asked: what the user has configured pip with, without pip.

use std::io;
use std::path::{Path, PathBuf};

use lbx_index::settings::pip_conf::PipConf;
use lbx_index::{ClientCertificate, FindLinks, Netrc, Settings};

use crate::environment::Environment;
use crate::exit;
use crate::failure::{Failure, chain};

/// A larger one is something else. Bytes.
const LARGEST: u64 = 1 << 20;

/// The settings for package indexes: `pip.conf`, then `PIP_*`, then whatever a project says, which is not known here.
/// `ca_bundle` is the one that the environment names, or the system's.
pub(crate) fn settings(
    environment: &Environment,
    store: PathBuf,
    ca_bundle: Option<&Path>,
) -> Result<Settings, Failure> {
    let mut settings = Settings::without_index(store);
    settings.proxy.clone_from(&environment.proxy);
    let mut files = Files { ca: ca_bundle.map(Path::to_owned), client: None };
    for path in &environment.pip_conf {
        if let Some(text) = text(path)? {
            let conf = PipConf::parse(&text).map_err(|error| wrong(path, &error))?;
            apply(conf, &mut settings, &mut files);
        }
    }
    let variables = environment.pip.iter().map(|(name, value)| (*name, value.as_str()));
    let conf = PipConf::variables(variables).map_err(|error| failure(&error))?;
    apply(conf, &mut settings, &mut files);
    if let Some(path) = files.ca {
        settings.ca_pem.push(bytes(&path, "the CA bundle")?);
    }
    if let Some(path) = files.client {
        settings.client_certificate = Some(ClientCertificate::new(bytes(&path, "the client certificate")?));
    }
    for links in &mut settings.find_links {
        if let FindLinks::Folder(path) = links {
            *path = environment.current_dir.join(&path);
        }
    }
    for path in &environment.netrc {
        if let Some(text) = text(path)? {
            settings.credentials.netrc = Netrc::parse(&text).map_err(|error| wrong(path, &error))?;
            break;
        }
    }
    Ok(settings)
}

/// Files that a configuration names.
struct Files {
    ca: Option<PathBuf>,
    client: Option<PathBuf>,
}

fn apply(conf: PipConf, settings: &mut Settings, files: &mut Files) {
    files.ca = conf.cert.clone().or(files.ca.take());
    files.client = conf.client_cert.clone().or(files.client.take());
    conf.apply(settings);
}

/// The text of a file that need not be there. One that is there and cannot be read may say what must not be missed.
fn text(path: &Path) -> Result<Option<String>, Failure> {
    let unreadable = |problem: String| {
        let message = format!("cannot read {}: {problem}", path.display());
        Failure::new(exit::SYSTEM, message, Some("pip would read it, too".to_owned()))
    };
    match fs_err::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Ok(None),
        Ok(metadata) if metadata.len() > LARGEST => {
            return Err(unreadable(format!("it has {} bytes", metadata.len())));
        }
        Ok(_) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return pass_over(&error).map_err(unreadable),
    }
    let bytes = match fs_err::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return pass_over(&error).map_err(unreadable),
    };
    String::from_utf8(bytes).map(Some).map_err(|_| unreadable("it is not UTF-8".to_owned()))
}

/// A file that this user must not read was not meant for this user, and pip passes it over.
fn pass_over(error: &io::Error) -> Result<Option<String>, String> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Ok(None),
        _ => Err(error.to_string()),
    }
}

fn bytes(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    let path = match (path.strip_prefix("~"), crate::environment::variable("HOME")) {
        (Ok(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => path.to_owned(),
    };
    fs_err::read(path)
        .map_err(|error| Failure::new(exit::SYSTEM, format!("cannot read {what}: {error}"), None))
}

fn wrong(path: &Path, error: &lbx_index::Error) -> Failure {
    Failure { message: format!("{}: {}", path.display(), chain(error)), ..failure(error) }
}

fn failure(error: &lbx_index::Error) -> Failure {
    Failure::new(exit::SYSTEM, chain(error), error.hint())
}
