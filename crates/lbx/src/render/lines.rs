//! Plain lines, for logs and CI: one line when something begins or ends, none in between.

use std::sync::Mutex;

use lbx_build::{Event, Finding, Severity};
use lbx_image::{Event as ImageEvent, Origin};
use lbx_sandbox::{Backend, Claims};

use super::{Renderer, bytes, count, one_line, printable, stderr};

/// Shows events as lines on stderr.
pub(super) struct Lines {
    show_pip: bool,
    names: Mutex<Names>,
}

/// What the indices of events mean.
#[derive(Default)]
pub(super) struct Names {
    pub(super) sets: Vec<String>,
    pub(super) artifacts: Vec<String>,
    pub(super) layers: Vec<u64>,
}

impl Lines {
    pub(super) fn new(show_pip: bool) -> Self {
        Self { show_pip, names: Mutex::default() }
    }
}

impl Renderer for Lines {
    fn event(&self, event: &Event) {
        let Ok(mut names) = self.names.lock() else { return };
        names.note(event);
        if let Some(line) = names.line(event, self.show_pip) {
            stderr(&format!("lbx: {line}"));
        }
    }
}

/// A lock, and below it what is another than before.
fn lock_written(path: &str, packages: usize, changes: &[String]) -> String {
    let mut text = format!("locked {}: {}", printable(path), count(packages, "package"));
    for change in changes {
        text.push_str("\nlbx:   ");
        text.push_str(&printable(change));
    }
    text
}

impl Names {
    /// Learns what indices mean.
    pub(super) fn note(&mut self, event: &Event) {
        match event {
            Event::Planned { sets, artifacts, .. } => {
                self.sets.clone_from(sets);
                self.artifacts.clone_from(artifacts);
            }
            Event::Image(ImageEvent::Resolved { layers, .. }) => {
                self.layers = layers.iter().map(|layer| layer.size).collect();
            }
            _ => {}
        }
    }

    /// The line that an event deserves, if any.
    pub(super) fn line(&self, event: &Event, show_pip: bool) -> Option<String> {
        match event {
            Event::Planned { artifacts, arch, image, .. } => {
                Some(planned(artifacts, *arch, image.as_deref()))
            }
            Event::Isolated { backend, claims, refused } => isolation(*backend, *claims, refused),
            Event::Image(event) => self.image_line(event),
            Event::ImageReady { python, pip, digest } => {
                // The image's own Python says these two.
                let (python, pip) = (printable(python), printable(pip));
                Some(format!("image ready: Python {python}, pip {pip}, {}", short(digest)))
            }
            Event::PackagesStarted { image, packages } => {
                let (image, packages) = (printable(image), printable(&packages.join(" ")));
                Some(format!("packages: installing {packages} in {image}"))
            }
            Event::PackagesLine { line } => show_pip.then(|| format!("packages: {}", printable(line))),
            Event::PackagesFinished { installed, hosts, .. } => {
                let from = match hosts.as_slice() {
                    [] => String::new(),
                    hosts => format!(" from {}", printable(&hosts.join(", "))),
                };
                Some(format!("packages: {}{from}", count(installed.len(), "package")))
            }
            Event::Unlocked { set, lock, why } => {
                let (name, lock) = (name(&self.sets, *set), printable(lock));
                Some(match why {
                    None => format!("lock: {name}: there is none; `lbx lock` writes {lock}"),
                    Some(why) => format!(
                        "lock: {name}: {lock} is not used: {}; `lbx lock` makes it anew",
                        printable(why)
                    ),
                })
            }
            Event::NotReproducible { source, what, .. } => {
                Some(format!("not reproducible: {}: {}", printable(source), printable(what)))
            }
            Event::ResolveStarted { set, lock: None } => Some(format!("pip: {}", name(&self.sets, *set))),
            Event::ResolveStarted { set, lock: Some(lock) } => {
                Some(format!("lock: {}: {}", name(&self.sets, *set), printable(lock)))
            }
            Event::ResolveLine { line, .. } => show_pip.then(|| format!("pip: {}", printable(line))),
            Event::ResolveRefused { set, what } => {
                let (name, what) = (name(&self.sets, *set), printable(what));
                Some(format!("pip: {name}: refused what build code asked for: {what}"))
            }
            Event::ResolveFinished { set, wheels, lock } => {
                let way = if lock.is_some() { "lock" } else { "pip" };
                Some(format!("{way}: {}: {}", name(&self.sets, *set), count(*wheels, "wheel")))
            }
            Event::LockWritten { path, packages, changes } => Some(lock_written(path, *packages, changes)),
            Event::ArtifactStarted { .. } => None,
            Event::Found { artifact, finding: found } => {
                Some(finding(name(&self.artifacts, *artifact), found, "lbx:   "))
            }
            Event::Damaged { path } => Some(super::damaged(path)),
            Event::ArtifactFinished { artifact, size, files, .. } => {
                let name = name(&self.artifacts, *artifact);
                Some(format!("built {name}: {}, {}", bytes(*size), count(*files, "file")))
            }
        }
    }

    fn image_line(&self, event: &ImageEvent) -> Option<String> {
        match event {
            ImageEvent::Resolved { digest, layers } => {
                let size = layers.iter().map(|layer| layer.size).sum();
                Some(format!(
                    "image {}: {}, {}",
                    short(digest.as_str()),
                    count(layers.len(), "layer"),
                    bytes(size)
                ))
            }
            ImageEvent::LayerDone { index, origin: Origin::Downloaded } => {
                let size = self.layers.get(*index).copied().unwrap_or_default();
                Some(format!("layer {} of {}: {}", index + 1, self.layers.len(), bytes(size)))
            }
            ImageEvent::Retrying { index, reason } => {
                Some(format!("layer {}: trying again: {}", index + 1, printable(reason)))
            }
            _ => None,
        }
    }
}

/// The start of a digest, enough for people to tell two apart; reports and JSON have all of it.
fn short(digest: &str) -> &str {
    digest.get(.."sha256:".len() + 12).unwrap_or(digest)
}

/// What a build does without, when it is not isolated in full.
fn isolation(backend: Backend, claims: Claims, refused: &[String]) -> Option<String> {
    let missing: Vec<_> =
        claims.list().into_iter().filter(|(_, holds)| !holds).map(|(promise, _)| promise).collect();
    (!missing.is_empty()).then(|| {
        let (level, missing) = (claims.level(), missing.join("; "));
        let because = refused.first().map(|why| format!(", because of {why}")).unwrap_or_default();
        format!("isolation is {level} here (backend {backend}{because}); not promised: {missing}")
    })
}

/// Something that is wrong with an artifact, and below it, in lines that begin with `indent`, what can be done.
pub(crate) fn finding(artifact: &str, finding: &Finding, indent: &str) -> String {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let place = finding.path.as_ref().map(|path| match &finding.owner {
        Some(owner) => format!("{} ({}) ", one_line(path), one_line(owner)),
        None => format!("{} ", one_line(path)),
    });
    let below = |text: &String| {
        let lines = text.lines().map(|line| format!("\n{indent}{}", printable(line)));
        lines.collect::<String>()
    };
    let details = finding.details.as_ref().map(below).unwrap_or_default();
    let hint = finding.hint.as_ref().map(below).unwrap_or_default();
    format!(
        "{severity}: {}: {}{}{details}{hint}",
        one_line(artifact),
        place.unwrap_or_default(),
        one_line(&finding.message)
    )
}

/// What is going to happen, in a line.
fn planned(artifacts: &[String], arch: Option<&str>, image: Option<&str>) -> String {
    let target = arch.map(|arch| format!(" for {arch}")).unwrap_or_default();
    let place = image.map(|image| format!(" in {image}")).unwrap_or_default();
    format!("building {}{target}{place}", artifacts.join(", "))
}

pub(super) fn name(names: &[String], index: usize) -> &str {
    names.get(index).map_or("?", String::as_str)
}
