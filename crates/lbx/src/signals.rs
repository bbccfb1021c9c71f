//! SIGINT and SIGTERM: the first asks the work to stop and to remove what it had begun, the second ends the process.
//! While a command of the user's runs in the foreground, signals are its own.

use std::future::{Future, pending};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use lbx_build::{Cancel, Link};
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
    let stopped_by = watch(Arc::clone(output), cancel.clone(), None)?;
    until(&stopped_by, work)
}

/// The same for work that runs a command in the foreground. While it runs, signals reach it through `link`; with a
/// terminal, the one that tells of another size does, and the one that the terminal is gone.
pub(crate) fn in_foreground<T>(
    output: &Arc<Output>,
    cancel: &Cancel,
    link: &Link,
    on_terminal: bool,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let foreground = Foreground { link: link.clone(), on_terminal };
    let stopped_by = watch(Arc::clone(output), cancel.clone(), Some(foreground))?;
    until(&stopped_by, work)
}

/// Runs `work` to its end; `stopped_by` holds the exit code of the signal that stopped it, if one did.
fn until<T>(stopped_by: &OnceLock<u8>, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = runtime(Builder::new_multi_thread().worker_threads(2))?;
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
fn watch(
    output: Arc<Output>,
    cancel: Cancel,
    foreground: Option<Foreground>,
) -> Result<Arc<OnceLock<u8>>, Failure> {
    let runtime = runtime(&mut Builder::new_current_thread())?;
    let mut signals = {
        let _entered = runtime.enter();
        Signals::listen(foreground)?
    };
    let stopped_by = Arc::new(OnceLock::new());
    let first = Arc::clone(&stopped_by);
    // It ends with the process.
    std::thread::spawn(move || {
        runtime.block_on(async {
            let code = signals.next().await;
            // Before the work hears of it: whoever asks for the code has been cancelled.
            let _ = first.set(code);
            cancel.cancel();
            let second = signals.next();
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

/// A command that is to get signals itself while it runs.
struct Foreground {
    link: Link,
    on_terminal: bool,
}

/// What is listened for.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// That the terminal is gone, and that it has another size.
    of_terminal: Option<(Signal, Signal)>,
    link: Option<Link>,
}

impl Signals {
    fn listen(foreground: Option<Foreground>) -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(exit::SYSTEM, format!("cannot listen for signals: {error}"), None)
            })
        };
        let on_terminal = foreground.as_ref().is_some_and(|foreground| foreground.on_terminal);
        // Elsewhere the first one keeps its meaning, which nohup takes away.
        let of_terminal = on_terminal
            .then(|| Ok::<_, Failure>((listen(SignalKind::hangup())?, listen(SignalKind::window_change())?)))
            .transpose()?;
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            of_terminal,
            link: foreground.map(|foreground| foreground.link),
        })
    }

    /// Waits for a signal that is no command's, and returns its exit code.
    async fn next(&mut self) -> u8 {
        loop {
            let kind = self.any().await;
            let reached = match &self.link {
                Some(link) if kind == SignalKind::window_change() => {
                    link.resize();
                    true
                }
                Some(link) => link.signal(kind.as_raw_value()),
                None => false,
            };
            if !reached {
                // Signals have small numbers.
                return exit::SIGNALLED + u8::try_from(kind.as_raw_value()).unwrap_or_default();
            }
        }
    }

    async fn any(&mut self) -> SignalKind {
        let of_terminal = async {
            let Some((hangup, window_change)) = &mut self.of_terminal else { return pending().await };
            tokio::select! {
                _ = hangup.recv() => SignalKind::hangup(),
                _ = window_change.recv() => SignalKind::window_change(),
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            kind = of_terminal => kind,
        }
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
