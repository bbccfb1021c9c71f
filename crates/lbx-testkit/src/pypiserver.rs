//! pypiserver with a password file, on loopback: an index that others wrote.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::process::wait_for;
use crate::standin::must_run;

/// The variable that holds the folder with its wheels.
const FOLDER: &str = "LBX_TEST_PYPISERVER";

/// A running server, which goes with this value.
#[derive(Debug)]
pub struct PypiServer {
    child: Child,
    address: String,
    _home: tempfile::TempDir,
}

impl PypiServer {
    /// Serves a folder to those who know user and password; none, with a loud word, when nobody fetched the server.
    #[expect(
        clippy::disallowed_methods,
        clippy::print_stderr,
        reason = "tests are told about their surroundings this way"
    )]
    pub fn start(folder: &Path, user: &str, password: &str) -> Option<Self> {
        let Ok(wheels) = std::env::var(FOLDER) else {
            assert!(!must_run("wheels"), "{FOLDER} is not set, and LBX_MUST_RUN forbids skipping");
            eprintln!("SKIP: {FOLDER} is not set; run `cargo xtask test`");
            return None;
        };
        let home = tempfile::tempdir().expect("a directory");
        let code = unpacked(Path::new(&wheels), &home.path().join("code"));
        fs_err::write(home.path().join("htpasswd"), format!("{user}:{password}\n")).expect("a file");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("its address").port().to_string();
        drop(free);
        let mut command = Command::new("/usr/bin/python3");
        command.env_clear().env("PATH", "/usr/bin:/bin").env("PYTHONPATH", &code).env("HOME", home.path());
        command.current_dir(home.path());
        command.args(["-m", "pypiserver", "run", "--interface", "127.0.0.1", "--port", &port]);
        command.args(["--passwords", "htpasswd", "--authenticate", "list,download,update", "--welcome"]);
        command.arg(code.join("pypiserver/welcome.html")).arg(folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("python3");
        let mut server = Self { child, address: format!("127.0.0.1:{port}"), _home: home };
        wait_for("pypiserver", || {
            assert!(matches!(server.child.try_wait(), Ok(None)), "pypiserver has ended");
            std::net::TcpStream::connect(&server.address).ok()
        });
        Some(server)
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for PypiServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All wheels of a folder in one, as Python finds them.
fn unpacked(wheels: &Path, to: &Path) -> PathBuf {
    for entry in fs_err::read_dir(wheels).expect("a listing").flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "whl") {
            let mut command = Command::new("/usr/bin/unzip");
            let status = command.args(["-q", "-o"]).arg(entry.path()).arg("-d").arg(to).status();
            assert!(status.expect("unzip").success());
        }
    }
    to.to_owned()
}
