//! `lbx images`: the runtimes that there are, with their images, and the images that were pulled.

use lbx_image::{Digest, Reference, Store};
use lbx_plan::Runtime;
use serde_json::json;

use super::cache_dir;
use crate::arguments::Arguments;
use crate::environment::Environment;
use crate::exit;
use crate::render::Output;

/// Lists them. Nothing is fetched, and no store is made.
pub(crate) fn run(arguments: &Arguments, environment: &Environment) -> u8 {
    let output = Output::new(arguments);
    let tags = match cache_dir(environment) {
        Ok(folder) => Store::tags(&folder),
        Err(failure) => return output.failure(&failure),
    };
    let runtimes = Runtime::all();
    let pulled: Vec<_> = tags
        .iter()
        .map(|(reference, digest)| json!({"reference": reference.to_string(), "digest": digest}))
        .collect();
    output.json(&json!({"reason": "images", "runtimes": runtimes, "pulled": pulled}));
    for line in runtimes.iter().flat_map(about).chain(list(&tags)) {
        output.result(&line);
    }
    exit::SUCCESS
}

/// What there is to know of a runtime before one is chosen.
fn about(runtime: &Runtime) -> [String; 4] {
    let Runtime { os, glibc, deprecated, block_update, image, build_image, .. } = runtime;
    let (major, minor) = runtime.glibc_version();
    let default = if runtime.runtime == Runtime::DEFAULT { ", the default" } else { "" };
    [
        format!("{}{default}", runtime.runtime),
        format!("  {os}, glibc {glibc}: wheels up to manylinux_{major}_{minor}"),
        format!("  supported until {deprecated}; functions can be updated until {block_update}"),
        format!("  {image}, and with compilers {build_image}"),
    ]
}

fn list(tags: &[(Reference, Digest)]) -> Vec<String> {
    if tags.is_empty() {
        return vec!["pulled: none".to_owned()];
    }
    let one = |(reference, digest): &(Reference, Digest)| format!("  {reference}  {digest}");
    ["pulled:".to_owned()].into_iter().chain(tags.iter().map(one)).collect()
}
