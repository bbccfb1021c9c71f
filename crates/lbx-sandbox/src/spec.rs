//! What a sandboxed command sees: plain data, checked for contradictions. Leaves all effects to others.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::emulation::Emulator;
use crate::error::Error;
use crate::limits::Limits;

/// The kernel stacks at most 500 lower layers; one of them is ours.
const MAX_LAYERS: usize = 499;

/// Everything about one run but its standard streams.
///
/// A target is a normalized absolute path inside the sandbox and is taken literally: where the image
/// has a symlink on the way to it, a real directory takes the symlink's place, so an image cannot
/// steer a mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The file system the command starts from.
    pub root: Root,
    /// Whether the command may change it, and where that goes.
    pub changes: Changes,
    /// Paths of the host that are visible inside.
    pub binds: Vec<Bind>,
    /// Small files that exist for this run only. They win over the generated `/etc/passwd`,
    /// `/etc/group`, `/etc/hosts`, `/etc/nsswitch.conf` and `/etc/resolv.conf`.
    pub files: Vec<File>,
    /// Empty writable directories, in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// The host name inside.
    pub hostname: String,
    /// The user id the caller's own id appears as.
    pub uid: u32,
    /// The group id the caller's own group appears as.
    pub gid: u32,
    /// The home directory that `/etc/passwd` names. `HOME` is not set from it.
    pub home: String,
    /// The program and its arguments. A program without a slash is looked up in the `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment of the command.
    pub env: Vec<(String, String)>,
    /// The working directory of the command.
    pub cwd: String,
    /// What the command can reach.
    pub network: Network,
    /// Whether its standard input is a terminal that is to be the controlling one of its session.
    pub terminal: bool,
    /// How it is isolated.
    pub backend: Backend,
    /// What runs the programs of the root where they are another CPU's, from
    /// [`Launcher::emulator`](crate::Launcher::emulator) for the same backend.
    pub emulator: Option<Emulator>,
    /// A directory of the caller's for a root that is not mounted but made, best on the file system of the image. What
    /// is left in it is the caller's to remove.
    pub scratch: Option<PathBuf>,
    /// A name on the file system of the image, of the caller's and next to nothing else's, where a root that took long
    /// to make is kept for the next run with the same [`Root::Tree`]. Whoever removes the tree removes it too.
    pub kept: Option<PathBuf>,
    /// The folders of the host in which programs are found that a backend needs. [`Launcher`](crate::Launcher) fills
    /// it.
    pub(crate) path: Vec<PathBuf>,
    /// What it may use.
    pub limits: Limits,
}

/// Where the root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Root {
    /// Directories to stack with overlayfs, bottom to top, at most 499. Whiteouts are character
    /// devices 0:0, opaque directories carry `user.overlay.opaque=y`.
    Layers(Vec<PathBuf>),
    /// One complete tree.
    Tree(PathBuf),
}

/// What becomes of changes to the root.
///
/// Where there may be any, the command is what a package manager wants to be: it appears to be the root user, who has all
/// files and may read and write them whatever their modes say. Calls that change owners, users, groups and extended
/// attributes, make devices or wait for a disk succeed and do nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Changes {
    /// There are none: it is read-only.
    #[default]
    Never,
    /// They are a layer of their own, `upper` in this empty directory, in the form that [`Root::Layers`] takes. What else
    /// is left in the directory is the caller's to remove.
    Above(PathBuf),
    /// They are made to the tree itself, which is the caller's alone.
    InPlace,
}

/// A path of the host that is visible inside, without its setuid bits and devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// An absolute path of the host, to a directory or a file. It must not be a symlink.
    pub source: PathBuf,
    /// Where it appears.
    pub target: String,
    /// Whether the command may write to it.
    pub access: Access,
}

/// Whether the command may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Nothing under the target can be changed from inside.
    ReadOnly,
    /// The command writes to the host's path with the caller's rights.
    ReadWrite,
}

/// A file that is made for one run and lives in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where it appears.
    pub target: String,
    /// What it contains. Travels beside the JSON of the specification, not in it.
    #[serde(skip)]
    pub contents: Vec<u8>,
    /// Mode 0755 in place of 0644.
    pub executable: bool,
}

/// An empty writable directory in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tmpfs {
    /// Where it appears.
    pub target: String,
    /// The permission bits of the directory.
    pub mode: u32,
    /// The most it can hold, in bytes; by default what [`Limits::tmp`] says, and else half of the memory.
    pub size: Option<u64>,
}

/// What the command can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// The network of the host, with its resolver configuration.
    Host,
    /// A network of its own with nothing but a loopback interface.
    None,
    /// The same with one server: what the caller serves at this port of 127.0.0.1. It comes out of
    /// [`Running::listener`](crate::Running::listener), or is the caller's own of that port: where the command has no
    /// network of its own, each of its connections is made for it, and leads there.
    Served(u16),
}

impl Spec {
    /// A run of `argv` in `root` with writable `/tmp`, `/var/tmp`, `/run` and `/home/lbx`, no network
    /// and an empty environment.
    pub fn new<A: Into<String>>(root: Root, argv: impl IntoIterator<Item = A>) -> Self {
        let tmpfs = [("/tmp", 0o1777), ("/var/tmp", 0o1777), ("/run", 0o755), ("/home/lbx", 0o700)];
        Self {
            root,
            changes: Changes::Never,
            binds: Vec::new(),
            files: Vec::new(),
            tmpfs: tmpfs.map(|(target, mode)| Tmpfs { target: target.to_owned(), mode, size: None }).into(),
            hostname: "lbx".to_owned(),
            uid: 1000,
            gid: 1000,
            home: "/home/lbx".to_owned(),
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: "/".to_owned(),
            network: Network::None,
            terminal: false,
            backend: Backend::default(),
            emulator: None,
            scratch: None,
            kept: None,
            path: Vec::new(),
            limits: Limits::default(),
        }
    }

    /// Checks what can be checked without looking at the host.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.check_command()?;
        self.check_sources()?;
        let mut seen = std::collections::BTreeSet::new();
        self.check_changes()?;
        for target in self.targets() {
            check_target(target)?;
            if !seen.insert(target) {
                return Err(Error::Spec(format!("two things at `{target}`")));
            }
        }
        for file in &self.files {
            if let Some(bind) = self.binds.iter().find(|b| is_below(&file.target, &b.target)) {
                let bind = bind.source.display();
                return Err(Error::Spec(format!("file `{}` would be written into `{bind}`", file.target)));
            }
        }
        Ok(())
    }

    fn check_command(&self) -> Result<(), Error> {
        if self.argv.first().is_none_or(String::is_empty) {
            return Err(Error::Spec("no command".to_owned()));
        }
        if self.argv.iter().any(|a| a.contains('\0')) {
            return Err(Error::Spec("an argument contains a NUL".to_owned()));
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(Error::Spec(format!("bad environment variable {name:?}")));
            }
        }
        if self.hostname.is_empty() || self.hostname.len() > 64 {
            return Err(Error::Spec(format!("bad host name {:?}: expected 1 to 64 bytes", self.hostname)));
        }
        if !self.cwd.starts_with('/') || self.cwd.contains('\0') {
            return Err(Error::Spec(format!("working directory {:?} is not absolute", self.cwd)));
        }
        if self.home.contains([':', '\n']) {
            return Err(Error::Spec(format!("bad home directory {:?}", self.home)));
        }
        Ok(())
    }

    fn check_changes(&self) -> Result<(), Error> {
        match (&self.changes, &self.root) {
            (Changes::Never, _) => return Ok(()),
            (Changes::Above(place), Root::Layers(_)) => check_source(place)?,
            (Changes::InPlace, Root::Tree(_)) => {}
            (Changes::Above(_), Root::Tree(_)) => return Err(Error::Spec("a layer above a tree".to_owned())),
            (Changes::InPlace, Root::Layers(_)) => {
                return Err(Error::Spec("changes in layers, which are shared".to_owned()));
            }
        }
        let in_memory = |file: &&File| self.tmpfs.iter().any(|tmpfs| is_below(&file.target, &tmpfs.target));
        match self.files.iter().find(|file| !in_memory(file)) {
            Some(file) => {
                Err(Error::Spec(format!("file `{}` would be among what the command changes", file.target)))
            }
            None => Ok(()),
        }
    }

    /// Whether the command is to look like the root user, in a root of its own to change.
    pub(crate) fn administers(&self) -> bool {
        self.changes != Changes::Never
    }

    fn check_sources(&self) -> Result<(), Error> {
        let roots = match &self.root {
            Root::Layers(layers) if layers.is_empty() || layers.len() > MAX_LAYERS => {
                let found = layers.len();
                return Err(Error::Spec(format!("{found} layers: expected 1 to {MAX_LAYERS}")));
            }
            Root::Layers(layers) => layers.as_slice(),
            Root::Tree(tree) => std::slice::from_ref(tree),
        };
        for path in roots.iter().chain(self.binds.iter().map(|b| &b.source)) {
            check_source(path)?;
        }
        Ok(())
    }

    /// Every place of the sandbox that this run fills.
    fn targets(&self) -> impl Iterator<Item = &str> {
        let files = self.files.iter().map(|f| f.target.as_str());
        let tmpfs = self.tmpfs.iter().map(|t| t.target.as_str());
        files.chain(tmpfs).chain(self.binds.iter().map(|b| b.target.as_str()))
    }
}

/// Whether `path` is strictly below the directory `base`.
pub(crate) fn is_below(path: &str, base: &str) -> bool {
    path.strip_prefix(base).is_some_and(|rest| rest.starts_with('/'))
}

fn check_source(path: &Path) -> Result<(), Error> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(Error::Spec(format!("host path `{shown}` is not absolute")));
    }
    if path.to_str().is_none_or(|p| p.contains('\0')) {
        return Err(Error::Spec(format!("host path `{shown}` is not UTF-8")));
    }
    Ok(())
}

fn check_target(target: &str) -> Result<(), Error> {
    let normal = target.strip_prefix('/').is_some_and(|rest| {
        rest.split('/').all(|name| !matches!(name, "" | "." | "..") && !name.contains('\0'))
    });
    if !normal {
        return Err(Error::Spec(format!("target {target:?} is not a normalized absolute path")));
    }
    if let Some(owned) = ["/proc", "/dev", "/sys"].iter().find(|o| target == **o || is_below(target, o)) {
        return Err(Error::Spec(format!("target `{target}`: `{owned}` belongs to the sandbox")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec::new(Root::Tree("/r".into()), ["/bin/true"])
    }

    fn refused(spec: &Spec) -> String {
        spec.check().expect_err("must be refused").to_string()
    }

    #[test]
    fn the_default_is_accepted() {
        spec().check().expect("accepted");
    }

    #[test]
    fn targets_that_leave_or_repeat_are_refused() {
        for target in ["", "/", "x", "/a/../b", "/a//b", "/a/", "/./a", "/a\0b", "/proc", "/dev/x", "/sys/y"]
        {
            let mut s = spec();
            s.files.push(File { target: target.into(), contents: vec![], executable: false });
            assert!(s.check().is_err(), "{target:?}");
        }
        let mut s = spec();
        s.tmpfs.push(s.tmpfs[0].clone());
        assert!(refused(&s).contains("two things at `/tmp`"));
    }

    #[test]
    fn a_file_below_a_bind_is_refused() {
        let mut s = spec();
        s.binds.push(Bind { source: "/h".into(), target: "/in".into(), access: Access::ReadWrite });
        s.files.push(File { target: "/in/f".into(), contents: vec![], executable: false });
        assert!(refused(&s).contains("would be written into `/h`"));
    }

    #[test]
    fn changes_are_for_the_root_that_can_take_them() {
        let mut s = spec();
        s.changes = Changes::InPlace;
        s.check().expect("a tree of the caller's own");
        s.files.push(File { target: "/etc/x".into(), contents: vec![], executable: false });
        assert!(refused(&s).contains("file `/etc/x` would be among what the command changes"));
        s.files[0].target = "/tmp/x".into();
        s.check().expect("what is in memory is not kept");
        s.changes = Changes::Above("/above".into());
        assert!(refused(&s).contains("a layer above a tree"));
        s.root = Root::Layers(vec!["/l".into()]);
        s.check().expect("layers");
        s.changes = Changes::InPlace;
        assert!(refused(&s).contains("layers, which are shared"));
    }

    #[test]
    fn commands_environments_and_sources_are_checked() {
        let mut s = spec();
        s.argv.clear();
        assert!(refused(&s).contains("no command"));
        let mut s = spec();
        s.env.push(("A=B".into(), String::new()));
        assert!(refused(&s).contains("bad environment"));
        let mut s = spec();
        s.root = Root::Layers(vec!["/l".into(); 500]);
        assert!(refused(&s).contains("500 layers: expected 1 to 499"));
        let mut s = spec();
        s.root = Root::Tree("relative".into());
        assert!(refused(&s).contains("not absolute"));
    }
}
