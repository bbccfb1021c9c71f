//! What a host denies, put into words and into JSON: the same for `lbx doctor` and at the end of every sandbox error.

use lbx_sandbox::{Backend, Error, Finding, Outcome};
use serde_json::{Value, json};

use crate::render::printable;

/// What is denied, when that is why a command failed.
#[derive(Debug, Default)]
pub(crate) struct Denials {
    findings: Vec<Finding>,
    backends: Vec<(Backend, String)>,
}

impl Denials {
    /// What stands behind a sandbox's error; nothing when the host has no part in it.
    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::Setup { diagnosis, others, .. } | Error::TooWeak { diagnosis, others, .. } => {
                let findings = diagnosis.iter().flat_map(|diagnosis| diagnosis.problems().cloned()).collect();
                Self { findings, backends: others.clone() }
            }
            _ => Self::default(),
        }
    }

    /// For people, a line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let backends = self.backends.iter().map(|(backend, why)| denied_backend(*backend, why));
        self.findings.iter().flat_map(finding_lines).chain(backends).collect()
    }

    /// For programs, an object each.
    pub(crate) fn json(&self) -> Vec<Value> {
        let backends = self.backends.iter().map(|(backend, why)| json!({"backend": backend, "why": why}));
        self.findings.iter().map(finding_json).chain(backends).collect()
    }

    /// What to do, where the administrator can do it.
    pub(crate) fn hint(&self) -> Option<String> {
        let is_fixable = self.findings.iter().any(|finding| finding.remedy.is_some());
        is_fixable.then(|| {
            "`lbx doctor --fix` prints what to change on this machine, and with --apply changes it".to_owned()
        })
    }
}

/// A backend that does not work.
pub(crate) fn denied_backend(backend: Backend, why: &str) -> String {
    format!("denied  backend {backend}: {}", printable(why))
}

/// What was found about one layer.
pub(crate) fn finding_lines(finding: &Finding) -> Vec<String> {
    let mark = match finding.outcome {
        Outcome::Allowed => "ok     ",
        Outcome::Denied(_) => "denied ",
        Outcome::NotTried => "skipped",
    };
    // The mark says how it went; the finding need not say it again.
    let text = match finding.outcome {
        Outcome::Denied(_) => finding.to_string().replacen(": denied: ", ": ", 1),
        Outcome::Allowed | Outcome::NotTried => finding.layer.to_string(),
    };
    let mut lines = vec![format!("{mark} {}", printable(&text))];
    lines.extend(finding.fix.iter().map(|fix| format!("        fix: {}", printable(fix))));
    lines.extend(loss(finding).map(|loss| format!("        lost: {loss}")));
    lines
}

/// The same as an object.
pub(crate) fn finding_json(finding: &Finding) -> Value {
    let (outcome, failure) = match &finding.outcome {
        Outcome::Allowed => ("allowed", None),
        Outcome::Denied(failure) => ("denied", Some(failure)),
        Outcome::NotTried => ("not-tried", None),
    };
    json!({
        "layer": finding.layer,
        "outcome": outcome,
        "call": failure.map(|failure| &failure.call),
        "errno": failure.map(lbx_sandbox::Failure::errno_name),
        "cause": finding.cause,
        "fix": finding.fix,
        "lost": loss(finding),
        "remedy": finding.remedy,
    })
}

/// What goes without it. Nothing is lost by what works.
fn loss(finding: &Finding) -> Option<&'static str> {
    matches!(finding.outcome, Outcome::Denied(_)).then(|| finding.layer.loss()).flatten()
}
