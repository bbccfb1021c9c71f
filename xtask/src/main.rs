//! Development tasks: `cargo xtask <command>`. One module per command; this file only chooses.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a development tool speaks to its user")]

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod image;
mod process;
mod provision;
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
    /// Assemble the stand-in images from Debian packages and PyPI
    Image(image::Arguments),
    /// Install the Debian packages that a task needs, or print the command that does
    Provision(provision::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Image(arguments) => image::run(&arguments),
        Task::Provision(arguments) => provision::run(&arguments),
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
