//! Development tasks: `cargo xtask <command>`. One module per command; this file only chooses.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a development tool speaks to its user")]

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod check;
mod debs;
mod demo;
mod equivalence;
mod image;
mod kernel;
mod process;
mod provision;
mod serve;
mod test;
mod tidy;
mod unprivileged;
mod wheels;
mod workspace;

/// What every task returns: the reader is a person at a terminal, so an error is its text.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Development tasks of lbx.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure lbx and its peers side by side, into target/bench.json
    Bench(bench::Arguments),
    /// One measured step of the bench, in a process of its own
    #[command(hide = true)]
    BenchStep(bench::Step),
    /// Check format, rules, lints and documentation
    Check,
    /// Set everything up, and build the examples
    Demo,
    /// Compare what lbx packs of forty packages with what pip installs, into target/equivalence.json
    Equivalence(equivalence::Arguments),
    /// Assemble the stand-in images from Debian packages and PyPI
    Image(image::Arguments),
    /// Install the Debian packages that a task needs, or print the command that does
    Provision(provision::Arguments),
    /// Set everything up, and run every test
    Test(test::Arguments),
    /// Check the rules of ARCHITECTURE.md that a machine can check
    Tidy,
}

fn main() -> ExitCode {
    // The bench starts sandboxes, and this program is then their first process.
    lbx_sandbox::init_if_child();
    let done = match Arguments::parse().task {
        Task::Bench(arguments) => bench::run(&arguments),
        Task::BenchStep(step) => bench::step(&step),
        Task::Check => check::run(),
        Task::Demo => demo::run(),
        Task::Equivalence(arguments) => equivalence::run(&arguments),
        Task::Image(arguments) => image::run(&arguments),
        Task::Provision(arguments) => provision::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Tidy => tidy::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  caused by: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}
