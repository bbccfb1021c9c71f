//! One module a command.

pub(crate) mod build;
pub(crate) mod cache;
pub(crate) mod check;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod explain;
mod fix;
pub(crate) mod images;
pub(crate) mod lock;
mod memory;
mod project;
pub(crate) mod pull;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod vendor;

use std::path::PathBuf;
use std::sync::Arc;

use lbx_build::Host;
use lbx_sandbox::Launcher;

use crate::arguments::Place;
use crate::environment::{self, Environment};
use crate::exit;
use crate::failure::Failure;
use crate::render::Output;

/// Where the store is, or why there is no place for it.
fn cache_dir(environment: &Environment) -> Result<PathBuf, Failure> {
    environment.cache_dir.clone().map_err(|message| {
        let hint = "set LBX_CACHE_DIR to a folder that you can write to".to_owned();
        Failure::new(exit::SYSTEM, message, Some(hint))
    })
}

/// How sandboxes are started, with the programs of the user's own path.
fn launcher(environment: &Environment) -> Launcher {
    let launcher = Launcher::current_exe();
    if environment.path.is_empty() { launcher } else { launcher.with_path(environment.path.iter().cloned()) }
}

/// What this host offers to a build, or why it offers nothing.
fn host(environment: &Environment) -> Result<Host, Failure> {
    let ca_bundle = environment.ca_bundle.clone().map_err(|message| {
        let hint = "let it name a file of certificates in PEM, or unset it to trust the system's".to_owned();
        Failure::new(exit::SYSTEM, message, Some(hint))
    })?;
    let cache_dir = cache_dir(environment)?;
    // Only builds ask indexes, and only they fail where these are configured badly.
    let indexes = lbx_index::Settings::without_index(cache_dir.join("index"));
    Ok(Host {
        launcher: launcher(environment),
        backend: None,
        require: lbx_sandbox::Level::Partial,
        cache_dir,
        ca_bundle,
        indexes,
        variable: environment::variable,
        proxy: environment.proxy.clone(),
    })
}

/// The same with what the command line says of isolation.
fn host_for(place: &Place, environment: &Environment) -> Result<Host, Failure> {
    Ok(Host { backend: place.backend, require: place.require, ..host(environment)? })
}

/// An observer that shows what it sees.
fn observer(output: &Arc<Output>) -> lbx_build::Observer {
    let output = Arc::clone(output);
    Arc::new(move |event| output.event(&event))
}
