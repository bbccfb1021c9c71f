//! Two small layers to stack, to see whether the kernel does it in a directory.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::error::{Failure, OrFail, Stage};

/// Two layers to stack, in a directory that goes away with this value.
pub(super) struct Layers {
    pub(super) path: PathBuf,
}

impl Layers {
    /// On an error the value, when there is one already, is returned too, to be dropped.
    pub(super) fn make(directory: &Path) -> Result<Self, (Option<Self>, Failure)> {
        let template = directory.join(".lbx-overlay-XXXXXX");
        let call = || format!("mkdtemp({template:?})");
        let path = nix::unistd::mkdtemp(&template)
            .map_err(|errno| (None, Failure::new(Stage::Root, call(), errno)))?;
        let layers = Self { path };
        match layers.populate() {
            Ok(()) => Ok(layers),
            Err(failure) => Err((Some(layers), failure)),
        }
    }

    fn populate(&self) -> Result<(), Failure> {
        let stage = Stage::Root;
        for name in ["lower/opaque", "upper/opaque", "merged"] {
            let path = self.path.join(name);
            fs_err::create_dir_all(&path).or_fail(stage, || format!("mkdir({path:?})"))?;
        }
        for name in ["lower/kept", "lower/removed", "lower/opaque/old", "upper/opaque/new"] {
            let path = self.path.join(name);
            fs_err::write(&path, "").or_fail(stage, || format!("write({path:?})"))?;
        }
        let whiteout = self.path.join("upper/removed");
        nix::sys::stat::mknod(&whiteout, nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::empty(), 0)
            .or_fail(stage, || format!("mknod({whiteout:?}, S_IFCHR, 0:0)"))?;
        let opaque = self.path.join("upper/opaque");
        let opaque: OwnedFd =
            fs_err::File::open(&opaque).or_fail(stage, || format!("open({opaque:?})"))?.into_parts().0.into();
        crate::syscalls::set_xattr(&opaque, c"user.overlay.opaque", b"y")
            .or_fail(stage, || "fsetxattr(\"user.overlay.opaque\", \"y\")".to_owned())
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        // No command runs in it and the kernel only reads it, so it is neither deep nor closed. What cannot be removed
        // was not writable to begin with; there is nothing more to do about it.
        let _ = fs_err::remove_dir_all(&self.path);
    }
}
