//! `lbx pull`: an image into the store.

use std::sync::Arc;

use lbx_build::{Cancel, PullRequest};
use serde_json::json;

use super::{host, observer};
use crate::arguments::{Arguments, Pull};
use crate::environment::Environment;
use crate::exit;
use crate::failure::Failure;
use crate::render::Output;
use crate::signals::until_signal;

/// Pulls, and prints the image by its digest.
pub(crate) fn run(arguments: &Arguments, pull: &Pull, environment: &Environment) -> u8 {
    let output = Arc::new(Output::new(arguments));
    match try_run(&output, pull, environment) {
        Ok(()) => exit::SUCCESS,
        Err(failure) => output.failure(&failure),
    }
}

fn try_run(output: &Arc<Output>, pull: &Pull, environment: &Environment) -> Result<(), Failure> {
    let host = host(environment)?;
    let cancel = Cancel::new();
    let observer = observer(output);
    let request = PullRequest {
        reference: &pull.reference,
        arch: pull.arch,
        offline: false,
        host: &host,
        cancel: &cancel,
        observer: &observer,
    };
    let pulled = until_signal(output, &cancel, async { Ok(lbx_build::pull(&request).await?) })?;
    output.finish();
    let reference = format!("{}@{}", pulled.name, pulled.digest);
    output.result(&reference);
    output.json(&json!({"reason": "finished", "image": reference, "layers": pulled.layers}));
    Ok(())
}
