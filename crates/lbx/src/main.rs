//! The command line: arguments in, text and exit codes out. What it does is done in `lbx-build` and below.
//!
//! This is the one place that reads the environment, speaks to the user and turns errors into exit codes.

mod arguments;
mod command;
mod diagnosis;
mod environment;
mod exit;
mod failure;
mod indexes;
mod limits;
mod render;
mod signals;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};
use crate::environment::Environment;

fn main() -> ExitCode {
    // Before anything else: this process may be a sandbox's first process, which must have one thread.
    lbx_sandbox::init_if_child();
    lbx_sandbox::give_back_large_memory();
    let arguments = Arguments::parse();
    let environment = Environment::read();
    start_log(arguments.verbose, environment.colours);
    let code = match &arguments.command {
        Command::Build(build) => command::build::run(&arguments, build, &environment),
        Command::Lock(lock) => command::lock::run(&arguments, lock, &environment),
        Command::Vendor(vendor) => command::vendor::run(&arguments, vendor, &environment),
        Command::Run(run) => command::run::run(&arguments, run, &environment),
        Command::Shell(session) => command::run::shell(&arguments, session, &environment),
        Command::Pull(pull) => command::pull::run(&arguments, pull, &environment),
        Command::Diff(diff) => command::diff::run(&arguments, diff, &environment),
        Command::Images => command::images::run(&arguments, &environment),
        Command::Check(check) => command::check::run(&arguments, check, &environment),
        Command::Cache(cache) => command::cache::run(&arguments, cache, &environment),
        Command::Explain(explain) => command::explain::run(&arguments, explain, &environment),
        Command::Doctor(doctor) => command::doctor::run(&arguments, doctor, &environment),
        Command::Schema(schema) => command::schema::run(schema),
    };
    ExitCode::from(code)
}

/// Starts the developers' log, which is off unless `-v` asks for it.
fn start_log(verbose: u8, colours: bool) {
    let level = match verbose {
        0 => return,
        1 => "lbx=debug,lbx_build=debug,lbx_image=debug,lbx_index=debug,lbx_wheel=debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::new(level);
    // The only way to fail is a second logger, and there is none.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .without_time()
        .try_init();
}
