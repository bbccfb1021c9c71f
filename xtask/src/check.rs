//! What is checked without running anything: format, lints, documentation and the rules of `tidy`.

use std::process::Command;

use crate::{Result, process, tidy, workspace};

/// Runs the checks, cheapest first.
pub(crate) fn run() -> Result<()> {
    step("format", &mut command(&["fmt", "--all", "--check"]))?;
    println!("== rules");
    tidy::run()?;
    let lints = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"];
    step("lints", &mut command(&lints))?;
    let mut documentation =
        command(&["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]);
    step("documentation", documentation.env("RUSTDOCFLAGS", "--deny warnings"))
}

/// A cargo of the toolchain that this task was built with.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(workspace::root());
    command
}

fn step(name: &str, command: &mut Command) -> Result<()> {
    println!("== {name}");
    process::run(command)
}
