//! How a command fails: the error with its causes, the hint, and the exit code.

use std::error::Error;

use lbx_build::ErrorKind;

use crate::diagnosis::Denials;
use crate::exit;

/// Why a command ends without success, ready to be shown.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What failed, with its causes, in one line.
    pub(crate) message: String,
    /// Another program's own words, such as pip's, shown before the message.
    pub(crate) output: Option<String>,
    /// What the user can do.
    pub(crate) hint: Option<String>,
    /// What this host denies, when that is the cause.
    pub(crate) diagnosis: Box<Denials>,
    /// The exit code.
    pub(crate) code: u8,
}

impl Failure {
    /// A failure without causes.
    pub(crate) fn new(code: u8, message: impl Into<String>, hint: Option<String>) -> Self {
        Self { message: message.into(), output: None, hint, diagnosis: Box::default(), code }
    }
}

impl Failure {
    /// The same, with what it was in the way of.
    pub(crate) fn with_context(self, context: &str) -> Self {
        Self { message: format!("{context}: {}", self.message), ..self }
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
            ErrorKind::Checks => exit::CHECKS,
            ErrorKind::System => exit::SYSTEM,
            ErrorKind::Interrupted => exit::INTERRUPTED,
        };
        let output = match &error {
            lbx_build::Error::Pip { output, .. }
            | lbx_build::Error::PipNoSpace { output, .. }
            | lbx_build::Error::Fetch { output, .. }
            | lbx_build::Error::Build { output, .. } => Some(output.clone()),
            lbx_build::Error::Packages(error) => match &**error {
                lbx_build::PackagesError::Failed { output, .. } => Some(output.clone()),
                _ => None,
            },
            lbx_build::Error::Bytecode(error) => match &**error {
                lbx_build::BytecodeError::Failed { output, .. } => Some(output.clone()),
                _ => None,
            },
            _ => None,
        };
        let diagnosis = match &error {
            lbx_build::Error::Sandbox(error) => Denials::of(error),
            _ => Denials::default(),
        };
        let hint = error.hint().or_else(|| diagnosis.hint());
        Self { message: chain(&error), output, hint, diagnosis: Box::new(diagnosis), code }
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
