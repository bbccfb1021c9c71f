//! `cargo xtask bench`: lbx and its peers side by side, in one run, as medians and ratios.
//!
//! The numbers go to `target/bench.json`, one flat object, and to a table with what each must reach. A peer
//! that is not installed is skipped by name. Contestants take turns, so that a slow minute of the machine
//! hits all of them; every one of them is a process, and pays for its start.

mod dependencies;
mod host;
mod imports;
mod measure;
mod package;
mod packaging;
mod peak;
mod sandbox;
mod unpack;

use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

use crate::{Result, check, process, provision, serve, workspace};

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these rows, of all that there are; may be given several times. The numbers then go nowhere but to the table
    #[arg(long, value_name = "GROUP", value_enum)]
    only: Vec<Group>,
}

/// Rows that are measured together.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Group {
    Package,
    Sandbox,
    Dependencies,
    Host,
    Unpack,
    Packaging,
    Imports,
    Peak,
}

impl Arguments {
    fn wants(&self, group: Group) -> bool {
        self.only.is_empty() || self.only.contains(&group)
    }

    /// The same as words of a command line.
    fn words(&self) -> Vec<String> {
        use clap::ValueEnum;
        let names = self.only.iter().filter_map(Group::to_possible_value);
        names.flat_map(|value| ["--only".to_owned(), value.get_name().to_owned()]).collect()
    }
}

/// One measured step, in a process of its own.
#[derive(clap::Args)]
pub(crate) struct Step {
    #[command(subcommand)]
    step: StepKind,
}

#[derive(clap::Subcommand)]
enum StepKind {
    /// Wheels in the store to a finished zip
    Package(package::Arguments),
    /// Blobs in the store to trees
    Unpack(unpack::Arguments),
}

/// Runs one step.
pub(crate) fn step(step: &Step) -> Result<()> {
    match &step.step {
        StepKind::Package(arguments) => package::step(arguments),
        StepKind::Unpack(arguments) => unpack::step(arguments),
    }
}

/// A number, and what it must be.
struct Number {
    key: String,
    value: f64,
    /// At least this, or at most.
    bound: Bound,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// Not to be held against anything.
    Reported,
}

impl Number {
    fn reached(&self) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => self.value >= bound,
            Bound::AtMost(bound) => self.value <= bound,
            Bound::Reported => true,
        }
    }

    fn wanted(&self) -> String {
        match self.bound {
            Bound::AtLeast(bound) => format!("≥ {bound}"),
            Bound::AtMost(bound) => format!("≤ {bound}"),
            Bound::Reported => "-".to_owned(),
        }
    }
}

/// What every measurement adds to.
#[derive(Default)]
struct Results {
    numbers: Vec<Number>,
    skipped: Vec<String>,
}

impl Results {
    fn add(&mut self, key: impl Into<String>, value: f64, bound: Bound) {
        self.numbers.push(Number { key: key.into(), value, bound });
    }

    fn skip(&mut self, key: &str, peer: &str) {
        self.skipped.push(format!("{key}: {peer} is not installed"));
    }
}

/// Runs the command. A task that was built without optimisation builds itself with, and starts that.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if cfg!(debug_assertions) {
        println!(
            "== build lbx and xtask, optimised, with all that they depend on: minutes when it is the first time"
        );
        // Both at once: alone, each would have its dependencies built with other features.
        process::run(&mut check::command(&[
            "build",
            "--release",
            "--quiet",
            "--package",
            "lbx",
            "--package",
            "xtask",
        ]))?;
        return process::run(Command::new(workspace::release("xtask")?).arg("bench").args(arguments.words()));
    }
    provision::ensure(&[provision::IMAGE, provision::DEMO].concat())?;
    // The peers are wanted, and done without where they cannot be had.
    if let Err(error) = provision::ensure(provision::BENCH) {
        println!("{error}");
    }
    // On the disk, not in memory: where cargo builds, zips and trees are made.
    let scratch = tempfile::tempdir_in(workspace::target()?)?;
    let registry = serve::standin(&["python3.11"], &scratch.path().join("registry"))?;
    let image = registry.reference("lambda/python", "3.11");
    let results = measure(arguments, scratch.path(), &image)?;
    conclude(&results, arguments.only.is_empty())
}

/// What measures some rows, by a folder to work in and the image.
type Measure = fn(&Path, &str, &mut Results) -> Result<()>;

fn measure(arguments: &Arguments, scratch: &Path, image: &str) -> Result<Results> {
    let mut results = Results::default();
    if arguments.wants(Group::Package) {
        package::measure(scratch, &mut results)?;
    }
    if arguments.wants(Group::Sandbox) {
        let layout = workspace::standin_images()?.join("python3.11");
        sandbox::measure(scratch, image, &layout, &mut results)?;
    }
    let rest: [(Group, Measure); 6] = [
        (Group::Dependencies, dependencies::measure),
        (Group::Host, host::measure),
        (Group::Unpack, unpack::measure),
        (Group::Packaging, packaging::measure),
        (Group::Imports, imports::measure),
        (Group::Peak, peak::measure),
    ];
    for (_, measure) in rest.iter().filter(|(group, _)| arguments.wants(*group)) {
        measure(scratch, image, &mut results)?;
    }
    Ok(results)
}

fn conclude(results: &Results, is_all: bool) -> Result<()> {
    let mut object = Map::new();
    println!("{:28} {:>10}  {:>8}", "key", "measured", "wanted");
    for number in &results.numbers {
        let mark = if number.reached() { "" } else { "  missed" };
        println!("{:28} {:>10.3}  {:>8}{mark}", number.key, number.value, number.wanted());
        object.insert(number.key.clone(), Value::from(number.value));
    }
    for skipped in &results.skipped {
        println!("skipped {skipped}");
    }
    if !is_all {
        return Ok(());
    }
    let path = workspace::target()?.join("bench.json");
    fs_err::write(&path, serde_json::to_string_pretty(&Value::Object(object))? + "\n")?;
    println!("{}", path.display());
    Ok(())
}

/// Whether a peer is installed.
fn has(program: &str) -> bool {
    process::succeeds(Command::new("sh").args(["-c", &format!("command -v {program}")]))
}

/// This program, for a step.
fn this(step: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench-step", step]);
    Ok(command)
}

/// Removes what a contestant made, file or folder, if it is there.
fn remove(path: &Path) -> Result<()> {
    match fs_err::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => process::run(Command::new("rm").arg("-rf").arg(path)),
        Ok(_) => Ok(fs_err::remove_file(path)?),
        Err(_) => Ok(()),
    }
}
