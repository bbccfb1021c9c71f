//! Repositories: the user's own git fetches them, outside the sandbox, with the user's keys and helpers; what is built is
//! one commit of them, with its submodules, without their history.
//!
//! One process at a time works on what is kept of a repository. git never asks anybody at a terminal. A password in an address reaches it by a variable, because everybody on the
//! machine sees the arguments of programs.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lbx_lock::Claim;
use lbx_plan::Hidden;
use sha2::{Digest, Sha256};

use super::local::copied;
use super::{Builder, Made, Source};
use crate::cache;
use crate::cancel::Cancel;
use crate::engine::Context;
use crate::error::Error;
use crate::limits::{Breach, TimeLimits};
use crate::project::Variable;

/// How often it is looked whether git is done, or the build was given up.
const EVERY: Duration = Duration::from_millis(10);
/// The most of what git says that is kept. Bytes.
const KEPT: u64 = 64 << 10;

/// How repositories are reached.
const SCHEMES: [&str; 5] = ["https", "http", "ssh", "git", "file"];

/// What the address of a repository says.
#[derive(Debug, PartialEq, Eq)]
struct Repository {
    /// Without user and password, but for the user of ssh.
    url: String,
    /// Who asks, over HTTP.
    login: Option<(String, String)>,
    /// A branch, a tag or a commit; the one that the repository has for its own when there is none.
    reference: Option<String>,
    /// The folder in it that is the project.
    subdirectory: String,
}

impl Repository {
    fn parse(address: &str) -> Option<Self> {
        let rest = address.strip_prefix("git+")?;
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (scheme, rest) = rest.split_once("://")?;
        // git has others, one of which runs what the address says.
        if !SCHEMES.contains(&scheme) {
            return None;
        }
        let (authority, path) = rest.split_at(rest.find('/')?);
        let (path, reference) = match path.rsplit_once('@') {
            Some((path, reference)) => (path, Some(reference.to_owned()).filter(|text| !text.is_empty())),
            None => (path, None),
        };
        // git would take it for an option.
        if reference.as_ref().is_some_and(|reference| reference.starts_with('-')) {
            return None;
        }
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let (url, login) = if scheme.starts_with("http") {
            let login = user.map(|user| user.split_once(':').unwrap_or((user, "")));
            let login = login.map(|(user, password)| (decoded(user), decoded(password)));
            (format!("{scheme}://{host}{path}"), login)
        } else {
            (format!("{scheme}://{authority}{path}"), None)
        };
        let mut pairs = fragment.split('&');
        let subdirectory = pairs.find_map(|pair| pair.strip_prefix("subdirectory=")).unwrap_or_default();
        let subdirectory = subdirectory.trim_matches('/').to_owned();
        Some(Self { url, login, reference, subdirectory })
    }

    /// The commit that is meant, when nobody has to be asked.
    fn commit(&self) -> Option<&str> {
        let reference = self.reference.as_deref()?;
        is_commit(reference).then_some(reference)
    }
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.chars().all(|c| c.is_ascii_hexdigit())
}

/// A part of an address as it was before it was encoded.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = (*first == b'%').then(|| tail.get(..2)).flatten();
        if let Some(byte) = digits.and_then(|digits| hex::decode(digits).ok()) {
            bytes.extend(byte);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Fetches a repository if it has to be, and copies the commit that is meant into `work`.
pub(super) fn source(builder: &Arc<Builder>, address: &Hidden, work: &Path) -> Result<Source, Error> {
    let context = builder.context();
    let repository = parsed(address)?;
    let (cancel, limits) = (&context.ground.cancel, context.ground.limits.time);
    let mut git = Git { repository: &repository, cancel, limits, quiet_ssh: false };
    git.quiet_ssh = git.has_plain_ssh(context.ground.host.variable);
    let mirror = mirror(context, &repository)?;
    let (tree, copy) = (work.join("tree"), work.join("copy"));
    let _alone = git.lock(&mirror)?;
    cache::note(context.ground.store.root(), &format!("git-{}", hash_of(&repository)));
    let commit = git.commit(&mirror, work, context.options.offline)?;
    git.check_out(&mirror, &commit, &tree)?;
    let name = format!("git+{}@{commit}", repository.url);
    let subdirectory = repository.subdirectory.clone();
    let sha256 = copied(&tree, &name, &copy, &[])?;
    let version = git.version(&mirror, &commit)?;
    let made = Made::Git {
        url: repository.url.clone(),
        reference: repository.reference.clone(),
        commit,
        subdirectory: subdirectory.clone(),
    };
    Ok(Source { name, path: copy, sha256, subdirectory, version, made })
}

/// A commit by its name alone, without its files.
pub(super) fn commit(address: &Hidden) -> Result<Source, Error> {
    let repository = parsed(address)?;
    let commit = repository.commit().unwrap_or_default().to_ascii_lowercase();
    let name = format!("git+{}@{commit}", repository.url);
    let subdirectory = repository.subdirectory.clone();
    let made = Made::Git {
        url: repository.url.clone(),
        reference: repository.reference.clone(),
        commit,
        subdirectory: subdirectory.clone(),
    };
    Ok(Source { sha256: name.clone(), name, path: PathBuf::new(), subdirectory, version: None, made })
}

fn parsed(address: &Hidden) -> Result<Repository, Error> {
    Repository::parse(address.expose()).ok_or_else(|| Error::Git {
        url: address.to_string(),
        what: "be read: it is no address of a repository".to_owned(),
        output: String::new(),
    })
}

/// Where a repository is kept, with all that was ever fetched of it.
fn mirror(context: &Context, repository: &Repository) -> Result<PathBuf, Error> {
    let folder = context.ground.store.root().join("git");
    fs_err::create_dir_all(&folder)?;
    Ok(folder.join(hash_of(repository)))
}

/// By what a repository is kept.
fn hash_of(repository: &Repository) -> String {
    hex::encode(Sha256::digest(&repository.url))
}

struct Git<'g> {
    repository: &'g Repository,
    cancel: &'g Cancel,
    /// How long each of its runs may take. It says nothing while it works.
    limits: TimeLimits,
    /// Whether ssh is to be told not to ask anybody: the user has no command of their own for it.
    quiet_ssh: bool,
}

impl Git<'_> {
    fn has_plain_ssh(&self, variable: Variable) -> bool {
        let named = ["GIT_SSH_COMMAND", "GIT_SSH"].iter().any(|name| variable(name).is_some());
        !named
            && self.run("be read", self.command(None).args(["config", "--get", "core.sshCommand"])).is_err()
    }

    /// Waits until nobody else works on the mirror, for as long as what is returned is held.
    fn lock(&self, mirror: &Path) -> Result<fs_err::File, Error> {
        let file = fs_err::File::create(mirror.with_extension("lock"))?;
        loop {
            match lbx_lock::claim(file.file())? {
                // Where there are no locks, git has its own, and says so.
                Claim::Held | Claim::Unknown => return Ok(file),
                Claim::Taken => {
                    self.cancel.check()?;
                    std::thread::sleep(EVERY);
                }
            }
        }
    }

    /// The commit that is meant, which the mirror then has. A mirror that was left behind half-made, or with locks of a git
    /// that is gone, makes room for another one.
    fn commit(&self, mirror: &Path, work: &Path, offline: bool) -> Result<String, Error> {
        match self.commit_in(mirror, work, offline) {
            Err(Error::Git { output, .. }) if !offline && is_left_behind(&output) => {
                fs_err::create_dir_all(work)?;
                fs_err::rename(mirror, work.join("left"))?;
                self.commit_in(mirror, work, offline)
            }
            other => other,
        }
    }

    fn commit_in(&self, mirror: &Path, work: &Path, offline: bool) -> Result<String, Error> {
        let fresh = !mirror.join("HEAD").exists();
        if fresh && !offline {
            // It is there when it is whole.
            fs_err::create_dir_all(work)?;
            let made = work.join("mirror");
            self.run("be kept", self.command(None).args(["init", "--quiet", "--bare"]).arg(&made))?;
            if mirror.exists() {
                fs_err::rename(mirror, work.join("half"))?;
            }
            fs_err::rename(&made, mirror)?;
        }
        if let Some(commit) = self.repository.commit().filter(|_| !fresh)
            && self.resolve(mirror, commit).is_ok()
        {
            return Ok(commit.to_ascii_lowercase());
        }
        if offline {
            let known = self.repository.reference.as_deref().unwrap_or("refs/lbx/default");
            return self
                .find(mirror, known)
                .ok_or_else(|| self.error("be had: the network is off", String::new()));
        }
        self.fetch(mirror)?;
        let wanted = self.repository.reference.as_deref().unwrap_or("refs/lbx/default");
        self.find(mirror, wanted).ok_or_else(|| {
            self.error(
                &format!("give `{wanted}`: there is no branch, tag or commit of that name"),
                String::new(),
            )
        })
    }

    /// Brings all branches and tags, and what was asked for besides.
    fn fetch(&self, mirror: &Path) -> Result<(), Error> {
        let mut all =
            vec!["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/lbx/default"];
        let other = self.repository.reference.as_ref().filter(|one| one.starts_with("refs/"));
        let other = other.map(|one| format!("+{one}:{one}"));
        all.extend(other.as_deref());
        let mut fetch = self.command(Some(mirror));
        fetch.args(["fetch", "--quiet", "--prune", "--no-write-fetch-head", "--"]);
        self.run("be fetched", fetch.arg(&self.repository.url).args(all))?;
        // A commit that no branch has, which many servers give all the same.
        if let Some(commit) = self.repository.commit().filter(|commit| self.resolve(mirror, commit).is_err())
        {
            let mut fetch = self.command(Some(mirror));
            fetch.args(["fetch", "--quiet", "--no-write-fetch-head", "--"]);
            let kept = format!("+{commit}:refs/lbx/{commit}");
            self.run("be fetched", fetch.arg(&self.repository.url).arg(kept))?;
        }
        Ok(())
    }

    /// The commit of a name: a tag comes before a branch, as everywhere in git.
    fn find(&self, mirror: &Path, name: &str) -> Option<String> {
        let places = [name.to_owned(), format!("refs/tags/{name}"), format!("refs/heads/{name}")];
        let places = if name.starts_with("refs/") || is_commit(name) { &places[..1] } else { &places[1..] };
        let found = places.iter().find_map(|place| self.resolve(mirror, place).ok());
        // The beginning of a commit.
        let is_short = name.len() >= 7 && name.chars().all(|c| c.is_ascii_hexdigit());
        found.or_else(|| is_short.then(|| self.resolve(mirror, name).ok()).flatten())
    }

    fn resolve(&self, mirror: &Path, name: &str) -> Result<String, Error> {
        let mut command = self.command(Some(mirror));
        command
            .args(["rev-parse", "--verify", "--quiet", "--end-of-options"])
            .arg(format!("{name}^{{commit}}"));
        Ok(self.run("be read", &mut command)?.trim().to_owned())
    }

    /// Makes a tree of a commit, with submodules and large files.
    fn check_out(&self, mirror: &Path, commit: &str, tree: &Path) -> Result<(), Error> {
        self.run("be kept", self.command(None).args(["init", "--quiet"]).arg(tree))?;
        // Submodules and large files are looked for beside it, so it has to know where it is from.
        let mut remote = self.command(Some(tree));
        self.run("be kept", remote.args(["remote", "add", "origin"]).arg(&self.repository.url))?;
        let mut fetch = self.command(Some(tree));
        fetch.args(["fetch", "--quiet", "--depth=1", "--"]).arg(format!("file://{}", mirror.display()));
        self.run("be copied", fetch.arg(commit))?;
        let mut checkout = self.command(Some(tree));
        self.run("be checked out", checkout.args(["checkout", "--quiet", "--detach", commit]))?;
        let mut submodules = self.command(Some(tree));
        submodules.args(["submodule", "--quiet", "update", "--init", "--recursive"]);
        self.run("get its submodules", &mut submodules)?;
        self.check_large_files(tree)
    }

    /// Without the program for large files, git leaves notes in their places and says nothing.
    fn check_large_files(&self, tree: &Path) -> Result<(), Error> {
        let mut find = self.command(Some(tree));
        find.args(["grep", "--recurse-submodules", "--files-with-matches", "--fixed-strings", "--no-index"]);
        find.args(["--max-depth=-1", "-e", "version https://git-lfs.github.com/spec/v1"]);
        let Ok(found) = self.run("be searched", &mut find) else { return Ok(()) };
        let is_note = |name: &&str| {
            let bytes = fs_err::read(tree.join(name)).unwrap_or_default();
            bytes.len() < 1024 && bytes.starts_with(b"version https://git-lfs.github.com/spec/v1\noid ")
        };
        match found.lines().find(is_note) {
            None => Ok(()),
            Some(name) => Err(self.error(
                &format!("give `{name}`, which is kept by git-lfs: install it (`git lfs install`)"),
                String::new(),
            )),
        }
    }

    /// The version that tags say the commit has, as setuptools-scm counts: what builds sees no history.
    fn version(&self, mirror: &Path, commit: &str) -> Result<Option<String>, Error> {
        let mut describe = self.command(Some(mirror));
        describe.args(["describe", "--tags", "--long", "--abbrev=9", "--match", "*[0-9]*", commit]);
        self.cancel.check()?;
        Ok(self.run("be read", &mut describe).ok().and_then(|text| version(text.trim())))
    }

    fn command(&self, folder: Option<&Path>) -> Command {
        let mut command = Command::new("git");
        if let Some(folder) = folder {
            command.arg("-C").arg(folder);
        }
        // Nothing of what is fetched runs here. Bare repositories are named, not found.
        let settings = [("core.hooksPath", "/dev/null"), ("core.fsmonitor", "false"), ("gc.auto", "0")];
        let helper = "!f() { test \"$1\" = get && echo \"username=$LBX_GIT_USER\" && echo \"password=$LBX_GIT_PASSWORD\"; }; f";
        let mut settings: Vec<(String, &str)> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        if let Some((user, password)) = &self.repository.login {
            let host = self.repository.url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
            settings.push((format!("credential.{host}.helper"), helper));
            command.env("LBX_GIT_USER", user).env("LBX_GIT_PASSWORD", password);
        }
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (number, (name, value)) in settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), name);
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C.UTF-8").env_remove("SSH_ASKPASS");
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ASKPASS"] {
            command.env_remove(name);
        }
        if self.quiet_ssh {
            command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes");
        }
        command
    }

    /// Runs git to its end, or until the build is given up. Returns what it prints.
    fn run(&self, what: &str, command: &mut Command) -> Result<String, Error> {
        self.cancel.check()?;
        // A group of its own, so that what it starts ends with it.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let start = Instant::now();
        let mut breach = None;
        let mut child = command.spawn().map_err(|error| {
            let output = error.to_string();
            self.error("be fetched: there is no git that can be started", output)
        })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (status, printed, said) = std::thread::scope(|scope| {
            let printed = scope.spawn(|| stdout.map(kept).unwrap_or_default());
            let said = scope.spawn(|| stderr.map(kept).unwrap_or_default());
            let status = loop {
                match child.try_wait() {
                    Ok(None) => std::thread::sleep(EVERY),
                    Ok(Some(status)) => break Ok(status),
                    Err(error) => break Err(error),
                }
                breach = breach.or_else(|| self.breach(start.elapsed()));
                if self.cancel.is_cancelled() || breach.is_some() {
                    end(&mut child);
                }
            };
            (status, printed.join().unwrap_or_default(), said.join().unwrap_or_default())
        });
        self.cancel.check()?;
        if let Some(breach) = breach {
            return Err(self.error(&format!("{what}: git was {breach} ({})", breach.option()), String::new()));
        }
        if status?.success() { Ok(printed) } else { Err(self.error(what, said.trim().to_owned())) }
    }

    fn breach(&self, taken: Duration) -> Option<Breach> {
        let TimeLimits { total, silence } = self.limits;
        let total = (taken >= total).then_some(Breach::Total(total));
        total.or_else(|| (taken >= silence).then_some(Breach::Silence(silence)))
    }

    fn error(&self, what: &str, output: String) -> Error {
        Error::Git { url: self.repository.url.clone(), what: what.to_owned(), output }
    }
}

/// Ends a program and all that it has started.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
}

/// Whether git complains of what another one has left in a repository.
fn is_left_behind(said: &str) -> bool {
    said.contains("not a git repository") || (said.contains(".lock") && said.contains("File exists"))
}

/// What a pipe says, as far as it is kept.
fn kept(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = pipe.by_ref().take(KEPT).read_to_end(&mut bytes);
    let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `v1.2.3-4-gabc` is `1.2.4.dev4+gabc`: the fourth commit on the way to the next version.
fn version(described: &str) -> Option<String> {
    let (rest, hash) = described.rsplit_once("-g")?;
    let (tag, distance) = rest.rsplit_once('-')?;
    let start = tag.find(|c: char| c.is_ascii_digit())?;
    let version = &tag[start..];
    if !version.chars().all(|c| c.is_ascii_alphanumeric() || c == '.') {
        return None;
    }
    if distance == "0" {
        return Some(version.to_owned());
    }
    let (head, last) = version.rsplit_once('.').map_or(("", version), |(head, last)| (head, last));
    let next = last.parse::<u64>().ok()? + 1;
    let dot = if head.is_empty() { "" } else { "." };
    Some(format!("{head}{dot}{next}.dev{distance}+g{hash}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(text: &str) -> Repository {
        Repository::parse(text).expect(text)
    }

    #[test]
    fn an_address_is_taken_apart_without_its_password_in_it() {
        let one = repository("git+https://me:hu%40sh@h:8/a/b.git@v1#egg=b&subdirectory=/c/d/");
        assert_eq!((one.url.as_str(), one.reference.as_deref()), ("https://h:8/a/b.git", Some("v1")));
        assert_eq!((one.login, one.subdirectory.as_str()), (Some(("me".into(), "hu@sh".into())), "c/d"));
        let two = repository("git+ssh://git@h/a.git");
        assert_eq!((two.url.as_str(), two.login, two.reference), ("ssh://git@h/a.git", None, None));
        let three = repository("git+https://token@h/a@feature/x");
        assert_eq!(
            (three.login, three.reference.as_deref()),
            (Some(("token".into(), String::new())), Some("feature/x"))
        );
        for bad in [
            "https://h/a",
            "git+https://h",
            "git+https://h/a@--upload-pack=x",
            "git+ext::sh -c id://h/a",
            "git+HTTPS://h/a",
        ] {
            assert_eq!(Repository::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_version_is_counted_as_setuptools_scm_counts() {
        for (described, expected) in [
            ("v1.2.3-0-gabc", Some("1.2.3")),
            ("1.2-5-g0a1", Some("1.3.dev5+g0a1")),
            ("release7-1-gabc", Some("8.dev1+gabc")),
            ("v1.0rc1-2-gabc", None),
            ("x", None),
            ("v1.0;rm-0-gabc", None),
        ] {
            assert_eq!(version(described).as_deref(), expected, "{described}");
        }
    }
}
