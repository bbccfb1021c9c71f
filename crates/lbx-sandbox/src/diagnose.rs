//! Turns probes into causes and fixes: which part of this host denies a sandbox, and what to do about it.
//! The probing itself is done by throw-away children.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Failure, Stage};
use crate::launch::Launcher;
use crate::wire::{Probe, Setting};

/// What this host allows, one finding for each layer of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// In the order in which the layers are needed.
    pub findings: Vec<Finding>,
}

/// What happened when one layer was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was tried.
    pub layer: Layer,
    /// How it went.
    pub outcome: Outcome,
    /// Why it was denied, when that is known.
    pub cause: Option<String>,
    /// What to do about it.
    pub fix: Option<String>,
}

/// A part of the sandbox that a host can deny by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Layer {
    /// A user namespace.
    UserNamespace,
    /// The map of the caller's user id into it.
    IdMap,
    /// Mounting.
    Mount,
    /// Stacking layers. Without it they are merged by copying.
    Overlay,
    /// A /proc of its own. Without it the command sees the processes of the container around it.
    Proc,
    /// Namespaces for processes, IPC and host names.
    OtherNamespaces,
    /// An empty network.
    Network,
}

/// How a try went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It works.
    Allowed,
    /// This call was denied.
    Denied(Failure),
    /// It was not tried, because a layer that it needs was denied.
    NotTried,
}

/// Whether the kernel stacks layers in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlay {
    /// It does: [`Root::Layers`](crate::Root::Layers) works.
    Supported,
    /// It does not, for this reason: use [`Root::Tree`](crate::Root::Tree).
    Refused(Finding),
}

impl Diagnosis {
    /// Whether commands can run. A denied overlay or /proc has a replacement.
    pub fn can_run(&self) -> bool {
        let replaceable = |l| matches!(l, Layer::Overlay | Layer::Proc);
        self.findings.iter().all(|f| f.outcome == Outcome::Allowed || replaceable(f.layer))
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UserNamespace => "user namespace",
            Self::IdMap => "user id map",
            Self::Mount => "mount",
            Self::Overlay => "overlay",
            Self::Proc => "own /proc",
            Self::OtherNamespaces => "pid, ipc and uts namespaces",
            Self::Network => "network namespace",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Allowed => write!(f, "{}: allowed", self.layer),
            Outcome::NotTried => write!(f, "{}: not tried", self.layer),
            Outcome::Denied(failure) => {
                write!(f, "{}: denied: {}: {}", self.layer, failure.call, failure.errno_name())?;
                self.cause.as_ref().map_or(Ok(()), |cause| write!(f, " ({cause})"))
            }
        }
    }
}

/// What the host says about itself; looked at only to explain a denial, never to predict one.
#[derive(Debug, Default)]
struct Host {
    unprivileged_userns_clone: Option<String>,
    max_user_namespaces: Option<String>,
    in_chroot: bool,
}

impl Host {
    fn read() -> Self {
        let value = |path: &str| fs_err::read_to_string(path).ok().map(|v| v.trim().to_owned());
        let mounts = value("/proc/self/mountinfo").unwrap_or_default();
        Self {
            unprivileged_userns_clone: value("/proc/sys/kernel/unprivileged_userns_clone"),
            max_user_namespaces: value("/proc/sys/user/max_user_namespaces"),
            // A process sees only the mounts below its root, and its root is one unless it was changed.
            in_chroot: root_differs_from_init().unwrap_or_else(|| {
                !mounts.is_empty() && !mounts.lines().any(|l| l.split(' ').nth(4) == Some("/"))
            }),
        }
    }
}

/// Compares our root with that of process 1, which only root may look at.
fn root_differs_from_init() -> Option<bool> {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &str| fs_err::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    Some(identity("/proc/1/root")? != identity("/")?)
}

pub(crate) fn diagnose(launcher: &Launcher, store: Option<&Path>) -> Result<Diagnosis, Error> {
    let mut findings = Vec::new();
    let plan = [
        (Layer::UserNamespace, Probe::UserNamespace),
        (Layer::IdMap, Probe::IdMap),
        (Layer::OtherNamespaces, Probe::OtherNamespaces),
        (Layer::Mount, Probe::Mount),
        (Layer::Proc, Probe::Proc),
        (Layer::Network, Probe::Network),
    ];
    for (layer, probe) in plan {
        // Every layer needs a user namespace with its map, and an own /proc needs mounts.
        let needed = |l| {
            matches!(l, Layer::UserNamespace | Layer::IdMap) || (layer == Layer::Proc && l == Layer::Mount)
        };
        let finding = if denied(&findings, needed) {
            Finding { layer, outcome: Outcome::NotTried, cause: None, fix: None }
        } else {
            let (failure, setting) = launcher.probe(probe)?;
            conclude(layer, failure, &setting, &Host::read())
        };
        findings.push(finding);
    }
    if let Some(store) = store {
        findings.push(
            if denied(&findings, |l| matches!(l, Layer::UserNamespace | Layer::IdMap | Layer::Mount)) {
                Finding { layer: Layer::Overlay, outcome: Outcome::NotTried, cause: None, fix: None }
            } else {
                match overlay(launcher, store)? {
                    Overlay::Refused(finding) => finding,
                    Overlay::Supported => {
                        Finding { layer: Layer::Overlay, outcome: Outcome::Allowed, cause: None, fix: None }
                    }
                }
            },
        );
    }
    Ok(Diagnosis { findings })
}

fn denied(findings: &[Finding], layer: impl Fn(Layer) -> bool) -> bool {
    findings.iter().any(|f| layer(f.layer) && matches!(f.outcome, Outcome::Denied(_)))
}

fn conclude(layer: Layer, failure: Option<Failure>, setting: &Setting, host: &Host) -> Finding {
    let Some(failure) = failure else {
        return Finding { layer, outcome: Outcome::Allowed, cause: None, fix: None };
    };
    let explanation = explain(layer, Errno::from_raw(failure.errno), setting, host);
    let (cause, fix) = explanation.map_or((None, None), |(cause, fix)| (Some(cause), Some(fix)));
    Finding { layer, outcome: Outcome::Denied(failure), cause, fix }
}

/// The cause of a denial and what to do about it. The first match wins: the most specific come first.
fn explain(layer: Layer, errno: Errno, setting: &Setting, host: &Host) -> Option<(String, String)> {
    let label = setting.label.as_deref().unwrap_or_default();
    let permission = matches!(errno, Errno::EPERM | Errno::EACCES);
    let filtered = setting.seccomp == Some(2);
    let (cause, fix) = match layer {
        _ if permission && label.starts_with("unprivileged_userns") => (
            "AppArmor takes the capabilities from unprivileged user namespaces (Ubuntu 23.10 and later)",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for this program with `userns,`",
        ),
        // It is tried only where mounts are allowed, so that no filter of system calls can be the cause.
        Layer::Proc if errno == Errno::EPERM => (
            "parts of /proc are masked by the container around this process",
            "none needed: the container's own /proc is bound in its place; `--security-opt systempaths=unconfined` gives a new one",
        ),
        Layer::Overlay => (
            "the kernel or the file system of the layers does not allow overlays in a user namespace",
            "none needed: layers are merged by copying; a cache on ext4, xfs or btrfs and Linux 5.11 or later avoid that",
        ),
        _ if permission && label.starts_with("docker-default") => (
            "the AppArmor profile of Docker denies mounts",
            "run the container with `--security-opt apparmor=unconfined`",
        ),
        _ if permission && label.contains(":container_t:") => (
            "SELinux confines the container around this process",
            "run the container with `--security-opt label=disable`",
        ),
        Layer::UserNamespace if errno == Errno::ENOSPC => (
            match host.max_user_namespaces.as_deref() {
                Some("0") => "user.max_user_namespaces is 0 (this is not about disk space)",
                _ => {
                    "the limit on user namespaces or on their nesting is reached (this is not about disk space)"
                }
            },
            "sudo sysctl -w user.max_user_namespaces=15000; on Bottlerocket set it in the node's settings; EKS Auto Mode and Fargate do not allow it",
        ),
        Layer::UserNamespace if permission && host.unprivileged_userns_clone.as_deref() == Some("0") => {
            ("kernel.unprivileged_userns_clone is 0", "sudo sysctl -w kernel.unprivileged_userns_clone=1")
        }
        Layer::UserNamespace if errno == Errno::EPERM && host.in_chroot => (
            "this process runs in a chroot, where the kernel allows no user namespace",
            "run outside the chroot",
        ),
        _ if permission && filtered => (
            match setting.clone3.as_str() {
                "ENOSYS" => {
                    "the system call filter of the container around this process (Docker's or containerd's default)"
                }
                _ => "a system call filter (seccomp) on this process",
            },
            "be root in the container, with the capabilities that Docker gives (then the backend `chroot` does it); or run the container with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined`; in Kubernetes use `hostUsers: false` with `procMount: Unmasked` and an unconfined seccomp profile",
        ),
        Layer::UserNamespace if errno == Errno::EINVAL => {
            ("the kernel was built without user namespaces", "use a kernel with CONFIG_USER_NS=y")
        }
        _ => return None,
    };
    Some((cause.to_owned(), fix.to_owned()))
}

/// See [`Launcher::overlay_supported`].
pub(crate) fn overlay(launcher: &Launcher, directory: &Path) -> Result<Overlay, Error> {
    let layers = match Layers::make(directory) {
        Ok(layers) => layers,
        Err((_guard, failure)) => {
            let finding = conclude(Layer::Overlay, Some(failure), &Setting::default(), &Host::default());
            return Ok(Overlay::Refused(finding));
        }
    };
    let (failure, setting) = launcher.probe(Probe::Overlay(layers.path.clone()))?;
    Ok(match failure {
        None => Overlay::Supported,
        Some(_) => Overlay::Refused(conclude(Layer::Overlay, failure, &setting, &Host::read())),
    })
}

/// Two layers to stack, in a directory that goes away with this value.
struct Layers {
    path: PathBuf,
}

impl Layers {
    /// On an error the value, when there is one already, is returned too, to be dropped.
    fn make(directory: &Path) -> Result<Self, (Option<Self>, Failure)> {
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
        use crate::error::OrFail;
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
