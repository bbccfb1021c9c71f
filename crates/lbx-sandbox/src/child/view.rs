//! What a command sees where nothing can be mounted and the root cannot be changed: a directory of the host that looks
//! like the root, made of symlinks to the image and to the inputs, and of directories and files of this run.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::mkdtemp;

use super::payload;
use super::root::{self, Node, Nodes, Sources};
use crate::error::{Failure, OrFail, Stage};
use crate::spec::{File, Root, Spec};

/// The directory, in the scratch space of the run. It goes away with this value.
pub(super) struct View {
    pub(super) path: PathBuf,
    /// The image.
    pub(super) tree: PathBuf,
}

impl View {
    /// Makes it. Each of `extra` becomes a file of the view, in place of the image's.
    pub(super) fn build(spec: &Spec, extra: &[File]) -> Result<Self, Failure> {
        let refused = |what: &str| Failure::new(Stage::Root, what.to_owned(), Errno::EOPNOTSUPP);
        let Root::Tree(tree) = &spec.root else { return Err(refused("a root of layers without mounts")) };
        let scratch = spec
            .scratch
            .as_ref()
            .ok_or_else(|| refused("a root without mounts and without scratch space"))?;
        let template = scratch.join("view-XXXXXX");
        let path = mkdtemp(&template).or_fail(Stage::Root, || format!("mkdtemp({template:?})"))?;
        let view = Self { path, tree: tree.clone() };
        let sources = Sources::open(spec)?;
        root::check_places(spec, &sources)?;
        let mut additions = root::additions(spec, &sources, None)?;
        for file in extra {
            root::add(&mut additions, &file.target, Node::File(file))?;
        }
        mirror(Some(tree), &view.path, &additions)?;
        view.fill(spec)?;
        Ok(view)
    }

    /// Makes the memory file systems, which are on disk here, and links to what is bound.
    fn fill(&self, spec: &Spec) -> Result<(), Failure> {
        let mut order: Vec<(&str, Option<&Path>, u32)> =
            spec.tmpfs.iter().map(|tmpfs| (tmpfs.target.as_str(), None, tmpfs.mode)).collect();
        order.extend(spec.binds.iter().map(|bind| (bind.target.as_str(), Some(bind.source.as_path()), 0)));
        order.sort_by_key(|(target, ..)| target.matches('/').count());
        for (target, source, mode) in order {
            let place = self.place(target);
            match source {
                None => {
                    make_directory(&place, mode)?;
                }
                Some(source) => {
                    // A place for it was made with the root, unless it lies in a directory of this run.
                    if let Err(error) = fs_err::remove_dir(&place)
                        && error.kind() != std::io::ErrorKind::NotFound
                    {
                        return Err(error).or_fail(Stage::Binds, || format!("rmdir({place:?})"));
                    }
                    if let Some(parent) = place.parent() {
                        make_directories(parent)?;
                    }
                    link(source, &place)?;
                }
            }
        }
        for file in spec.files.iter().filter(|file| root::is_in_tmpfs(spec, &file.target)) {
            let place = self.place(&file.target);
            if let Some(parent) = place.parent() {
                make_directories(parent)?;
            }
            write(&place, file)?;
        }
        Ok(())
    }

    /// Where a path of the sandbox is on the host.
    pub(super) fn place(&self, target: &str) -> PathBuf {
        self.path.join(target.trim_start_matches('/'))
    }

    /// A word with the paths of the sandbox in it made into paths of the host: a path, the value of an option, or
    /// several with colons between them.
    pub(super) fn translate(&self, word: &str) -> String {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) if option.starts_with('-') => (format!("{option}="), value),
            _ => (String::new(), word),
        };
        let parts = value.split(':').map(|part| self.translate_path(part));
        option + &parts.collect::<Vec<_>>().join(":")
    }

    fn translate_path(&self, path: &str) -> String {
        // Two slashes begin what follows the scheme of a URL.
        let is_path = path.starts_with('/') && !path.starts_with("//") && path.len() > 1;
        let place = self.place(path);
        if is_path && place.symlink_metadata().is_ok() {
            place.to_string_lossy().into_owned()
        } else {
            path.to_owned()
        }
    }
}

/// Where a path of the image leads to when its symlinks are followed as if the image were the root.
pub(super) fn resolve(tree: &Path, path: &str) -> Option<String> {
    const MOST_LINKS: usize = 40;
    let mut links = 0;
    let mut rest: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut here: Vec<String> = Vec::new();
    while let Some(name) = rest.pop() {
        match name.as_str() {
            "" | "." => continue,
            ".." => {
                here.pop();
                continue;
            }
            _ => here.push(name),
        }
        if let Ok(destination) = fs_err::read_link(tree.join(here.join("/"))) {
            links += 1;
            let destination = destination.to_str()?.to_owned();
            here.pop();
            if links > MOST_LINKS {
                return None;
            }
            if destination.starts_with('/') {
                here.clear();
            }
            rest.extend(destination.split('/').rev().map(str::to_owned));
        }
    }
    Some(format!("/{}", here.join("/")))
}

/// See `root::mirror`: the same, with links in place of binds.
fn mirror(tree: Option<&Path>, at: &Path, additions: &Nodes<'_>) -> Result<(), Failure> {
    if let Some(tree) = tree {
        let call = || format!("readdir({tree:?})");
        for entry in fs_err::read_dir(tree).or_fail(Stage::Root, call)? {
            let name = entry.or_fail(Stage::Root, call)?.file_name();
            if !name.to_str().is_some_and(|name| additions.contains_key(name)) {
                link(&tree.join(&name), &at.join(&name))?;
            }
        }
    }
    for (name, node) in additions {
        let target = at.join(name.as_ref());
        match node {
            Node::Directory(below) | Node::Opened(below) => {
                make_directory(&target, 0o755)?;
                let counterpart = tree.map(|tree| tree.join(name.as_ref()));
                let is_directory =
                    |path: &PathBuf| fs_err::symlink_metadata(path).is_ok_and(|found| found.is_dir());
                // An empty directory of ours is a place: what the image has there stays hidden.
                let counterpart = counterpart.filter(|path| !below.is_empty() && is_directory(path));
                mirror(counterpart.as_deref(), &target, below)?;
            }
            Node::File(file) => write(&target, file)?,
            Node::Place | Node::Copy(_) => {}
        }
    }
    Ok(())
}

/// A program of the image.
pub(super) struct Found {
    /// What it is called, with the directory that this leads to.
    pub(super) name: String,
    /// What the name leads to.
    pub(super) target: String,
}

/// The program of the command.
pub(super) fn find_program(tree: &Path, spec: &Spec) -> Result<Found, Failure> {
    for name in payload::candidates(&spec.argv[0], &spec.env) {
        let Some(target) = resolve(tree, &name) else { continue };
        let (directory, last) = name.rsplit_once('/').unwrap_or(("", &name));
        let Some(directory) = resolve(tree, directory) else { continue };
        if tree.join(target.trim_start_matches('/')).is_file() {
            return Ok(Found { name: format!("{}/{last}", directory.trim_end_matches('/')), target });
        }
    }
    Err(Failure::new(Stage::Exec, format!("execve({:?})", spec.argv[0]), Errno::ENOENT))
}

impl Drop for View {
    fn drop(&mut self) {
        // The scratch directory is the caller's, who removes it in any case.
        let _ = fs_err::remove_dir_all(&self.path);
    }
}

fn link(destination: &Path, name: &Path) -> Result<(), Failure> {
    symlink(destination, name).or_fail(Stage::Root, || format!("symlink({destination:?}, {name:?})"))
}

fn make_directories(path: &Path) -> Result<(), Failure> {
    fs_err::create_dir_all(path).or_fail(Stage::Root, || format!("mkdir({path:?})"))
}

fn make_directory(path: &Path, mode: u32) -> Result<(), Failure> {
    make_directories(path)?;
    let mode = std::fs::Permissions::from_mode(mode);
    fs_err::set_permissions(path, mode).or_fail(Stage::Root, || format!("chmod({path:?})"))
}

fn write(path: &Path, file: &File) -> Result<(), Failure> {
    let call = || format!("write({path:?})");
    fs_err::write(path, &file.contents).or_fail(Stage::Files, call)?;
    let mode = std::fs::Permissions::from_mode(if file.executable { 0o755 } else { 0o644 });
    fs_err::set_permissions(path, mode).or_fail(Stage::Files, call)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Access, Bind};

    #[test]
    fn words_are_translated_where_they_are_paths_of_the_sandbox_and_nowhere_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let tree = directory.path().join("tree");
        for name in ["usr/bin", "out"] {
            fs_err::create_dir_all(tree.join(name)).expect("a directory");
        }
        symlink("/usr/bin", tree.join("bin")).expect("a link");
        symlink("loop", tree.join("loop")).expect("a link");
        fs_err::write(tree.join("usr/bin/x"), "").expect("a file");
        let mut spec = Spec::new(Root::Tree(tree), ["/bin/x"]);
        spec.scratch = Some(directory.path().to_owned());
        let source = directory.path().to_owned();
        spec.binds.push(Bind { source, target: "/lbx/in".into(), access: Access::ReadOnly });
        let view = View::build(&spec, &[]).expect("a view");
        let at = view.path.display();
        for (word, expected) in [
            ("/usr/bin", format!("{at}/usr/bin")),
            ("/usr/bin:/nowhere:/tmp", format!("{at}/usr/bin:/nowhere:{at}/tmp")),
            ("--dir=/lbx/in", format!("--dir={at}/lbx/in")),
            ("https://host/usr/bin", "https://host/usr/bin".into()),
            ("usr/bin", "usr/bin".into()),
            ("/", "/".into()),
            ("a=/usr", "a=/usr".into()),
        ] {
            assert_eq!(view.translate(word), expected, "{word}");
        }
        assert_eq!(resolve(&view.tree, "/bin/x").as_deref(), Some("/usr/bin/x"));
        assert_eq!(resolve(&view.tree, "/../bin/../bin/x").as_deref(), Some("/usr/bin/x"));
        assert_eq!(resolve(&view.tree, "/loop"), None);
    }
}
