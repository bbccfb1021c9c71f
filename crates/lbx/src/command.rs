//! One module a command.

pub(crate) mod build;
pub(crate) mod doctor;
pub(crate) mod pull;
pub(crate) mod schema;

use std::future::Future;
use std::time::Duration;

use lbx_build::{Cancel, Host};
use tokio::signal::unix::{SignalKind, signal};

use crate::environment::Environment;
use crate::exit;
use crate::failure::Failure;

/// How long cancelled work may take to remove what it had begun.
const CLEAN_UP_WITHIN: Duration = Duration::from_secs(2);

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

/// Runs `work`, and lets SIGINT and SIGTERM ask it to stop; the second one ends the process at once.
fn until_signal<T>(cancel: &Cancel, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::new(exit::SYSTEM, format!("cannot start the asynchronous runtime: {error}"), None)
    })?;
    let result = runtime.block_on(async {
        let mut work = std::pin::pin!(work);
        let mut stopped_by = None;
        let (mut interrupt, mut terminate) = listeners()?;
        loop {
            let code = tokio::select! {
                result = &mut work => return with_signal(result, stopped_by),
                _ = interrupt.recv() => exit::INTERRUPTED,
                _ = terminate.recv() => exit::TERMINATED,
            };
            if stopped_by.is_some() {
                leave(code);
            }
            stopped_by = Some(code);
            cancel.cancel();
        }
    });
    // What was cancelled removes what it had begun; a thread that does not see the switch is not waited for.
    runtime.shutdown_timeout(CLEAN_UP_WITHIN);
    result
}

fn listeners() -> Result<(tokio::signal::unix::Signal, tokio::signal::unix::Signal), Failure> {
    let listen = |kind| {
        signal(kind)
            .map_err(|error| Failure::new(exit::SYSTEM, format!("cannot listen for signals: {error}"), None))
    };
    Ok((listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?))
}

/// After a signal, the exit code says which one it was.
fn with_signal<T>(result: Result<T, Failure>, stopped_by: Option<u8>) -> Result<T, Failure> {
    result.map_err(|mut failure| {
        if let (Some(code), exit::INTERRUPTED) = (stopped_by, failure.code) {
            failure.code = code;
        }
        failure
    })
}

/// Ends the process without waiting for anything: the user asked twice. Sandboxes die with it.
#[expect(clippy::exit, reason = "the second signal asks for exactly this")]
fn leave(code: u8) -> ! {
    std::process::exit(i32::from(code))
}
