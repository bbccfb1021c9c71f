//! What came of an import, in words: what a stranger wrote, read with bounds.

use serde::Deserialize;

use crate::base::{self, Ended, Output};
use crate::check::{Check, Finding, Severity};
use crate::limits::Breach;

/// Seconds that Lambda gives a function to be ready, all in all.
const INIT: f64 = 10.0;
/// How many lines of a traceback are shown, its last ones: that is where Python says what is wrong.
const LINES: usize = 40;
/// How many characters of a line.
const WIDTH: usize = 500;
/// What is not known here, in a few words.
const UNKNOWN: &str =
    "the function's own variables, its role and the network are not there while this is checked";

/// What the program writes.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Attempt {
    outcome: Outcome,
    #[serde(default)]
    message: String,
    #[serde(default)]
    traceback: String,
    /// The module that is missing.
    missing: Option<String>,
    /// Whether it is a variable of the environment that is missing.
    #[serde(default)]
    variable: bool,
    #[serde(default)]
    seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Fine,
    Malformed,
    BuiltIn,
    NoAttribute,
    NotCallable,
    ImportError,
    SyntaxError,
    Raised,
}

/// What is wrong: with the import, or with the end that it came to.
pub(super) fn findings(handler: &str, attempt: Option<&Attempt>, output: &Output) -> Vec<Finding> {
    let Some(attempt) = attempt else { return vec![ended(handler, output)] };
    let mut found: Vec<Finding> = attempt.finding(handler).into_iter().collect();
    if attempt.seconds > INIT {
        let message = format!(
            "importing `{handler}` takes longer here than the {INIT:.0} s that Lambda gives a function to start"
        );
        found.push(Finding::new(Severity::Warning, Check::Import, message));
    }
    found
}

impl Attempt {
    fn finding(&self, handler: &str) -> Option<Finding> {
        let (module, attribute) = handler.rsplit_once('.').unwrap_or((handler, ""));
        let said = line(&self.message);
        let (severity, message) = match self.outcome {
            Outcome::Fine => return None,
            Outcome::Malformed => {
                (Severity::Error, format!("`{handler}` is no handler, which is `module.function`"))
            }
            Outcome::BuiltIn => {
                let message =
                    format!("`{handler}` is of a module that Python has built in, which Lambda refuses");
                (Severity::Error, message)
            }
            Outcome::NoAttribute => {
                (Severity::Error, format!("`{module}` has no `{attribute}`, its handler"))
            }
            Outcome::NotCallable => {
                (Severity::Error, format!("`{attribute}` of `{module}`, its handler, cannot be called"))
            }
            Outcome::ImportError | Outcome::SyntaxError => {
                (Severity::Error, format!("`{handler}` cannot be imported: {said}"))
            }
            Outcome::Raised => (Severity::Warning, format!("importing `{handler}` fails here: {said}")),
        };
        let finding =
            Finding::new(severity, Check::Import, message).with_details(last_lines(&self.traceback));
        Some(match self.hint(module) {
            Some(hint) => finding.with_hint(hint),
            None => finding,
        })
    }

    fn hint(&self, module: &str) -> Option<String> {
        match self.outcome {
            Outcome::ImportError => {
                let missing = line(self.missing.as_deref()?);
                let module = module.replace('/', ".");
                if module == missing || module.starts_with(&format!("{missing}.")) {
                    let path = missing.replace('.', "/");
                    return Some(format!(
                        "there is no `{path}.py` and no `{path}/`: the handler's module is looked for from the root of the zip"
                    ));
                }
                Some(format!(
                    "neither the function, nor its layers, nor the runtime have `{missing}`: add a requirement that has it"
                ))
            }
            Outcome::Raised if self.variable => {
                Some("the function's own variables are not known here, and it may have this one".to_owned())
            }
            Outcome::Raised => Some(UNKNOWN.to_owned()),
            _ => None,
        }
    }
}

/// An import that has not come back.
fn ended(handler: &str, output: &Output) -> Finding {
    let how = base::how(&output.ended);
    let (severity, message, hint) = match output.ended {
        Ended::Stopped(Breach::Total(_) | Breach::Silence(_)) => {
            (Severity::Warning, format!("importing `{handler}` does not end: {how}"), Some(UNKNOWN))
        }
        Ended::Stopped(_) => (Severity::Warning, format!("importing `{handler}` was {how}"), None),
        Ended::Itself(_) => (Severity::Error, format!("importing `{handler}` ends Python: {how}"), None),
    };
    let finding = Finding::new(severity, Check::Import, message).with_details(last_lines(&output.text));
    match hint {
        Some(hint) => finding.with_hint(hint),
        None => finding,
    }
}

/// The last lines of a text, each of a length that can be read; none of nothing.
fn last_lines(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let left_out = lines.len().saturating_sub(LINES);
    let mark = (left_out > 0).then(|| format!("({left_out} lines before)"));
    let shown = lines.into_iter().skip(left_out).map(line);
    let text = mark.into_iter().chain(shown).collect::<Vec<_>>().join("\n");
    (!text.is_empty()).then_some(text)
}

/// One line, of a length that can be read.
fn line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(WIDTH).collect()
}

#[cfg(test)]
mod tests {
    use lbx_sandbox::{End, Exit};

    use super::*;

    fn output(end: End) -> Output {
        let ended = Ended::Itself(Exit { end, usage: lbx_sandbox::Usage::default(), reached: None });
        Output { ended, text: "said\n".to_owned() }
    }

    fn found(json: &str) -> Vec<Finding> {
        findings("app.handler", Some(&serde_json::from_str(json).unwrap()), &output(End::Code(0)))
    }

    #[test]
    fn what_lambda_would_refuse_is_an_error_and_what_a_variable_may_mend_a_warning() {
        assert_eq!(found(r#"{"outcome": "fine", "seconds": 9.9}"#), []);
        for outcome in
            ["malformed", "built-in", "no-attribute", "not-callable", "import-error", "syntax-error"]
        {
            let found = found(&format!(r#"{{"outcome": "{outcome}", "message": "x"}}"#));
            assert_eq!((found.len(), found[0].severity), (1, Severity::Error), "{outcome}");
        }
        let raised = found(r#"{"outcome": "raised", "message": "KeyError: 'TABLE'", "variable": true}"#);
        assert_eq!(raised[0].severity, Severity::Warning);
        assert!(raised[0].message.ends_with("KeyError: 'TABLE'"));
        assert!(raised[0].hint.as_ref().unwrap().contains("variables"));
    }

    #[test]
    fn a_module_that_is_missing_is_named() {
        let found =
            found(r#"{"outcome": "import-error", "message": "No module named 'six'", "missing": "six"}"#);
        assert!(found[0].hint.as_ref().unwrap().contains("have `six`"), "{found:?}");
    }

    #[test]
    fn an_import_that_takes_long_is_told() {
        let found = found(r#"{"outcome": "fine", "seconds": 10.1}"#);
        assert!(found[0].severity == Severity::Warning && found[0].message.contains("10 s"), "{found:?}");
    }

    #[test]
    fn an_end_without_a_word_is_an_error_and_one_at_a_limit_a_warning() {
        let crashed = findings("app.handler", None, &output(End::Signal(11)));
        assert_eq!(crashed[0].severity, Severity::Error);
        assert!(crashed[0].message.ends_with("killed by signal 11"));
        assert_eq!(crashed[0].details.as_deref(), Some("said"));
        let stopped = Output {
            ended: Ended::Stopped(Breach::Total(std::time::Duration::from_mins(1))),
            text: String::new(),
        };
        let stopped = findings("app.handler", None, &stopped);
        assert_eq!((stopped[0].severity, &stopped[0].details), (Severity::Warning, &None));
    }

    #[test]
    fn what_a_stranger_writes_is_cut() {
        let long =
            format!(r#"{{"outcome": "raised", "message": "{0}", "traceback": "{0}"}}"#, "x".repeat(100_000));
        let finding = &found(&long)[0];
        assert!(finding.message.len() < 600 && finding.details.as_ref().unwrap().len() <= WIDTH);
        let many = format!(r#"{{"outcome": "raised", "traceback": "{}end"}}"#, "x\\n".repeat(1000));
        let details = found(&many)[0].details.clone().unwrap();
        assert!(details.starts_with("(961 lines before)\nx\n") && details.ends_with("\nend"), "{details}");
    }
}
