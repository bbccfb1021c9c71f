//! Certificates made on the spot by `openssl`: an authority, and what it or nobody has signed.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A server's certificate with its key.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate's PEM file.
    pub chain: PathBuf,
    /// The key's PEM file.
    pub key: PathBuf,
}

impl Certificate {
    /// The certificate's PEM bytes.
    pub fn pem(&self) -> Vec<u8> {
        fs_err::read(&self.chain).expect("a certificate")
    }
}

/// Makes an authority below `directory`.
pub fn authority(directory: &Path) -> Certificate {
    make(directory, "authority", &["-addext", "basicConstraints=critical,CA:TRUE"], None)
}

/// Makes a server's certificate for `names` (`IP:127.0.0.1,DNS:localhost`), signed by `authority`.
pub fn server(directory: &Path, names: &str, authority: &Certificate) -> Certificate {
    let names = format!("subjectAltName={names}");
    let extensions = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", &names];
    make(directory, "server", &extensions, Some(authority))
}

/// Makes what the plainest `openssl req -x509` makes: an authority that servers show as their own certificate.
pub fn self_signed(directory: &Path, names: &str) -> Certificate {
    make(directory, "self-signed", &["-addext", &format!("subjectAltName={names}")], None)
}

fn make(directory: &Path, name: &str, extensions: &[&str], signer: Option<&Certificate>) -> Certificate {
    let (chain, key) = (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")));
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]);
    command.args(["-subj", &format!("/CN=lbx test {name}")]).args(extensions);
    command.arg("-keyout").arg(&key).arg("-out").arg(&chain);
    if let Some(signer) = signer {
        command.arg("-CA").arg(&signer.chain).arg("-CAkey").arg(&signer.key);
    }
    let output = command.output().expect("openssl runs; `apt-get install openssl` brings it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Certificate { chain, key }
}
