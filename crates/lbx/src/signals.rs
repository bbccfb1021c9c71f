//! SIGINT and SIGTERM: the first asks the work to stop and to remove what it had begun, the second ends the process.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use lbx_build::Cancel;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit;
use crate::failure::Failure;
use crate::render::Output;

/// How long work that was given up may take to remove what it had begun. A layer can have a million files; what is
/// not removed by then, the next lbx removes.
const CLEAN_UP_WITHIN: Duration = Duration::from_mins(1);

/// How long threads are waited for that have nothing to remove: one that asks for an address sees no switch.
const THREADS_WITHIN: Duration = Duration::from_secs(2);

/// After how long the user is told what is being waited for.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// How often it is asked whether all is removed.
const EVERY: Duration = Duration::from_millis(5);

/// Runs `work`, and lets SIGINT and SIGTERM ask it to stop; the second one ends the process at once. Returns when
/// what was given up is removed.
pub(crate) fn until_signal<T>(
    output: &Arc<Output>,
    cancel: &Cancel,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let runtime = runtime(Builder::new_multi_thread().worker_threads(2))?;
    let stopped_by = watch(Arc::clone(output), cancel.clone())?;
    let result = runtime.block_on(work);
    let since = Instant::now();
    while lbx_image::is_working() && since.elapsed() < CLEAN_UP_WITHIN {
        std::thread::sleep(EVERY);
    }
    runtime.shutdown_timeout(THREADS_WITHIN);
    with_signal(result, stopped_by.get().copied())
}

fn runtime(builder: &mut Builder) -> Result<Runtime, Failure> {
    builder.enable_all().build().map_err(|error| {
        Failure::new(exit::SYSTEM, format!("cannot start the asynchronous runtime: {error}"), None)
    })
}

/// Listens in a thread of its own, which hears the second signal whatever else is busy. What it returns holds the
/// exit code of the first one.
fn watch(output: Arc<Output>, cancel: Cancel) -> Result<Arc<OnceLock<u8>>, Failure> {
    let runtime = runtime(&mut Builder::new_current_thread())?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?)
    };
    let stopped_by = Arc::new(OnceLock::new());
    let first = Arc::clone(&stopped_by);
    // It ends with the process.
    std::thread::spawn(move || {
        runtime.block_on(async {
            let code = next(&mut interrupt, &mut terminate).await;
            // Before the work hears of it: whoever asks for the code has been cancelled.
            let _ = first.set(code);
            cancel.cancel();
            let second = next(&mut interrupt, &mut terminate);
            let mut second = std::pin::pin!(second);
            if let Ok(code) = tokio::time::timeout(TELL_AFTER, &mut second).await {
                leave(code);
            }
            output.finish();
            output.note("removing what was begun; a second ^C leaves it to the next lbx");
            leave(second.await);
        });
    });
    Ok(stopped_by)
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind)
        .map_err(|error| Failure::new(exit::SYSTEM, format!("cannot listen for signals: {error}"), None))
}

/// Waits for a signal, and returns its exit code.
async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> u8 {
    tokio::select! {
        _ = interrupt.recv() => exit::INTERRUPTED,
        _ = terminate.recv() => exit::TERMINATED,
    }
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
