//! `lbx vendor`: all that a locked build needs, in one place.

use std::sync::Arc;

use lbx_build::{Cancel, Destination, Options, Vendored, bytes};
use lbx_plan::Plan;
use serde_json::json;

use super::{host_for, observer, project};
use crate::arguments::{Arguments, Vendor};
use crate::environment::Environment;
use crate::exit;
use crate::failure::Failure;
use crate::indexes;
use crate::render::{Output, short_path};
use crate::signals::until_signal;

/// Writes it, and prints where it is.
pub(crate) fn run(arguments: &Arguments, vendor: &Vendor, environment: &Environment) -> u8 {
    let output = Arc::new(Output::new(arguments));
    match try_run(&output, vendor, environment) {
        Ok(()) => exit::SUCCESS,
        Err(failure) => output.failure(&failure),
    }
}

fn try_run(output: &Arc<Output>, vendor: &Vendor, environment: &Environment) -> Result<(), Failure> {
    let project = project::of(output, &vendor.what, &vendor.place, None, environment)?;
    let mut plans = Vec::new();
    for arch in project::architectures(&project, &vendor.place) {
        let overrides = project::overrides(&vendor.place, &vendor.what.names, Some(arch));
        let plan = Plan::new(&project.config, &project.files, &overrides);
        plans.push(plan.map_err(lbx_build::Error::from)?);
    }
    let destination = Destination::Folder(project.root.join("dist"));
    let options = Options {
        offline: vendor.place.offline,
        locked: true,
        check: false,
        ..Options::new(destination, vendor.limits.with_defaults())
    };
    let mut host = host_for(&vendor.place, environment)?;
    host.indexes = indexes::settings(environment, host.indexes.store, host.ca_bundle.as_deref())?;
    let cancel = Cancel::new();
    let (observer, destination) = (observer(output), environment.current_dir.join(&vendor.destination));
    let Vendored { files, size } = until_signal(output, &cancel, async {
        let to = destination.clone();
        Ok(lbx_build::vendor(project, plans, host, options, to, &cancel, &observer).await?)
    })?;
    output.finish();
    output.note(&format!("vendored {files} files, {}", bytes(size)));
    let path = short_path(&destination, &environment.current_dir);
    output.result(&path);
    output.json(&json!({"reason": "finished", "path": path, "files": files, "size": size}));
    Ok(())
}
