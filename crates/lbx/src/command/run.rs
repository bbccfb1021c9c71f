//! `lbx run` and `lbx shell`: a command in the image, with the user's terminal or streams, and its exit code.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use lbx_build::{Cancel, Event, Link, Observer, Program, Project};
use lbx_image::Event as ImageEvent;
use lbx_plan::ImageChoice;
use lbx_sandbox::End;

use super::{host_for, project};
use crate::arguments::{Arguments, MessageFormat, Place, Run, Session};
use crate::environment::{self, Environment};
use crate::exit;
use crate::failure::{Failure, chain};
use crate::render::Output;
use crate::signals::in_foreground;

/// Runs a command, and ends as it does.
pub(crate) fn run(arguments: &Arguments, run: &Run, environment: &Environment) -> u8 {
    conclude(arguments, &run.session, Program::Command(run.command.clone()), environment)
}

/// Runs the image's shell, which needs somebody to talk to.
pub(crate) fn shell(arguments: &Arguments, session: &Session, environment: &Environment) -> u8 {
    conclude(arguments, session, Program::Shell, environment)
}

fn conclude(arguments: &Arguments, session: &Session, program: Program, environment: &Environment) -> u8 {
    let output = Arc::new(Output::new(arguments));
    let code = if arguments.message_format == MessageFormat::Json {
        let message = "with --message-format json, stdout is lbx's, and here it is the command's";
        Err(Failure::new(exit::USAGE, message, None))
    } else {
        try_run(&output, session, program, environment)
    };
    code.unwrap_or_else(|failure| output.failure(&failure))
}

fn try_run(
    output: &Arc<Output>,
    session: &Session,
    program: Program,
    environment: &Environment,
) -> Result<u8, Failure> {
    if program == Program::Shell && environment.terminal.is_none() {
        let message = "a shell needs a terminal, and stdin and stdout are not both one";
        let hint = "run a command: lbx run -- CMD".to_owned();
        return Err(Failure::new(exit::USAGE, message, Some(hint)));
    }
    let (root, choice) = place(output, &session.place, environment)?;
    let host = host_for(&session.place, environment)?;
    let session = lbx_build::Session {
        program,
        project: root,
        current_dir: environment.current_dir.clone(),
        write: session.write,
        network: session.network,
        terminal: environment.terminal.clone(),
        limits: session.limits.with_defaults(),
        offline: session.place.offline,
    };
    let (cancel, link, observer) = (Cancel::new(), Link::default(), observer(output));
    let end = in_foreground(output, &cancel, &link, session.terminal.is_some(), async {
        lbx_build::run(session, choice, host, &cancel, &link, &observer).await.map_err(failure)
    })?;
    let code = code(end.end);
    if let (1.., Some(limit)) = (code, end.limit) {
        output.note(&limit);
    }
    Ok(code)
}

/// The project's folder, and the image that `lbx build` would take. What the configuration names besides need not be
/// there.
fn place(
    output: &Output,
    place: &Place,
    environment: &Environment,
) -> Result<(PathBuf, ImageChoice), Failure> {
    let project = match project::find(place, environment)? {
        Some(path) => Project::open(&path)?,
        None => Project::with_config(
            &environment.current_dir,
            project::stand_in(output, place),
            environment::variable,
        )?,
    };
    let overrides = project::overrides(place, &[], None);
    let choice = ImageChoice::new(&project.config, &overrides).map_err(lbx_build::Error::from)?;
    Ok((project.root, choice))
}

/// Shows a pull, if there is one to be seen, and what isolation is missing. A command that starts is not announced.
fn observer(output: &Arc<Output>) -> Observer {
    let output = Arc::clone(output);
    let resolved = Mutex::new(None);
    Arc::new(move |event| {
        let mut resolved = resolved.lock().unwrap_or_else(PoisonError::into_inner);
        match &event {
            // It is said when something is fetched because of it.
            Event::Image(ImageEvent::Resolved { .. }) => *resolved = Some(event),
            Event::Image(ImageEvent::LayerStarted { .. } | ImageEvent::UnpackStarted { .. }) => {
                resolved.take().iter().for_each(|before| output.event(before));
                output.event(&event);
            }
            Event::Image(_) | Event::Isolated { .. } => output.event(&event),
            // From here on, the terminal is the command's.
            Event::ImageReady { .. } => output.finish(),
            _ => {}
        }
    })
}

/// How a failure is told: what was asked for is not the sandbox's fault.
fn failure(error: lbx_build::Error) -> Failure {
    use lbx_sandbox::Error;
    let code = match &error {
        lbx_build::Error::Sandbox(Error::ProgramNotFound { .. }) => exit::NOT_FOUND,
        lbx_build::Error::Sandbox(Error::Exec { .. }) => exit::NOT_EXECUTABLE,
        _ => return error.into(),
    };
    let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), chain);
    Failure::new(code, cause, None)
}

/// The exit code that tells how a command ended, as shells have it.
fn code(end: End) -> u8 {
    match end {
        // The kernel keeps eight bits of a code, and signals have small numbers.
        End::Code(code) => u8::try_from(code).unwrap_or(u8::MAX),
        End::Signal(signal) => exit::SIGNALLED.saturating_add(u8::try_from(signal).unwrap_or_default()),
    }
}
