//! JSON lines: every event as one object, its kind under `reason`.

use lbx_build::Event;
use lbx_image::{Event as ImageEvent, Origin};
use serde_json::{Value, json};

use super::{Renderer, stdout};
use crate::failure::Failure;

/// Shows events as JSON on stdout.
pub(super) struct Json;

impl Renderer for Json {
    fn event(&self, event: &Event) {
        stdout(&value(event).to_string());
    }
}

/// A failure, as the last line.
pub(super) fn failure(failure: &Failure) -> Value {
    json!({
        "reason": "error",
        "message": failure.message,
        "output": failure.output,
        "hint": failure.hint,
        "diagnosis": failure.diagnosis.json(),
        "exit_code": failure.code,
    })
}

fn value(event: &Event) -> Value {
    match event {
        Event::Planned { sets, artifacts, arch, image } => {
            json!({"reason": "planned", "arch": arch, "image": image, "sets": sets, "artifacts": artifacts})
        }
        Event::Image(event) => image_value(event),
        Event::Isolated { backend, claims, refused } => {
            let level = claims.level();
            json!({"reason": "isolated", "backend": backend, "level": level, "claims": claims, "refused": refused})
        }
        Event::ImageReady { digest, python, pip } => {
            json!({"reason": "image-ready", "digest": digest, "python": python, "pip": pip})
        }
        Event::PackagesStarted { image, packages } => {
            json!({"reason": "packages-started", "image": image, "packages": packages})
        }
        Event::PackagesLine { line } => json!({"reason": "packages-line", "line": line}),
        Event::PackagesFinished { image, installed, hosts } => {
            json!({"reason": "packages-finished", "image": image, "installed": installed, "hosts": hosts})
        }
        Event::Unlocked { set, lock, why } => {
            json!({"reason": "unlocked", "set": set, "lock": lock, "why": why})
        }
        Event::LockWritten { path, packages, changes } => {
            json!({"reason": "lock-written", "path": path, "packages": packages, "changes": changes})
        }
        Event::NotReproducible { set, source, what } => {
            json!({"reason": "not-reproducible", "set": set, "source": source, "what": what})
        }
        Event::ResolveStarted { set, lock } => json!({"reason": "resolve-started", "set": set, "lock": lock}),
        Event::ResolveLine { set, line } => json!({"reason": "resolve-line", "set": set, "line": line}),
        Event::ResolveRefused { set, what } => json!({"reason": "resolve-refused", "set": set, "what": what}),
        Event::ResolveFinished { set, wheels, lock } => {
            json!({"reason": "resolve-finished", "set": set, "wheels": wheels, "lock": lock})
        }
        Event::Found { artifact, finding } => {
            json!({"reason": "found", "artifact": artifact, "finding": finding})
        }
        Event::Damaged { path } => json!({"reason": "damaged", "path": path}),
        Event::ArtifactStarted { artifact } => json!({"reason": "artifact-started", "artifact": artifact}),
        Event::ArtifactFinished { artifact, path, size, files } => {
            json!({"reason": "artifact-finished", "artifact": artifact, "path": path, "size": size, "files": files})
        }
    }
}

fn image_value(event: &ImageEvent) -> Value {
    match event {
        ImageEvent::Resolving => json!({"reason": "image-resolving"}),
        ImageEvent::Resolved { digest, layers } => {
            let layers: Vec<_> = layers
                .iter()
                .map(|layer| json!({"digest": layer.digest.as_str(), "size": layer.size}))
                .collect();
            json!({"reason": "image-resolved", "digest": digest.as_str(), "layers": layers})
        }
        ImageEvent::LayerStarted { index } => json!({"reason": "layer-started", "layer": index}),
        ImageEvent::LayerProgress { index, bytes } => {
            json!({"reason": "layer-progress", "layer": index, "bytes": bytes})
        }
        ImageEvent::Retrying { index, reason } => {
            json!({"reason": "layer-retrying", "layer": index, "why": reason})
        }
        ImageEvent::UnpackStarted { index } => json!({"reason": "unpack-started", "layer": index}),
        ImageEvent::UnpackProgress { index, bytes } => {
            json!({"reason": "unpack-progress", "layer": index, "bytes": bytes})
        }
        ImageEvent::LayerDone { index, origin } => {
            let origin = match origin {
                Origin::Cached => "cached",
                Origin::Unpacked => "unpacked",
                Origin::Downloaded => "downloaded",
            };
            json!({"reason": "layer-done", "layer": index, "origin": origin})
        }
    }
}
