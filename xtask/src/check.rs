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

/// What `cargo run` tells this program about its own package. A build script that reads these of its package is run again
/// when they change here, so without this every task would build ring, and what needs it, twice.
const OF_THIS_PACKAGE: [&str; 6] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_PKG_NAME",
    "CARGO_PKG_VERSION_MAJOR",
    "CARGO_PKG_VERSION_MINOR",
    "CARGO_PKG_VERSION_PATCH",
    "CARGO_PKG_VERSION_PRE",
];

/// A cargo of the toolchain that this task was built with.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(workspace::root());
    for name in OF_THIS_PACKAGE {
        command.env_remove(name);
    }
    command
}

fn step(name: &str, command: &mut Command) -> Result<()> {
    println!("== {name}");
    process::run(command)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_cargo_is_not_told_about_the_package_of_this_program() {
        let cargo = command(&["build"]);
        for name in OF_THIS_PACKAGE {
            assert!(cargo.get_envs().any(|variable| variable == (OsStr::new(name), None)), "{name}");
        }
    }
}
