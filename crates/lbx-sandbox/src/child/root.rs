//! The command's file system: layers stacked or a tree mirrored, with a place made for every mount, then
//! the mounts themselves, and the step into it.
//!
//! Places are never made in the image. Over layers they come from one more layer on top, over a tree from
//! a memory file system that stands in for those directories that need one. In both, a place is a real
//! directory or file of ours, whatever the image has at that name.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{chdir, chroot, fchdir, pivot_root, symlinkat, write};

use super::farm;
use super::mounts::{self, Kind, PLACE, fd_path};
use crate::error::{Failure, OrFail, Stage};
use crate::spec::{Access, Bind, Changes, File, Root, Spec, Tmpfs, is_below};

/// Every path of the host that the sandbox uses, opened before anything is mounted over it.
pub(super) struct Sources {
    roots: Vec<OwnedFd>,
    binds: Vec<(OwnedFd, Kind)>,
    /// Where changes go that are a layer of their own.
    above: Option<OwnedFd>,
}

impl Sources {
    /// Opens them in the new mount namespace: the kernel binds nothing from another one.
    pub(super) fn open(spec: &Spec) -> Result<Self, Failure> {
        let roots = match &spec.root {
            Root::Layers(layers) => layers.as_slice(),
            Root::Tree(tree) => std::slice::from_ref(tree),
        };
        let stage = Stage::Sources;
        let flags = PLACE | OFlag::O_DIRECTORY;
        let open = |path: &PathBuf| {
            open(path, flags, Mode::empty()).or_fail(stage, || format!("open({path:?}, O_DIRECTORY)"))
        };
        let roots = roots.iter().map(open).collect::<Result<_, _>>()?;
        let binds = spec.binds.iter().map(open_bind).collect::<Result<_, _>>()?;
        let above = match &spec.changes {
            Changes::Above(place) => Some(open(place)?),
            Changes::Never | Changes::InPlace => None,
        };
        Ok(Self { roots, binds, above })
    }
}

impl Sources {
    /// What each bind of the specification is, in its order.
    pub(super) fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.binds.iter().map(|(_, kind)| *kind)
    }
}

fn open_bind(bind: &Bind) -> Result<(OwnedFd, Kind), Failure> {
    let call = || format!("open({:?}, O_PATH|O_NOFOLLOW)", bind.source);
    let source = open(&bind.source, PLACE, Mode::empty()).or_fail(Stage::Sources, call)?;
    let stat = fstat(&source).or_fail(Stage::Sources, call)?;
    // ELOOP is what the kernel says of a symlink where it follows none.
    let kind = Kind::of(&stat).ok_or_else(|| Failure::new(Stage::Sources, call(), Errno::ELOOP))?;
    Ok((source, kind))
}

/// A user and a group.
pub(super) type User = (u32, u32);

/// What must exist in the root before anything is mounted in it.
pub(super) enum Node<'a> {
    /// A directory of the image with additions, or a mount point when there are none.
    Directory(Nodes<'a>),
    /// A directory of the image that its owner alone may enter, with additions, for everybody.
    Opened(Nodes<'a>),
    /// A file of the image that its owner alone may read, for everybody.
    Copy(OwnedFd),
    /// A file of this run.
    File(&'a File),
    /// An empty file to bind another one on.
    Place,
}

pub(super) type Nodes<'a> = BTreeMap<Cow<'a, str>, Node<'a>>;

/// The additions of a specification. What lies below another mount is made there, when it is mounted.
pub(super) fn additions<'a>(
    spec: &'a Spec,
    sources: &Sources,
    user: Option<User>,
) -> Result<Nodes<'a>, Failure> {
    let mut nodes = match &spec.root {
        Root::Tree(_) if user.is_some() => closed(&sources.roots[0], 0)?,
        _ => Nodes::new(),
    };
    for target in ["/proc", "/dev", "/sys"] {
        add(&mut nodes, target, Node::Directory(Nodes::new()))?;
    }
    let on_root = |target: &str| enclosing(spec, target).is_none();
    for tmpfs in spec.tmpfs.iter().filter(|t| on_root(&t.target)) {
        add(&mut nodes, &tmpfs.target, Node::Directory(Nodes::new()))?;
    }
    for (bind, (source, kind)) in spec.binds.iter().zip(&sources.binds).filter(|(b, _)| on_root(&b.target)) {
        let node = match kind {
            Kind::Directory => Node::Directory(Nodes::new()),
            Kind::File if user.is_some() && is_closed(bind, source)? => {
                Node::Copy(source.try_clone().or_fail(Stage::Binds, || format!("dup({:?})", bind.source))?)
            }
            Kind::File => Node::Place,
        };
        add(&mut nodes, &bind.target, node)?;
    }
    for file in spec.files.iter().filter(|f| on_root(&f.target)) {
        add(&mut nodes, &file.target, Node::File(file))?;
    }
    Ok(nodes)
}

/// Adds one thing, and the directories that lead to it.
pub(super) fn add<'a>(nodes: &mut Nodes<'a>, target: &'a str, node: Node<'a>) -> Result<(), Failure> {
    let mut here = nodes;
    let (directories, name) = target.rsplit_once('/').unwrap_or(("", target));
    for directory in directories.split('/').filter(|d| !d.is_empty()) {
        match here.entry(directory.into()).or_insert_with(|| Node::Directory(Nodes::new())) {
            Node::Directory(below) | Node::Opened(below) => here = below,
            Node::File(_) | Node::Place | Node::Copy(_) => {
                return Err(Failure::new(Stage::Files, format!("mkdirat({target:?})"), Errno::ENOTDIR));
            }
        }
    }
    here.insert(name.into(), node);
    Ok(())
}

/// What a tree has for its owner alone, which a command that is another user is to see all the same.
fn closed(tree: &OwnedFd, depth: usize) -> Result<Nodes<'static>, Failure> {
    let stage = Stage::Root;
    let mut nodes = Nodes::new();
    if depth > farm::DEEPEST {
        return Err(Failure::new(stage, "openat(tree)", Errno::ENAMETOOLONG));
    }
    farm::each(tree, stage, &mut |name, place, stat| {
        // A name that is not UTF-8 stays as closed as it is.
        let Ok(name) = name.to_str() else { return Ok(()) };
        let readable = farm::is_readable(stat);
        let node = match stat.st_mode & nix::libc::S_IFMT {
            nix::libc::S_IFDIR => match closed(&place, depth + 1)? {
                below if !readable => Some(Node::Opened(below)),
                below => (!below.is_empty()).then_some(Node::Directory(below)),
            },
            _ => (!readable).then_some(Node::Copy(place)),
        };
        if let Some(node) = node {
            nodes.insert(name.to_owned().into(), node);
        }
        Ok(())
    })?;
    Ok(nodes)
}

/// What is mounted closest above a target; the target is made in it.
enum Enclosing {
    Tmpfs,
    Bind,
}

fn enclosing(spec: &Spec, target: &str) -> Option<Enclosing> {
    let tmpfs = spec.tmpfs.iter().map(|t| (t.target.as_str(), Enclosing::Tmpfs));
    let binds = spec.binds.iter().map(|b| (b.target.as_str(), Enclosing::Bind));
    tmpfs.chain(binds).filter(|(t, _)| is_below(target, t)).max_by_key(|(t, _)| t.len()).map(|(_, e)| e)
}

/// Looks for the place of what is to be mounted in a bind, where nothing is ever made.
pub(super) fn check_places(spec: &Spec, sources: &Sources) -> Result<(), Failure> {
    let inner = spec.binds.iter().zip(sources.kinds()).map(|(bind, kind)| (bind.target.as_str(), kind));
    let inner = inner.chain(spec.tmpfs.iter().map(|tmpfs| (tmpfs.target.as_str(), Kind::Directory)));
    for (target, kind) in inner {
        if !matches!(enclosing(spec, target), Some(Enclosing::Bind)) {
            continue;
        }
        let outer = spec.binds.iter().zip(&sources.binds).filter(|(bind, _)| is_below(target, &bind.target));
        let Some((bind, (source, _))) = outer.max_by_key(|(bind, _)| bind.target.len()) else { continue };
        mounts::spot(source.as_fd(), &target[bind.target.len()..], kind, false, Stage::Binds)?;
    }
    Ok(())
}

/// Whether a target lies in a memory file system of this run.
pub(super) fn is_in_tmpfs(spec: &Spec, target: &str) -> bool {
    matches!(enclosing(spec, target), Some(Enclosing::Tmpfs))
}

/// Assembles the root, read-only unless it may be changed; the result is its top directory.
///
/// With a `user`, the command is that one and not the owner of what it sees.
pub(super) fn build(spec: &Spec, sources: &Sources, user: Option<User>) -> Result<OwnedFd, Failure> {
    if spec.changes == Changes::InPlace {
        return lend_tree(spec, sources);
    }
    let additions = additions(spec, sources, user)?;
    let staging = stage_directory(spec, sources)?;
    match &spec.root {
        Root::Layers(_) => stack(&staging, sources, &additions),
        Root::Tree(_) => mirror_tree(&staging, &sources.roots[0], &additions),
    }
}

/// Mounts a memory file system over the first directory of the root: a place that surely exists, and
/// that is only reached through its descriptor from now on. Nothing appears on the host.
fn stage_directory(spec: &Spec, sources: &Sources) -> Result<OwnedFd, Failure> {
    let stage = Stage::Root;
    let path = match &spec.root {
        Root::Layers(layers) => &layers[0],
        Root::Tree(tree) => tree,
    };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mounts::fresh("tmpfs", &sources.roots[0], &path.to_string_lossy(), flags, Some("mode=0755"), stage)?;
    let staging = open(path, PLACE | OFlag::O_DIRECTORY, Mode::empty())
        .or_fail(stage, || format!("open({path:?}, O_DIRECTORY)"))?;
    fchdir(&staging).or_fail(stage, || format!("fchdir({path:?})"))?;
    Ok(staging)
}

fn directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Failure> {
    let call = || format!("mkdirat({name:?})");
    mkdirat(parent, name, Mode::from_bits_truncate(0o755)).or_fail(Stage::Root, call)?;
    openat(parent, name, PLACE | OFlag::O_DIRECTORY, Mode::empty()).or_fail(Stage::Root, call)
}

/// Stacks the layers with the additions on top.
///
/// The options of a mount have to fit in a page, and layers have long names: each gets a link with a
/// number for its name in the staging directory, which is the working directory.
fn stack(staging: &OwnedFd, sources: &Sources, additions: &Nodes<'_>) -> Result<OwnedFd, Failure> {
    let stage = Stage::Root;
    let layers = &sources.roots;
    write_additions(&directory(staging, "s")?, additions)?;
    let mut lower = "lowerdir=s".to_owned();
    let mut seen = BTreeSet::new();
    for (number, layer) in layers.iter().enumerate().rev() {
        // Images repeat layers, empty ones above all, and the kernel refuses to stack one twice. The
        // topmost repetition decides: it shows and hides whatever those below it do.
        let stat = fstat(layer).or_fail(stage, || format!("fstat(layer {number})"))?;
        if !seen.insert((stat.st_dev, stat.st_ino)) {
            continue;
        }
        let name = number.to_string();
        link_to(layer, staging, &name)?;
        lower.push(':');
        lower.push_str(&name);
    }
    lower.push_str(",userxattr");
    let root = directory(staging, "root")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let mount = |flags, options: &str| mounts::fresh("overlay", &root, "root", flags, Some(options), stage);
    match &sources.above {
        None => mount(flags | MsFlags::MS_RDONLY, &lower)?,
        Some(place) => {
            // Held until it is mounted: the links lead to descriptors.
            let (upper, work) = (directory(place, "upper")?, directory(place, "work")?);
            link_to(&upper, staging, "u")?;
            link_to(&work, staging, "w")?;
            let options = format!("{lower},upperdir=u,workdir=w");
            // Nothing of it needs to survive a crash. Older kernels, before 5.10, wait for the disk.
            mount(flags, &format!("{options},volatile")).or_else(|_| mount(flags, &options))?;
        }
    }
    openat(staging, "root", PLACE | OFlag::O_DIRECTORY, Mode::empty())
        .or_fail(stage, || "openat(\"root\")".to_owned())
}

/// Gives an open directory a short name in the staging directory.
fn link_to(place: &OwnedFd, staging: &OwnedFd, name: &str) -> Result<(), Failure> {
    let destination = fd_path(place);
    symlinkat(destination.as_str(), staging, name)
        .or_fail(Stage::Root, || format!("symlinkat({destination:?}, {name:?})"))
}

/// Makes a root of a tree that may be changed, with the places of what is mounted in it.
fn lend_tree(spec: &Spec, sources: &Sources) -> Result<OwnedFd, Failure> {
    let stage = Stage::Root;
    let tree = &sources.roots[0];
    let binds = spec.binds.iter().zip(sources.kinds()).map(|(bind, kind)| (bind.target.as_str(), kind));
    let tmpfs = spec.tmpfs.iter().map(|tmpfs| (tmpfs.target.as_str(), Kind::Directory));
    let own = ["/proc", "/dev", "/sys"].map(|target| (target, Kind::Directory));
    for (target, kind) in own.into_iter().chain(binds).chain(tmpfs) {
        if enclosing(spec, target).is_none() {
            mounts::spot(tree.as_fd(), target, kind, true, stage)?;
        }
    }
    let Root::Tree(path) = &spec.root else {
        return Err(Failure::new(stage, "open(tree)", Errno::EINVAL));
    };
    // Over itself: only what is mounted can become the root.
    mounts::bind(tree, tree, &path.to_string_lossy(), stage)?;
    let root = open(path, PLACE | OFlag::O_DIRECTORY, Mode::empty())
        .or_fail(stage, || format!("open({path:?}, O_DIRECTORY)"))?;
    mounts::restrict(&root, false, stage)?;
    Ok(root)
}

fn write_additions(at: &OwnedFd, additions: &Nodes<'_>) -> Result<(), Failure> {
    for (name, node) in additions {
        match node {
            Node::Directory(below) | Node::Opened(below) => write_additions(&directory(at, name)?, below)?,
            Node::File(file) => write_file(at, name, file)?,
            Node::Place => make_place(at, name)?,
            Node::Copy(source) => farm::copy(source, at, name.as_ref(), Stage::Root)?,
        }
    }
    Ok(())
}

fn make_place(at: &OwnedFd, name: &str) -> Result<(), Failure> {
    mounts::make(at, name, Kind::File).or_fail(Stage::Root, || format!("mknodat({name:?})"))
}

pub(super) fn write_file(at: &OwnedFd, name: &str, file: &File) -> Result<(), Failure> {
    let mode = Mode::from_bits_truncate(if file.executable { 0o755 } else { 0o644 });
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = openat(at, name, flags, mode)
        .or_fail(Stage::Files, || format!("openat({:?}, O_CREAT|O_EXCL)", file.target))?;
    let mut rest = file.contents.as_slice();
    while !rest.is_empty() {
        let written = write(&opened, rest).or_fail(Stage::Files, || format!("write({:?})", file.target))?;
        rest = &rest[written..];
    }
    Ok(())
}

/// Makes a root of binds into a complete tree, where the kernel stacks no layers.
fn mirror_tree(staging: &OwnedFd, tree: &OwnedFd, additions: &Nodes<'_>) -> Result<OwnedFd, Failure> {
    let stage = Stage::Root;
    let place = directory(staging, "root")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mounts::fresh("tmpfs", &place, "root", flags, Some("mode=0755"), stage)?;
    let root = openat(staging, "root", PLACE | OFlag::O_DIRECTORY, Mode::empty())
        .or_fail(stage, || "openat(\"root\")".to_owned())?;
    mirror(Some(tree), &root, additions)?;
    mounts::restrict(&root, true, stage)?;
    Ok(root)
}

/// Fills `at` with the additions, and with binds of everything else that `tree` has there.
fn mirror(tree: Option<&OwnedFd>, at: &OwnedFd, additions: &Nodes<'_>) -> Result<(), Failure> {
    if let Some(tree) = tree {
        mirror_entries(tree, at, additions)?;
    }
    for (name, node) in additions {
        match node {
            Node::Directory(below) | Node::Opened(below) => {
                // A symlink or a file of the image at this name is as good as nothing.
                let flags = PLACE | OFlag::O_DIRECTORY;
                let counterpart = tree.and_then(|t| openat(t, name.as_ref(), flags, Mode::empty()).ok());
                // An empty directory of ours is a mount point: what the image has there stays hidden.
                let mount_point = matches!(node, Node::Directory(below) if below.is_empty());
                let counterpart = counterpart.filter(|_| !mount_point);
                mirror(counterpart.as_ref(), &directory(at, name)?, below)?;
            }
            Node::File(file) => write_file(at, name, file)?,
            Node::Place => make_place(at, name)?,
            Node::Copy(source) => farm::copy(source, at, name.as_ref(), Stage::Root)?,
        }
    }
    Ok(())
}

fn mirror_entries(tree: &OwnedFd, at: &OwnedFd, except: &Nodes<'_>) -> Result<(), Failure> {
    let stage = Stage::Root;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut entries = Dir::openat(tree, ".", flags, Mode::empty())
        .or_fail(stage, || "openat(tree, O_DIRECTORY)".to_owned())?;
    for entry in entries.iter() {
        let entry = entry.or_fail(stage, || "getdents(tree)".to_owned())?;
        let name = entry.file_name();
        let ours = name.to_str().is_ok_and(|n| except.contains_key(n));
        if ours || matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let call = || format!("openat(tree, {name:?})");
        let source = openat(tree, name, PLACE, Mode::empty()).or_fail(stage, call)?;
        let stat = fstat(&source).or_fail(stage, call)?;
        match Kind::of(&stat) {
            Some(kind) => {
                let made = match kind {
                    Kind::Directory => mkdirat(at, name, Mode::from_bits_truncate(0o755)),
                    Kind::File => openat(
                        at,
                        name,
                        OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC,
                        Mode::from_bits_truncate(0o644),
                    )
                    .map(drop),
                };
                made.or_fail(stage, call)?;
                let place = openat(at, name, PLACE, Mode::empty()).or_fail(stage, call)?;
                mounts::bind(&source, &place, &name.to_string_lossy(), stage)?;
            }
            None if stat.st_mode & nix::libc::S_IFMT == nix::libc::S_IFLNK => {
                let destination = readlinkat(tree, name).or_fail(stage, call)?;
                symlinkat(destination.as_os_str(), at, name).or_fail(stage, call)?;
            }
            // Devices, FIFOs and sockets of an image have no use here.
            None => {}
        }
    }
    Ok(())
}

/// One mount of the specification, from the outside in.
enum Filling<'a> {
    Tmpfs(&'a Tmpfs),
    Bind(&'a Bind, &'a OwnedFd, Kind),
}

impl Filling<'_> {
    fn target(&self) -> &str {
        match self {
            Self::Tmpfs(tmpfs) => &tmpfs.target,
            Self::Bind(bind, ..) => &bind.target,
        }
    }
}

/// Mounts what the specification asks for, and writes the files that lie in those mounts.
pub(super) fn fill(
    spec: &Spec,
    root: &OwnedFd,
    sources: &Sources,
    user: Option<User>,
) -> Result<(), Failure> {
    let binds =
        spec.binds.iter().zip(&sources.binds).map(|(b, (source, kind))| Filling::Bind(b, source, *kind));
    let mut fillings: Vec<_> = spec.tmpfs.iter().map(Filling::Tmpfs).chain(binds).collect();
    fillings.sort_by_key(|f| f.target().matches('/').count());
    for filling in fillings {
        let create = spec.changes == Changes::InPlace || is_in_tmpfs(spec, filling.target());
        match filling {
            Filling::Tmpfs(tmpfs) => mount_tmpfs(root, tmpfs, create, user)?,
            Filling::Bind(bind, source, kind) if user.is_some() && is_closed(bind, source)? => {
                copy_bind(root, bind, source, kind, create)?;
            }
            Filling::Bind(bind, source, kind) => mount_bind(root, bind, source, kind, create)?,
        }
    }
    for file in &spec.files {
        if is_in_tmpfs(spec, &file.target) {
            write_in_tmpfs(root, file)?;
        }
    }
    Ok(())
}

fn mount_tmpfs(root: &OwnedFd, tmpfs: &Tmpfs, create: bool, user: Option<User>) -> Result<(), Failure> {
    let stage = Stage::Tmpfs;
    let spot = mounts::spot(root.as_fd(), &tmpfs.target, Kind::Directory, create, stage)?;
    let size = tmpfs.size.map(|s| format!(",size={s}")).unwrap_or_default();
    let owner = user.map(|(uid, gid)| format!(",uid={uid},gid={gid}")).unwrap_or_default();
    let options = format!("mode={:o}{size}{owner}", tmpfs.mode);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mounts::fresh("tmpfs", &spot.place, &tmpfs.target, flags, Some(&options), stage)
}

/// Whether something that may be read is for its owner alone.
fn is_closed(bind: &Bind, source: &OwnedFd) -> Result<bool, Failure> {
    let stat = fstat(source).or_fail(Stage::Binds, || format!("fstat({:?})", bind.source))?;
    Ok(bind.access == Access::ReadOnly && !farm::all_readable(source, &stat, Stage::Binds)?)
}

/// Shows a copy, in memory, in place of what is for its owner alone. A file has been copied with the root, unless it
/// lies in a memory file system.
fn copy_bind(root: &OwnedFd, bind: &Bind, source: &OwnedFd, kind: Kind, create: bool) -> Result<(), Failure> {
    let stage = Stage::Binds;
    if kind == Kind::File {
        let (directory, name) = bind.target.rsplit_once('/').unwrap_or(("", &bind.target));
        if create {
            let at = mounts::spot(root.as_fd(), directory, Kind::Directory, true, stage)?;
            farm::copy(source, &at.place, name, stage)?;
        }
        return Ok(());
    }
    let spot = mounts::spot(root.as_fd(), &bind.target, kind, create, stage)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mounts::fresh("tmpfs", &spot.place, &bind.target, flags, Some("mode=0755"), stage)?;
    let mounted = spot.mounted(stage)?;
    farm::grow(source, &mounted, stage, &|_| false)?;
    mounts::restrict(&mounted, true, stage)
}

fn mount_bind(
    root: &OwnedFd,
    bind: &Bind,
    source: &OwnedFd,
    kind: Kind,
    create: bool,
) -> Result<(), Failure> {
    let stage = Stage::Binds;
    let spot = mounts::spot(root.as_fd(), &bind.target, kind, create, stage)?;
    mounts::bind(source, &spot.place, &bind.target, stage)?;
    mounts::restrict(&spot.mounted(stage)?, bind.access == Access::ReadOnly, stage)
}

fn write_in_tmpfs(root: &OwnedFd, file: &File) -> Result<(), Failure> {
    let (directory, name) = file.target.rsplit_once('/').unwrap_or(("", &file.target));
    let at = mounts::spot(root.as_fd(), directory, Kind::Directory, true, Stage::Files)?;
    write_file(&at.place, name, file)
}

/// Makes the root the only file system there is.
pub(super) fn enter(root: &OwnedFd) -> Result<(), Failure> {
    let stage = Stage::Pivot;
    fchdir(root).or_fail(stage, || "fchdir(root)".to_owned())?;
    match pivot_root(".", ".") {
        Ok(()) => {
            umount2(".", MntFlags::MNT_DETACH).or_fail(stage, || "umount2(\".\", MNT_DETACH)".to_owned())?;
        }
        // The initial file system of a boot cannot be pivoted away, and Docker's filter allows who may administer to mount,
        // but not this. Covering it does the same here: the command cannot unmount anything and holds no descriptor below
        // the cover.
        Err(Errno::EINVAL | Errno::EPERM) => {
            mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
                .or_fail(stage, || "mount(\".\", \"/\", NULL, MS_MOVE, NULL)".to_owned())?;
            chroot(".").or_fail(stage, || "chroot(\".\")".to_owned())?;
        }
        Err(errno) => return Err(Failure::new(stage, "pivot_root(\".\", \".\")", errno)),
    }
    chdir("/").or_fail(stage, || "chdir(\"/\")".to_owned())
}
