//! The stand-in images, as `cargo xtask test` serves them: where they are, and what to do when they are not.
//!
//! A test that needs one is skipped loudly when there is none, so that `cargo test` alone is of use. Where
//! `LBX_MUST_RUN` names `standin`, as in CI, the skip is a failure.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::images::{INDEX_TYPE, Layer, MANIFEST_TYPE, index, sha256};
use crate::registry::{push_blob, push_manifest, request};

/// The repository of the stand-in images.
const REPOSITORY: &str = "lambda/python";

/// The variable that holds the address of the registry with the stand-in images, `127.0.0.1:PORT`.
const REGISTRY: &str = "LBX_TEST_REGISTRY";

/// The variable that holds the folder with the stand-in images, each in the OCI layout.
const LAYOUTS: &str = "LBX_TEST_STANDIN";

/// The folder with the stand-in image of a runtime, in the OCI layout; none, with a loud word, when there is none.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests are told about their surroundings this way"
)]
pub fn layout(runtime: &str) -> Option<PathBuf> {
    let Ok(folder) = std::env::var(LAYOUTS) else {
        assert!(!must_run("standin"), "{LAYOUTS} is not set, and LBX_MUST_RUN forbids skipping");
        eprintln!("SKIP: {LAYOUTS} is not set; run `cargo xtask test`");
        return None;
    };
    Some(Path::new(&folder).join(runtime))
}

/// The reference of the stand-in image of a runtime such as `python3.11`; none, with a loud word, when no
/// registry serves it.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests are told about their surroundings this way"
)]
pub fn reference(runtime: &str) -> Option<String> {
    let Ok(registry) = std::env::var(REGISTRY) else {
        assert!(!must_run("standin"), "{REGISTRY} is not set, and LBX_MUST_RUN forbids skipping");
        eprintln!("SKIP: {REGISTRY} is not set; run `cargo xtask test`");
        return None;
    };
    let version = runtime.trim_start_matches("python");
    Some(format!("{registry}/{REPOSITORY}:{version}"))
}

/// The stand-in image of a runtime with one more layer on top, under a tag of its own beside it; none, with a loud
/// word, when no registry serves it.
pub fn with_layer(runtime: &str, tag: &str, layer: &Layer) -> Option<String> {
    let reference = reference(runtime)?;
    let (address, _) = reference.split_once('/').expect("an address");
    let (_, version) = reference.rsplit_once(':').expect("a tag");
    let mut manifest = document(address, &format!("manifests/{version}"));
    let digest = manifest["config"]["digest"].as_str().expect("a configuration");
    let mut config = document(address, &format!("blobs/{digest}"));
    let push = |list: &mut Value, one: Value| list.as_array_mut().expect("a list").push(one);
    push(&mut config["rootfs"]["diff_ids"], layer.diff_id.clone().into());
    push(&mut manifest["layers"], layer.descriptor());
    let config = config.to_string().into_bytes();
    manifest["config"]["digest"] = push_blob(address, REPOSITORY, &config).into();
    manifest["config"]["size"] = config.len().into();
    push_blob(address, REPOSITORY, &layer.blob);
    push_manifest(address, REPOSITORY, tag, MANIFEST_TYPE, manifest.to_string().as_bytes());
    Some(format!("{address}/{REPOSITORY}:{tag}"))
}

/// The stand-in image of python3.11 for both CPUs, under one tag; none, with a loud word, when no registry serves it.
pub fn for_both() -> Option<String> {
    let reference = reference("python3.11")?;
    let (address, _) = reference.split_once('/').expect("an address");
    let descriptor = |tag: &str, architecture: &str| {
        let path = format!("/v2/{REPOSITORY}/manifests/{tag}");
        let answer = request(address, "GET", &path, &[("Accept", MANIFEST_TYPE)], &[]).expect("an answer");
        assert_eq!(answer.status, 200, "{path}");
        let (digest, size) = (sha256(&answer.body), answer.body.len());
        let platform = json!({"os": "linux", "architecture": architecture});
        json!({"mediaType": MANIFEST_TYPE, "digest": digest, "size": size, "platform": platform})
    };
    let both = index(&[descriptor("3.11", "amd64"), descriptor("3.11-arm64", "arm64")]);
    push_manifest(address, REPOSITORY, "3.11-both", INDEX_TYPE, &both);
    Some(format!("{address}/{REPOSITORY}:3.11-both"))
}

fn document(address: &str, path: &str) -> Value {
    let path = format!("/v2/{REPOSITORY}/{path}");
    let answer = request(address, "GET", &path, &[("Accept", MANIFEST_TYPE)], &[]).expect("an answer");
    assert_eq!(answer.status, 200, "{path}");
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// Whether `LBX_MUST_RUN`, a comma-separated list, forbids skipping tests of this kind.
#[expect(clippy::disallowed_methods, reason = "tests are told about their surroundings this way")]
pub fn must_run(kind: &str) -> bool {
    std::env::var("LBX_MUST_RUN").is_ok_and(|list| list.split(',').any(|one| one == kind))
}
