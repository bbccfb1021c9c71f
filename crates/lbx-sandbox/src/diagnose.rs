//! Turns probes into causes and fixes: which part of this host denies a sandbox, and what to do about it.
//! The probing itself is done by throw-away children.

mod explain;
mod host;
mod layers;

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use self::host::{FileSystem, Host};
use self::layers::Layers;
use crate::error::{Error, Failure};
use crate::launch::Launcher;
use crate::remedy::Remedy;
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
    /// What to do about it: a command, or one line.
    pub fix: Option<String>,
    /// The fix as a change that the machine's administrator can make, when it is one.
    pub remedy: Option<Remedy>,
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
    /// A filter of system calls.
    Filter,
    /// A Landlock domain.
    Landlock,
    /// Tracing a child, which is how proot works.
    Tracing,
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
    /// Whether commands can run in namespaces. What nothing is lost of but a second fence, or comfort, is no reason
    /// against it.
    pub fn can_run(&self) -> bool {
        self.findings.iter().all(|f| f.outcome == Outcome::Allowed || f.layer.can_be_missed())
    }

    /// What is denied.
    pub fn problems(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| matches!(finding.outcome, Outcome::Denied(_)))
    }

    /// What the machine's administrator can change, each change once.
    pub fn remedies(&self) -> Vec<Remedy> {
        let mut remedies = Vec::new();
        for remedy in self.problems().filter_map(|finding| finding.remedy.as_ref()) {
            if !remedies.contains(remedy) {
                remedies.push(remedy.clone());
            }
        }
        remedies
    }
}

impl Layer {
    /// Whether commands run in namespaces without it.
    fn can_be_missed(self) -> bool {
        matches!(self, Self::Overlay | Self::Proc | Self::Landlock | Self::Tracing)
    }

    /// What is lost where it is denied; nothing where the loss is the sandbox itself.
    pub fn loss(self) -> Option<&'static str> {
        match self {
            Self::Overlay => Some("layers are merged by copying"),
            Self::Proc => Some("build code sees the container's processes"),
            Self::Landlock => Some(
                "proot and loader protect no files; processes and abstract sockets of the same user are in reach where no namespace hides them",
            ),
            Self::Tracing => Some("the backend proot"),
            _ => None,
        }
    }
}

impl Finding {
    fn allowed(layer: Layer) -> Self {
        Self { layer, outcome: Outcome::Allowed, cause: None, fix: None, remedy: None }
    }

    fn not_tried(layer: Layer) -> Self {
        Self { outcome: Outcome::NotTried, ..Self::allowed(layer) }
    }

    fn denied(layer: Layer, failure: Failure, setting: &Setting, host: &Host) -> Self {
        let explanation = explain::explain(layer, &failure, setting, host);
        let (cause, fix, remedy) = explanation
            .map_or((None, None, None), |found| (Some(found.cause), Some(found.fix), found.remedy));
        Self { layer, outcome: Outcome::Denied(failure), cause, fix, remedy }
    }
}

/// Why something is denied, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
struct Explanation {
    cause: String,
    fix: String,
    remedy: Option<Remedy>,
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
            Self::Filter => "system call filter",
            Self::Landlock => "landlock",
            Self::Tracing => "tracing",
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

/// See [`Launcher::diagnose`].
pub(crate) fn diagnose(launcher: &Launcher, store: Option<&Path>) -> Result<Diagnosis, Error> {
    use Layer::{Filter, IdMap, Landlock, Mount, Network, OtherNamespaces, Proc, Tracing, UserNamespace};
    // Each with the layers that it needs.
    let plan: [(Layer, Probe, &[Layer]); 9] = [
        (UserNamespace, Probe::UserNamespace, &[]),
        (IdMap, Probe::IdMap, &[UserNamespace]),
        (OtherNamespaces, Probe::OtherNamespaces, &[UserNamespace, IdMap]),
        (Mount, Probe::Mount, &[UserNamespace, IdMap]),
        (Proc, Probe::Proc, &[UserNamespace, IdMap, OtherNamespaces, Mount]),
        (Network, Probe::Network, &[UserNamespace, IdMap]),
        (Filter, Probe::Filter, &[]),
        (Landlock, Probe::Landlock, &[]),
        (Tracing, Probe::Tracing, &[]),
    ];
    let mut findings = Vec::new();
    for (layer, probe, needs) in plan {
        findings.push(if is_denied(&findings, needs) {
            Finding::not_tried(layer)
        } else {
            match launcher.probe(probe)? {
                (None, _) => Finding::allowed(layer),
                (Some(failure), setting) => Finding::denied(layer, failure, &setting, &Host::read()),
            }
        });
    }
    if let Some(store) = store {
        findings.push(if is_denied(&findings, &[UserNamespace, IdMap, Mount]) {
            Finding::not_tried(Layer::Overlay)
        } else {
            match overlay(launcher, store)? {
                Overlay::Refused(finding) => finding,
                Overlay::Supported => Finding::allowed(Layer::Overlay),
            }
        });
    }
    explain::emulator(&mut findings);
    Ok(Diagnosis { findings })
}

fn is_denied(findings: &[Finding], layers: &[Layer]) -> bool {
    findings.iter().any(|f| layers.contains(&f.layer) && matches!(f.outcome, Outcome::Denied(_)))
}

/// See [`Launcher::overlay_supported`].
pub(crate) fn overlay(launcher: &Launcher, directory: &Path) -> Result<Overlay, Error> {
    let (failure, setting) = match Layers::make(directory) {
        Ok(layers) => launcher.probe(Probe::Overlay(layers.path.clone()))?,
        Err((_guard, failure)) => (Some(failure), Setting::default()),
    };
    Ok(failure.map_or(Overlay::Supported, |failure| {
        let host = Host { store: FileSystem::of(directory), ..Host::default() };
        Overlay::Refused(Finding::denied(Layer::Overlay, failure, &setting, &host))
    }))
}
