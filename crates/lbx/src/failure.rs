//! How a command fails: the error with its causes, the hint, and the exit code.

use std::error::Error;

use lbx_build::ErrorKind;

use crate::exit;
use crate::render::printable;

/// Why a command ends without success, ready to be shown.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What failed, with its causes, in one line.
    pub(crate) message: String,
    /// Another program's own words, such as pip's, shown before the message.
    pub(crate) output: Option<String>,
    /// What the user can do.
    pub(crate) hint: Option<String>,
    /// What this host denies, line by line, when that is the cause.
    pub(crate) diagnosis: Vec<String>,
    /// The exit code.
    pub(crate) code: u8,
}

impl Failure {
    /// A failure without causes.
    pub(crate) fn new(code: u8, message: impl Into<String>, hint: Option<String>) -> Self {
        Self { message: message.into(), output: None, hint, diagnosis: Vec::new(), code }
    }
}

impl From<lbx_build::Error> for Failure {
    fn from(error: lbx_build::Error) -> Self {
        let code = match error.kind() {
            ErrorKind::Project => exit::PROJECT,
            ErrorKind::Image => exit::IMAGE,
            ErrorKind::Sandbox => exit::SANDBOX,
            ErrorKind::Requirements => exit::REQUIREMENTS,
            ErrorKind::Artifact => exit::ARTIFACT,
            ErrorKind::System => exit::SYSTEM,
            ErrorKind::Interrupted => exit::INTERRUPTED,
        };
        let output = match &error {
            lbx_build::Error::Pip { output, .. } | lbx_build::Error::PipNoSpace { output, .. } => {
                Some(output.clone())
            }
            _ => None,
        };
        let diagnosis = match &error {
            lbx_build::Error::Sandbox(lbx_sandbox::Error::Setup { diagnosis, others, .. }) => {
                let problems = diagnosis.iter().flat_map(|found| crate::command::doctor::problems(found));
                let others = others.iter().map(|why| format!("denied  backend {}", printable(why)));
                problems.chain(others).collect()
            }
            _ => Vec::new(),
        };
        Self { message: chain(&error), output, hint: error.hint(), diagnosis, code }
    }
}

/// An error and its causes, joined; a cause that its effect already says is not said twice.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = error.source();
    }
    message
}
