//! `lbx doctor --fix`: what the machine's administrator can change so that builds are isolated, as a shell script; and,
//! when asked to, the change itself.

use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus};

use lbx_sandbox::{Diagnosis, Finding, Launcher, Steps};
use serde_json::json;

use crate::diagnosis::{finding_json, finding_lines};
use crate::environment::Environment;
use crate::exit;
use crate::failure::Failure;
use crate::render::{Output, printable};

/// What ends the text of a file in the script. No file has such a line.
const END: &str = "END_OF_FILE";

/// One change, with the denial that it takes away.
struct Fix {
    finding: Finding,
    steps: Steps,
}

/// Prints the changes, or makes them and looks whether they helped.
pub(super) fn run(output: &Output, apply: bool, environment: &Environment) -> Result<u8, Failure> {
    let diagnosis = diagnose()?;
    let fixes = fixes(&diagnosis, &environment.program);
    if fixes.is_empty() {
        say_nothing_to_fix(output, &diagnosis);
        return Ok(exit::SUCCESS);
    }
    let script = script(&fixes);
    if !apply {
        output.json(&json!({
            "reason": "fix", "script": script,
            "steps": fixes.iter().map(|fix| &fix.steps).collect::<Vec<_>>(),
        }));
        output.result(script.trim_end());
        return Ok(exit::SUCCESS);
    }
    make(&script, environment.is_root)?;
    let after = diagnose()?;
    let denied: Vec<_> = fixes.iter().filter_map(|fix| still_denied(&after, fix)).collect();
    output.json(&json!({
        "reason": "fixed", "helped": denied.is_empty(),
        "diagnosis": after.findings.iter().map(finding_json).collect::<Vec<_>>(),
    }));
    for line in denied.iter().flat_map(|finding| finding_lines(finding)) {
        output.result(&line);
    }
    for fix in fixes.iter().filter(|fix| still_denied(&after, fix).is_none()) {
        output.result(&format!("ok      {} is allowed now", fix.finding.layer));
    }
    if denied.is_empty() {
        output.result("`lbx doctor` says what there is now.");
        return Ok(exit::SUCCESS);
    }
    output.result("The changes were made, and did not help.");
    Ok(exit::SANDBOX)
}

fn diagnose() -> Result<Diagnosis, Failure> {
    Ok(Launcher::current_exe().diagnose(None).map_err(lbx_build::Error::from)?)
}

fn fixes(diagnosis: &Diagnosis, program: &Path) -> Vec<Fix> {
    let fixes = diagnosis.remedies().into_iter().filter_map(|remedy| {
        let finding = diagnosis.problems().find(|finding| finding.remedy.as_ref() == Some(&remedy))?.clone();
        Some(Fix { finding, steps: remedy.steps(program) })
    });
    fixes.collect()
}

/// In comments, because the output may be on its way to a shell.
fn say_nothing_to_fix(output: &Output, diagnosis: &Diagnosis) {
    output.json(&json!({"reason": "fix", "script": null, "steps": []}));
    let denied: Vec<_> = diagnosis.problems().flat_map(finding_lines).collect();
    if denied.is_empty() {
        output.result("# There is nothing to fix: this host allows everything that a sandbox needs.");
        return;
    }
    output.result("# There is nothing to fix by a setting of this machine. What is denied, and what to do:");
    for line in denied {
        output.result(&comment(&line));
    }
}

fn still_denied<'a>(after: &'a Diagnosis, fix: &Fix) -> Option<&'a Finding> {
    after.problems().find(|finding| finding.layer == fix.finding.layer)
}

/// Runs the script, the same that is printed, as root: with sudo, which may ask for a password on the terminal, when
/// this is another user. What it says goes to stderr; stdout is for results.
fn make(script: &str, is_root: bool) -> Result<(), Failure> {
    let shell = ["sh", "-c", script];
    let (program, arguments) = if is_root { ("sh", &shell[1..]) } else { ("sudo", &shell[..]) };
    let ended = Command::new(program).args(arguments).stdout(io::stderr()).status();
    let by_hand = "run it yourself, as root: `lbx doctor --fix` prints it".to_owned();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let message = format!("the changes could not be made: {program} ended with {}", how(status));
            Err(Failure::new(exit::SYSTEM, message, Some(by_hand)))
        }
        Err(error) => {
            let message = format!("cannot become root to make the changes: cannot run {program}: {error}");
            Err(Failure::new(exit::SYSTEM, message, Some(by_hand)))
        }
    }
}

fn how(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit status {code}"))
}

/// The changes as a script for root's shell, which can be read before it is run.
fn script(fixes: &[Fix]) -> String {
    let mut script = "#!/bin/sh\n\
        # What lets lbx isolate builds on this machine. Read it, then run it as root:\n\
        #   lbx doctor --fix | sudo sh\n\
        # `lbx doctor --fix --apply` does the same and looks whether it helped.\n\
        set -eu\n\
        PATH=\"$PATH:/usr/sbin:/sbin\"\n"
        .to_owned();
    script.extend(fixes.iter().map(Fix::commands));
    script
}

impl Fix {
    /// The part of the script that makes this change.
    fn commands(&self) -> String {
        let Steps { why, file: (path, content), command } = &self.steps;
        let path = quoted(&path.display().to_string());
        let command: Vec<_> = command.iter().map(|argument| quoted(argument)).collect();
        format!(
            "\n{}\n{}\ncat > {path} <<'{END}'\n{content}{END}\nchmod 644 {path}\n{}\n",
            comment(&format!("Denied: {}", self.finding).replacen(": denied: ", ": ", 1)),
            comment(&format!("This {why}.")),
            command.join(" ")
        )
    }
}

/// A line that a shell passes over, whatever is in it.
fn comment(text: &str) -> String {
    format!("# {}", printable(text).replace('\n', " "))
}

/// An argument as a shell has it.
fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-=".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_arguments_and_comments_for_what_they_are() {
        assert_eq!(quoted("/etc/sysctl.d/90-lbx.conf"), "/etc/sysctl.d/90-lbx.conf");
        assert_eq!(quoted("it's $(a) b"), r"'it'\''s $(a) b'");
        assert_eq!(quoted(""), "''");
        assert_eq!(comment("a\nreboot\r\u{1b}"), "# a reboot\\r\\u{1b}");
    }
}
