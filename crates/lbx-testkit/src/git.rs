//! Repositories made for a test, and the servers that people have them on: git's own HTTP backend, and a real sshd.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::process::wait_for;
use crate::stub::{Reply, Request, Stub};

/// A repository with a working tree.
#[derive(Debug, Clone)]
pub struct Repository {
    folder: PathBuf,
}

impl Repository {
    /// An empty one in a new folder.
    pub fn new(folder: &Path) -> Self {
        fs_err::create_dir_all(folder).expect("a directory");
        let repository = Self { folder: folder.to_owned() };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    /// Writes files and commits all that there is; returns the commit.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        for (path, text) in files {
            let path = self.folder.join(path);
            fs_err::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs_err::write(path, text).expect("a file");
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=change"]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Runs git in it, as somebody who has no settings; returns what it prints.
    pub fn git(&self, arguments: &[&str]) -> String {
        let output = git(&self.folder).args(arguments).output().expect("git");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

fn git(folder: &Path) -> Command {
    let mut command = Command::new("/usr/bin/git");
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent").current_dir(folder);
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "test").env(format!("GIT_{role}_EMAIL"), "test@example.org");
        command.env(format!("GIT_{role}_DATE"), "2020-01-01T00:00:00Z");
    }
    // Submodules of a test are folders.
    command.args(["-c", "protocol.file.allow=always"]);
    command
}

/// Serves all repositories below a folder over HTTP, to everybody or to those alone who know user and password.
pub fn serve(folder: &Path, login: Option<(&str, &str)>) -> Stub {
    let folder = folder.to_owned();
    let expected =
        login.map(|(user, password)| format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))));
    Stub::start(move |request| {
        if expected.as_deref().is_some_and(|expected| request.header("authorization") != Some(expected)) {
            return Reply::new(401, b"").with_header("WWW-Authenticate", "Basic realm=\"git\"");
        }
        backend(&folder, request)
    })
}

/// What git's own backend answers, which is a CGI program.
fn backend(folder: &Path, request: &Request) -> Reply {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let mut command = git(folder);
    command.args(["-c", "safe.directory=*", "http-backend"]);
    command.env("GIT_PROJECT_ROOT", folder).env("GIT_HTTP_EXPORT_ALL", "1");
    command.env("PATH_INFO", path).env("QUERY_STRING", query).env("REQUEST_METHOD", &request.method);
    for (variable, header) in [
        ("CONTENT_TYPE", "content-type"),
        ("HTTP_CONTENT_ENCODING", "content-encoding"),
        ("GIT_PROTOCOL", "git-protocol"),
    ] {
        command.envs(request.header(header).map(|value| (variable, value)));
    }
    command.env("CONTENT_LENGTH", request.body.len().to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("git http-backend");
    let mut stdin = child.stdin.take().expect("a pipe");
    let body = request.body.clone();
    // Whoever is done with the request closes the pipe.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&body)));
    let output = child.wait_with_output().expect("its output");
    writer.join().expect("the writer");
    reply(&output.stdout)
}

/// The answer that a CGI program has printed.
fn reply(printed: &[u8]) -> Reply {
    let end = printed.windows(4).position(|four| four == b"\r\n\r\n").expect("the end of the headers");
    let mut reply = Reply::new(200, &printed[end + 4..]);
    for line in String::from_utf8_lossy(&printed[..end]).lines() {
        let (name, value) = line.split_once(": ").expect("a header");
        match name {
            "Status" => reply.status = value[..3].parse().expect("a status"),
            _ => reply = reply.with_header(name, value),
        }
    }
    reply
}

/// An sshd on loopback that lets one key in, as the user who has started it.
#[derive(Debug)]
pub struct Sshd {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Sshd {
    /// Starts one whose keys are in a new folder.
    pub fn start(folder: &Path) -> Self {
        fs_err::create_dir_all(folder).expect("a directory");
        fs_err::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).expect("a mode");
        fs_err::create_dir_all("/run/sshd").expect("the directory that sshd changes its root to");
        for name in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(name));
            assert!(keygen.status().expect("ssh-keygen").success());
        }
        fs_err::copy(folder.join("user.pub"), folder.join("authorized")).expect("a copy");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("its address").port();
        drop(free);
        let settings = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized\nStrictModes no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nPidFile none\n\
             PermitRootLogin prohibit-password\n",
            folder.display()
        );
        fs_err::write(folder.join("sshd_config"), settings).expect("a file");
        let log = fs_err::File::create(folder.join("log")).expect("a file");
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(folder.join("sshd_config"));
        let child = command.stderr(log.into_parts().0).stdin(Stdio::null()).spawn().expect("sshd");
        let sshd = Self { child, port, folder: folder.to_owned() };
        wait_for("sshd", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        sshd
    }

    /// The address of a repository, as it stands in requirements.
    pub fn url(&self, repository: &Path) -> String {
        format!("git+ssh://root@127.0.0.1:{}{}", self.port, repository.display())
    }

    /// A configuration of ssh that knows this host, and the key for it if it is to be let in.
    pub fn client(&self, with_key: bool) -> PathBuf {
        let key = fs_err::read_to_string(self.folder.join("host.pub")).expect("a key");
        let known = format!("[127.0.0.1]:{} {key}", self.port);
        fs_err::write(self.folder.join("known"), known).expect("a file");
        let key = if with_key { "user" } else { "nobody" };
        let settings = format!(
            "Host *\n  UserKnownHostsFile {0}/known\n  IdentityFile {0}/{key}\n  IdentitiesOnly yes\n",
            self.folder.display()
        );
        let path = self.folder.join("client");
        fs_err::write(&path, settings).expect("a file");
        path
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_cloned_over_http_by_those_who_know_the_password() {
        let folder = tempfile::tempdir().expect("a directory");
        let commit = Repository::new(&folder.path().join("one")).commit(&[("a/b", "text")]);
        let server = serve(folder.path(), Some(("me", "word")));
        let clone = |login: &str, to: &str| {
            let url = format!("http://{login}{}/one", server.address());
            let mut command = git(folder.path());
            command.args(["clone", "--quiet", &url, to]).env("GIT_TERMINAL_PROMPT", "0");
            command.output().expect("git").status.success()
        };
        assert!(!clone("", "none") && clone("me:word@", "two"));
        assert_eq!(fs_err::read_to_string(folder.path().join("two/a/b")).expect("a file"), "text");
        let clone = Repository { folder: folder.path().join("two") };
        assert_eq!(clone.git(&["rev-parse", "HEAD"]).trim(), commit);
    }
}
