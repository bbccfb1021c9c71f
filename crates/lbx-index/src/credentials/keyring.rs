//! A keyring: a program that knows passwords. It is asked outside the sandbox, with no terminal to ask anybody, and
//! is killed with all that it started when it takes too long.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::PATIENCE;
use crate::{Login, Origin, SafeUrl};

/// The longest password, in bytes.
const LONGEST: u64 = 64 << 10;

/// The program, and how long it may take. It is called as `PROGRAM… get SERVICE USER`.
#[derive(Debug, Clone)]
pub struct Keyring {
    /// The program, with what comes before `get`.
    pub command: Vec<OsString>,
    /// How long one answer may take.
    pub deadline: Duration,
}

impl Keyring {
    /// The keyring that is called so.
    pub fn new(command: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self { command: command.into_iter().map(Into::into).collect(), deadline: PATIENCE }
    }

    /// The password of a user, kept for the index or for its host.
    pub(crate) async fn login(&self, index: &SafeUrl, origin: &Origin, user: &str) -> Option<Login> {
        for service in [index.as_str(), &origin.authority()] {
            if let Some(password) = self.ask(service, user).await {
                return Some(Login::new(user, password));
            }
        }
        None
    }

    async fn ask(&self, service: &str, user: &str) -> Option<String> {
        let (program, arguments) = self.command.split_first()?;
        let mut command = Command::new(program);
        command.args(arguments).args(["get", service, user]);
        command.env("PYTHONIOENCODING", "utf-8");
        // A group of its own, in the background: reading from the terminal would stop it.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut child = match command.kill_on_drop(true).spawn() {
            Ok(child) => child,
            Err(error) => {
                tracing::warn!(%error, "the keyring cannot be started");
                return None;
            }
        };
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let mut stdout = child.stdout.take()?.take(LONGEST);
        let answer = async {
            let mut answer = String::new();
            stdout.read_to_string(&mut answer).await.ok()?;
            child.wait().await.ok()?.success().then_some(answer)
        };
        let answer = tokio::time::timeout(self.deadline, answer).await;
        if answer.is_err() {
            tracing::warn!(seconds = self.deadline.as_secs(), "the keyring did not answer in time");
            if let Some(group) = group {
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
        }
        let answer = answer.ok()??;
        let password = answer.trim_end_matches(['\r', '\n']);
        (!password.is_empty()).then(|| password.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn keyring(script: &str) -> Keyring {
        Keyring { deadline: Duration::from_millis(1500), ..Keyring::new(["sh", "-c", script, "keyring"]) }
    }

    async fn ask(keyring: &Keyring) -> Option<Login> {
        let index = crate::Address::parse("an index", "https://index.test/simple").expect("an address");
        keyring.login(&index.safe(), &index.origin(), "me").await
    }

    #[tokio::test]
    async fn a_password_is_found_by_the_index_or_by_its_host() {
        let by_index = keyring("[ \"$*\" = 'get https://index.test/simple me' ] && echo hush");
        assert_eq!(ask(&by_index).await, Some(Login::new("me", "hush")));
        let by_host = keyring("[ \"$2\" = index.test ] && printf 'hu sh\\r\\n'");
        assert_eq!(ask(&by_host).await, Some(Login::new("me", "hu sh")));
    }

    #[tokio::test]
    async fn one_that_fails_is_silent_or_is_not_there_knows_nothing() {
        for script in ["exit 1", "echo hush; exit 1", "true", "printf '\\377'"] {
            assert_eq!(ask(&keyring(script)).await, None, "{script}");
        }
        assert_eq!(ask(&Keyring::new(["/no/such/program"])).await, None);
        assert_eq!(ask(&Keyring::new(Vec::<OsString>::new())).await, None);
    }

    #[tokio::test]
    async fn one_that_waits_for_somebody_is_killed_with_all_that_it_started() {
        let start = Instant::now();
        assert_eq!(ask(&keyring("read -r answer; sleep 60 & sleep 60")).await, None);
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
