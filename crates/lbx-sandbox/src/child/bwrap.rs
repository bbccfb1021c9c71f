//! The backend of the system's bubblewrap, which may be allowed to make user namespaces where this program is not: by
//! an AppArmor profile for its path, or by being setuid.
//!
//! bubblewrap makes the same root of binds that `root` makes, and starts this program in it as PID 1, which does the
//! rest. All sources are handed over as paths, because descriptors of this mount namespace are worth nothing in its.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::devices::{DEVICES, LINKS};
use super::mounts::Kind;
use super::root::{self, Node, Nodes, Sources};
use super::{Isolate, Job, inside, programs};
use crate::backend::Backend;
use crate::error::{Failure, OrFail, Stage};
use crate::spec::{Access, Bind, File, Network, Root, Spec};

/// See the module.
pub(super) struct Bwrap;

impl Isolate for Bwrap {
    fn backend(&self) -> Backend {
        Backend::Bwrap
    }

    fn probe(&self, spec: &Spec) -> Result<(), Failure> {
        programs::find(spec, "bwrap").map(drop)
    }

    fn run(&self, job: Job<'_>) -> Result<(), Failure> {
        let program = programs::find(job.spec, "bwrap")?;
        let setuid = is_setuid(&program);
        let mut way = Way { new_proc: true, user: true, sized: !setuid };
        loop {
            match attempt(&job, &program, way) {
                // Inside a container that masks parts of /proc the kernel denies a new one: the container's own will do.
                Err(failure) if way.new_proc && failure.call.contains("/proc") => way.new_proc = false,
                // What root's rights allow it does without a user namespace; then the user id stays what it is.
                Err(_) if way.user && setuid => way = Way { new_proc: true, user: false, sized: false },
                other => return other,
            }
        }
    }
}

fn is_setuid(program: &Path) -> bool {
    fs_err::metadata(program).is_ok_and(|found| found.permissions().mode() & 0o4000 != 0)
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// A /proc of its own, and not the one that is there.
    new_proc: bool,
    /// A user namespace.
    user: bool,
    /// Bounds of directories in memory, which it refuses while it has root's rights.
    sized: bool,
}

fn attempt(job: &Job<'_>, program: &Path, way: Way) -> Result<(), Failure> {
    let files = inside::Files::of_this_process()?;
    let mut operations = Operations::default();
    operations.assemble(job.spec, way, &files)?;
    let list = operations.list()?;
    let mut arguments: Vec<OsString> =
        vec!["--args".into(), programs::pass_on(&list)?.to_string().into(), "--".into()];
    arguments.extend(files.command.iter().map(OsString::from));
    let channel = inside::Channel::new()?;
    channel.send(job, None)?;
    programs::run(program, arguments, job.socket, channel.theirs)
}

/// What bubblewrap is told, in order, and the contents of files, which it reads from descriptors.
#[derive(Default)]
struct Operations {
    words: Vec<OsString>,
    contents: Vec<OwnedFd>,
}

impl Operations {
    fn say(&mut self, words: &[&dyn AsRef<std::ffi::OsStr>]) {
        self.words.extend(words.iter().map(|word| word.as_ref().to_owned()));
    }

    fn assemble(&mut self, spec: &Spec, way: Way, files: &inside::Files) -> Result<(), Failure> {
        self.namespaces(spec, way);
        let Root::Tree(tree) = &spec.root else {
            return Err(Failure::new(Stage::Root, "a root of layers in bubblewrap", Errno::EOPNOTSUPP));
        };
        let sources = Sources::open(spec)?;
        root::check_places(spec, &sources)?;
        let mut additions = root::additions(spec, &sources, None)?;
        root::add(&mut additions, inside::FOLDER, Node::Directory(BTreeMap::new()))?;
        self.mirror(Some(tree), "", &additions)?;
        self.proc(way);
        self.devices(spec.limits.tmp.filter(|_| way.sized));
        self.fill(spec, &sources, way)?;
        for (path, target) in files.targets() {
            self.say(&[&"--ro-bind", &path, &target]);
        }
        self.say(&[&"--remount-ro", &"/", &"--chdir", &"/"]);
        Ok(())
    }

    fn namespaces(&mut self, spec: &Spec, way: Way) {
        if way.user {
            let (uid, gid) = (spec.uid.to_string(), spec.gid.to_string());
            self.say(&[&"--unshare-user", &"--uid", &uid, &"--gid", &gid]);
        }
        self.say(&[&"--unshare-pid", &"--unshare-ipc", &"--unshare-uts", &"--as-pid-1"]);
        if spec.network != Network::Host {
            self.say(&[&"--unshare-net"]);
        }
        self.say(&[&"--hostname", &spec.hostname, &"--die-with-parent", &"--cap-drop", &"ALL"]);
    }

    /// See `root::mirror`: the same, in another's words.
    fn mirror(&mut self, tree: Option<&Path>, at: &str, additions: &Nodes<'_>) -> Result<(), Failure> {
        if let Some(tree) = tree {
            self.mirror_entries(tree, at, additions)?;
        }
        for (name, node) in additions {
            let target = format!("{at}/{name}");
            match node {
                Node::Directory(below) | Node::Opened(below) => {
                    self.say(&[&"--perms", &"0755", &"--dir", &target]);
                    let counterpart = tree.map(|tree| tree.join(name.as_ref()));
                    let is_directory =
                        |path: &PathBuf| fs_err::symlink_metadata(path).is_ok_and(|found| found.is_dir());
                    // An empty directory of ours is a mount point: what the image has there stays hidden.
                    let counterpart = counterpart.filter(|path| !below.is_empty() && is_directory(path));
                    self.mirror(counterpart.as_deref(), &target, below)?;
                }
                Node::File(file) => self.file(file)?,
                // Made with its bind. Copies are for commands that are another user.
                Node::Place | Node::Copy(_) => {}
            }
        }
        Ok(())
    }

    fn mirror_entries(&mut self, tree: &Path, at: &str, except: &Nodes<'_>) -> Result<(), Failure> {
        let stage = Stage::Root;
        let call = || format!("readdir({tree:?})");
        for entry in fs_err::read_dir(tree).or_fail(stage, call)? {
            let entry = entry.or_fail(stage, call)?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| except.contains_key(name)) {
                continue;
            }
            let target = [at.as_bytes(), b"/", name.as_bytes()].concat();
            let target = OsString::from_vec(target);
            let kind = entry.file_type().or_fail(stage, call)?;
            if kind.is_symlink() {
                let destination = fs_err::read_link(entry.path()).or_fail(stage, call)?;
                self.say(&[&"--symlink", &destination, &target]);
            } else if kind.is_dir() || kind.is_file() {
                self.say(&[&"--ro-bind", &entry.path(), &target]);
            }
        }
        Ok(())
    }

    fn proc(&mut self, way: Way) {
        if way.new_proc {
            self.say(&[&"--proc", &"/proc", &"--remount-ro", &"/proc"]);
        } else {
            self.say(&[&"--ro-bind", &"/proc", &"/proc"]);
        }
    }

    fn devices(&mut self, size: Option<u64>) {
        self.say(&[&"--perms", &"0755", &"--tmpfs", &"/dev"]);
        for (name, ..) in DEVICES {
            let path = format!("/dev/{name}");
            self.say(&[&"--dev-bind", &path, &path]);
        }
        for (name, destination) in LINKS {
            self.say(&[&"--symlink", &destination, &format!("/dev/{name}")]);
        }
        self.say(&[&"--perms", &"1777"]);
        if let Some(size) = size {
            self.say(&[&"--size", &size.to_string()]);
        }
        self.say(&[&"--tmpfs", &"/dev/shm", &"--remount-ro", &"/dev"]);
    }

    fn fill(&mut self, spec: &Spec, sources: &Sources, way: Way) -> Result<(), Failure> {
        let mut order: Vec<(&str, Option<(&Bind, Kind)>)> =
            spec.tmpfs.iter().map(|tmpfs| (tmpfs.target.as_str(), None)).collect();
        let binds = spec.binds.iter().zip(sources.kinds());
        order.extend(binds.map(|(bind, kind)| (bind.target.as_str(), Some((bind, kind)))));
        order.sort_by_key(|(target, _)| target.matches('/').count());
        for (target, bind) in order {
            match bind {
                None => self.tmpfs(spec, target, way),
                Some((bind, _)) if bind.access == Access::ReadOnly => {
                    self.say(&[&"--ro-bind", &bind.source, &target]);
                }
                Some((bind, _)) => self.say(&[&"--bind", &bind.source, &target]),
            }
        }
        for file in spec.files.iter().filter(|file| root::is_in_tmpfs(spec, &file.target)) {
            self.file(file)?;
        }
        Ok(())
    }

    fn tmpfs(&mut self, spec: &Spec, target: &str, way: Way) {
        let Some(tmpfs) = spec.tmpfs.iter().find(|tmpfs| tmpfs.target == target) else { return };
        self.say(&[&"--perms", &format!("{:04o}", tmpfs.mode)]);
        if let Some(size) = tmpfs.size.filter(|_| way.sized) {
            self.say(&[&"--size", &size.to_string()]);
        }
        self.say(&[&"--tmpfs", &target]);
    }

    fn file(&mut self, file: &File) -> Result<(), Failure> {
        let descriptor = self.memory(&file.contents)?;
        let mode = if file.executable { "0755" } else { "0644" };
        self.say(&[&"--perms", &mode, &"--file", &descriptor, &file.target]);
        Ok(())
    }

    /// A descriptor that has these contents, as a word.
    fn memory(&mut self, contents: &[u8]) -> Result<String, Failure> {
        let memory = memory(contents)?;
        let number = programs::pass_on(&memory)?;
        self.contents.push(memory);
        Ok(number.to_string())
    }

    /// All words, each with its NUL, where `ps` does not show them.
    fn list(&self) -> Result<OwnedFd, Failure> {
        let words = self.words.iter().flat_map(|word| word.as_bytes().iter().copied().chain([0]));
        memory(&words.collect::<Vec<u8>>())
    }
}

/// A file in memory, at its beginning.
fn memory(contents: &[u8]) -> Result<OwnedFd, Failure> {
    let call = || "memfd_create(\"lbx-sandbox\")".to_owned();
    let memory = memfd_create("lbx-sandbox", MFdFlags::MFD_CLOEXEC).or_fail(Stage::Files, call)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(contents).and_then(|()| file.rewind()).or_fail(Stage::Files, call)?;
    Ok(file.into())
}
