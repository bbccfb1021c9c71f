//! One module a command.

pub(crate) mod build;
pub(crate) mod doctor;
pub(crate) mod pull;
pub(crate) mod schema;

use lbx_build::Host;

use crate::environment::Environment;
use crate::exit;
use crate::failure::Failure;

/// What this host offers to a build, or why it offers nothing.
fn host(environment: &Environment) -> Result<Host, Failure> {
    let cache_dir = environment.cache_dir.clone().map_err(|message| {
        let hint = "set LBX_CACHE_DIR to a folder that you can write to".to_owned();
        Failure::new(exit::SYSTEM, message, Some(hint))
    })?;
    Ok(Host {
        launcher: lbx_sandbox::Launcher::current_exe(),
        cache_dir,
        ca_bundle: environment.ca_bundle.clone(),
        pip_environment: environment.pip.clone(),
        proxy: environment.proxy.clone(),
    })
}
