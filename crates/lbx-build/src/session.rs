//! A command of the user's where builds have theirs: the same image, root, environment and isolation, with the project
//! beside it and the user's streams.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lbx_image::Image;
use lbx_plan::ImageChoice;
use lbx_sandbox::{Access, Bind, End, Network, Remote, Spec};

use crate::base::{self, Base, Ended};
use crate::cancel::Cancel;
use crate::engine::Host;
use crate::error::Error;
use crate::event::Observer;
use crate::limits::Limits;
use crate::site::{Ground, Site};

/// Where the project is in the sandbox, as for pip.
const PROJECT: &str = "/lbx/project";

/// The shells that are looked for, with what makes them show where they are: the files that would say it for them are
/// made for other places, and not read.
const SHELLS: [(&[&str], &str); 2] =
    [(&["/bin/bash", "--norc"], r"lbx:\w\$ "), (&["/bin/sh"], r"lbx:$PWD\$ ")];

/// What the user wants to run, and what it may have.
#[derive(Clone, Debug)]
pub struct Session {
    /// What runs.
    pub program: Program,
    /// The project's folder, absolute and without links.
    pub project: PathBuf,
    /// The folder that the user is in.
    pub current_dir: PathBuf,
    /// Whether it may write to the project.
    pub write: bool,
    /// Whether it has the host's network.
    pub network: bool,
    /// The kind of the user's terminal, when it is to run on one like it.
    pub terminal: Option<String>,
    /// What it may use. It may take as long as it likes.
    pub limits: lbx_sandbox::Limits,
    /// Take the image from the store, and ask no registry.
    pub offline: bool,
}

/// What runs in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A program with its arguments.
    Command(Vec<String>),
    /// The image's shell.
    Shell,
}

/// How a session's command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    /// Its status.
    pub end: End,
    /// The limit that it met, as far as the kernel tells, and what to do about it, in words.
    pub limit: Option<String>,
}

/// What happens outside reaches a session's command through this. Copies share it.
#[derive(Clone, Debug, Default)]
pub struct Link {
    remote: Arc<Mutex<Option<Remote>>>,
}

impl Link {
    /// Passes a signal on, as [`Remote::signal`] does; false when there is no command that it could reach.
    pub fn signal(&self, signal: i32) -> bool {
        self.with(|remote| remote.as_ref().map(|remote| remote.signal(signal)).is_some())
    }

    /// Passes on that the user's terminal has another size.
    pub fn resize(&self) {
        self.with(|remote| remote.as_ref().map(Remote::resize));
    }

    /// A panic elsewhere does not make it unusable: there is a remote or there is none.
    fn with<T>(&self, act: impl FnOnce(&mut Option<Remote>) -> T) -> T {
        act(&mut self.remote.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs a command to its end, and says how it ended.
///
/// Until it starts, `cancel` stops everything; from then on, it is `link` that reaches it.
pub async fn run(
    session: Session,
    choice: ImageChoice,
    host: Host,
    cancel: &Cancel,
    link: &Link,
    observer: &Observer,
) -> Result<SessionEnd, Error> {
    check_store(&session, &host)?;
    let (limits, offline) = (Limits { resources: session.limits, ..Limits::usual() }, session.offline);
    let ground = Arc::new(Ground::open(choice, host, limits, cancel, observer)?);
    let (site, image) = Site::open(ground, offline).await?;
    let link = link.clone();
    // From here on it blocks, and has a thread of its own.
    let work = tokio::task::spawn_blocking(move || run_in(&site, image, &session, &link));
    work.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// What later builds trust must not be written by a command that may write to the project.
fn check_store(session: &Session, host: &Host) -> Result<(), Error> {
    // A store that does not exist yet has no other name.
    let store = fs_err::canonicalize(&host.cache_dir).unwrap_or_else(|_| host.cache_dir.clone());
    let project = &session.project;
    if session.write && (store.starts_with(project) || project.starts_with(&store)) {
        return Err(Error::StoreInProject { store, project: project.clone() });
    }
    Ok(())
}

fn run_in(site: &Site, image: Image, session: &Session, link: &Link) -> Result<SessionEnd, Error> {
    let base = Base::prepare(site, image)?;
    match &session.program {
        Program::Command(argv) => attach(site, &spec(&base, session, argv.clone(), None)?, link),
        Program::Shell => {
            let [first, second] = SHELLS.map(|(argv, prompt)| {
                let argv = argv.iter().map(|&argument| argument.to_owned()).collect();
                spec(&base, session, argv, Some(prompt))
            });
            match attach(site, &first?, link) {
                Err(Error::Sandbox(lbx_sandbox::Error::ProgramNotFound { .. })) => {
                    attach(site, &second?, link)
                }
                other => other,
            }
        }
    }
}

fn spec(base: &Base, session: &Session, argv: Vec<String>, prompt: Option<&str>) -> Result<Spec, Error> {
    let mut spec = Spec::new(base.root.clone(), argv);
    spec.network = if session.network { Network::Host } else { Network::None };
    let access = if session.write { Access::ReadWrite } else { Access::ReadOnly };
    text(&session.project)?;
    spec.binds.push(Bind { source: session.project.clone(), target: PROJECT.to_owned(), access });
    spec.cwd = counterpart(session)?;
    spec.env = base::environment(&base.image);
    let kind = session.terminal.as_deref().filter(|kind| !kind.is_empty());
    let more = [("TERM", kind), ("PS1", prompt)];
    spec.env.extend(more.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))));
    spec.terminal = session.terminal.is_some();
    Ok(spec)
}

/// The folder of the sandbox that is the user's current one, or the project's where that one is not there.
fn counterpart(session: &Session) -> Result<String, Error> {
    // A folder that was removed has no real path; neither is it in the project.
    let current = fs_err::canonicalize(&session.current_dir).unwrap_or_default();
    Ok(match current.strip_prefix(&session.project) {
        Ok(below) if !below.as_os_str().is_empty() => format!("{PROJECT}/{}", text(below)?),
        Ok(_) | Err(_) => PROJECT.to_owned(),
    })
}

fn text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| Error::FolderName { path: path.to_owned() })
}

/// Starts a command in the foreground and waits for its end.
fn attach(site: &Site, spec: &Spec, link: &Link) -> Result<SessionEnd, Error> {
    let spec = site.isolate(spec.clone())?;
    // Asked with the link in hand: a signal either was heard before, or finds the command.
    let session = link.with(|remote| {
        site.cancel.check()?;
        let session = site.host.launcher.attach(&spec)?;
        *remote = Some(session.remote());
        Ok::<_, Error>(session)
    })?;
    // Its size may have changed since it was looked at.
    link.resize();
    let exit = session.wait();
    link.with(Option::take);
    let exit = exit?;
    Ok(SessionEnd { end: exit.end, limit: limit(&Ended::of(exit), &site.limits) })
}

/// The limit that a command met. What it said, nobody has heard.
fn limit(ended: &Ended, limits: &Limits) -> Option<String> {
    let hint = ended.hint("", limits, None)?;
    Some(match ended {
        Ended::Stopped(_) => format!("{}: {hint}", base::how(ended)),
        Ended::Itself(_) => hint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(project: &Path, current_dir: &Path) -> Session {
        Session {
            program: Program::Shell,
            project: project.to_owned(),
            current_dir: current_dir.to_owned(),
            write: false,
            network: false,
            terminal: None,
            limits: lbx_sandbox::Limits::default(),
            offline: false,
        }
    }

    #[test]
    fn the_current_folder_has_a_counterpart_when_it_is_in_the_project() {
        let root = tempfile::tempdir().unwrap();
        let root = fs_err::canonicalize(root.path()).map(|path| (root, path)).unwrap();
        let (project, below) = (root.1.join("p"), root.1.join("p/a/b"));
        fs_err::create_dir_all(&below).unwrap();
        fs_err::create_dir_all(root.1.join("pa")).unwrap();
        std::os::unix::fs::symlink(&below, root.1.join("link")).unwrap();
        let at = |current: &Path| counterpart(&session(&project, current)).unwrap();
        assert_eq!(at(&project), "/lbx/project");
        assert_eq!(at(&below), "/lbx/project/a/b");
        assert_eq!(at(&root.1.join("link")), "/lbx/project/a/b");
        for elsewhere in [root.1.join("pa"), root.1.clone(), root.1.join("gone")] {
            assert_eq!(at(&elsewhere), "/lbx/project");
        }
    }

    #[test]
    fn without_a_command_a_signal_reaches_nobody() {
        let link = Link::default();
        assert!(!link.signal(15));
        link.resize();
    }
}
