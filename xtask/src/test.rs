//! `cargo xtask test`: all the set-up, then all the tests.
//!
//! The set-up is Debian packages, the stand-in images behind a registry, and real wheels. The tests are
//! built by this user; when it is root, they run as one without privileges, and those about the sandbox
//! and the command line once more as root, because lbx runs as root in containers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lbx_testkit::registry::Registry;
use serde_json::Value;

use crate::{Result, check, debs, image, kernel, process, provision, serve, unprivileged, wheels, workspace};

/// Tests that run once more as root when this process is root.
const ALSO_AS_ROOT: [&str; 4] = ["it", "matrix", "repro", "sandbox"];

/// Of these, what is the same whoever runs it: it starts no sandbox, or looks at what comes after it.
const NOT_AS_ROOT: [&str; 15] = [
    "cache::",
    "checks::",
    "configuration::",
    "diff::",
    "explain::",
    "html::",
    "incremental::",
    "indexes::",
    "keys::",
    "locks::",
    "prune::",
    "report::",
    "requirements::",
    "survival::",
    "vendor::",
];

/// What cannot be skipped here: the set-up has provided for it.
const MUST_RUN: &str = "elf,registry,sandbox,standin,wheels";

/// The stand-in images that the tests use.
const RUNTIMES: [&str; 5] = ["python3.9", "python3.11", "python3.13", "build-python3.11", "python3.11-arm64"];

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only the test programs of this name, such as `it` or `lbx_plan`
    #[arg(long, value_name = "NAME")]
    program: Option<String>,
    /// Given to the test programs as they are: names of tests, for example
    #[arg(last = true)]
    rest: Vec<String>,
}

/// A built test program.
struct Program {
    name: String,
    path: PathBuf,
    folder: PathBuf,
}

/// What the programs are told of what was set up.
struct Setup {
    registry: Registry,
    wheels: PathBuf,
    /// The wheels of an index that others wrote.
    server: PathBuf,
    /// The packages that the rules of `lbx_plan::prune` are tried on.
    prune: PathBuf,
    index: PathBuf,
    images: PathBuf,
    kernel: PathBuf,
    /// Packages for the package manager of an image.
    debs: PathBuf,
}

/// What one or all of them said.
#[derive(Default)]
struct Count {
    passed: u64,
    failed: u64,
    broken: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    // Whatever the user's umask is, the test user has to be able to run what is built.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    if let Some(copy) = unprivileged::copy_for_tests()? {
        println!("== the test user cannot enter {}: testing a copy", workspace::root().display());
        return process::run(
            Command::new(env!("CARGO"))
                .arg("xtask")
                .args(std::env::args_os().skip(1))
                .env("CARGO_TARGET_DIR", copy.join("target"))
                .current_dir(copy),
        );
    }
    provision::ensure(&[provision::IMAGE, provision::DEMO, provision::TEST].concat())?;
    println!("== build");
    let programs = build()?;
    println!("== set-up");
    let scratch = tempfile::tempdir()?;
    let setup = set_up(&scratch.path().join("registry"))?;
    let mut count = Count::default();
    for program in
        programs.iter().filter(|one| arguments.program.as_ref().is_none_or(|name| *name == one.name))
    {
        let run = |as_root| run_program(program, &setup, as_root, &words(as_root, &arguments.rest));
        count.add(&program.name, &run(false)?);
        if unprivileged::is_root() && ALSO_AS_ROOT.contains(&program.name.as_str()) {
            count.add(&format!("{} as root", program.name), &run(true)?);
        }
    }
    if arguments.program.is_none() {
        println!("== examples in the documentation");
        process::run(&mut check::command(&["test", "--workspace", "--doc", "--quiet"]))?;
    }
    count.conclude()
}

/// What a test program is given. Root runs what it is told to, or what makes a difference to root.
fn words(as_root: bool, rest: &[String]) -> Vec<String> {
    if !as_root || !rest.is_empty() {
        return rest.to_vec();
    }
    NOT_AS_ROOT.into_iter().flat_map(|module| ["--skip".to_owned(), module.to_owned()]).collect()
}

/// Builds every test program, and finds out where they are.
fn build() -> Result<Vec<Program>> {
    let mut cargo =
        check::command(&["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
    let output = cargo.stderr(Stdio::inherit()).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err("the tests do not build".into());
    }
    let mut seen = BTreeSet::new();
    let mut programs = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Value = serde_json::from_str(line)?;
        if let Some(program) = program(&message)
            && seen.insert(program.path.clone())
        {
            programs.push(program);
        }
    }
    programs.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(programs)
}

fn program(message: &Value) -> Option<Program> {
    let is_test = message["profile"]["test"].as_bool()?;
    let path = message["executable"].as_str()?;
    let manifest = Path::new(message["manifest_path"].as_str()?);
    is_test.then(|| Program {
        name: message["target"]["name"].as_str().unwrap_or_default().to_owned(),
        path: path.into(),
        folder: manifest.parent().unwrap_or(Path::new("/")).to_owned(),
    })
}

/// Images, a registry that has them, wheels, what an index is made of, and a kernel.
fn set_up(registry: &Path) -> Result<Setup> {
    let images = workspace::standin_images()?;
    for runtime in RUNTIMES {
        // One of the tests assembles them again, from the same packages.
        image::ensure_repeatable(runtime, &images)?;
    }
    unprivileged::open_to_all(&images)?;
    let index = wheels::fetch_for_examples()?;
    unprivileged::open_to_all(&index)?;
    let kernel = kernel::fetch()?;
    unprivileged::open_to_all(&kernel)?;
    let debs = debs::fetch()?;
    unprivileged::open_to_all(&debs)?;
    let registry = serve::standin(&RUNTIMES, registry)?;
    let (wheels, server, prune) = (wheels::fetch()?, wheels::fetch_server()?, wheels::fetch_for_prune()?);
    Ok(Setup { registry, wheels, server, prune, index, images, kernel, debs })
}

fn run_program(program: &Program, setup: &Setup, as_root: bool, rest: &[String]) -> Result<Count> {
    println!("== {}{}", program.name, if as_root { " as root" } else { "" });
    let home = tempfile::tempdir()?;
    unprivileged::hand_over(home.path())?;
    let mut command = Command::new(&program.path);
    command
        .args(rest)
        .current_dir(&program.folder)
        .env("HOME", home.path())
        .env("LBX_MUST_RUN", MUST_RUN)
        .env("LBX_TEST_DEBS", &setup.debs)
        .env("LBX_TEST_INDEX", &setup.index)
        .env("LBX_TEST_KERNEL", &setup.kernel)
        .env("LBX_TEST_PRUNE", &setup.prune)
        .env("LBX_TEST_PYPISERVER", &setup.server)
        .env("LBX_TEST_REGISTRY", setup.registry.address())
        .env("LBX_TEST_STANDIN", &setup.images)
        .env("LBX_TEST_WHEELS", &setup.wheels)
        .env_remove("XDG_CACHE_HOME")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    if !as_root {
        unprivileged::demote(&mut command);
    }
    let output = command.stdout(Stdio::piped()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    let mut count = Count::read(&text);
    // A program that was killed says nothing of itself.
    if !output.status.success() {
        count.failed = count.failed.max(1);
    }
    Ok(count)
}

impl Count {
    /// Reads the closing line of a test program.
    fn read(text: &str) -> Self {
        let line = text.lines().rev().find(|line| line.starts_with("test result:")).unwrap_or_default();
        let number = |word: &str| {
            let part = line.split(['.', ';']).find(|part| part.trim_end().ends_with(word));
            part.and_then(|part| part.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
        };
        Self { passed: number("passed"), failed: number("failed"), broken: Vec::new() }
    }

    fn add(&mut self, name: &str, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        if other.failed > 0 {
            self.broken.push(name.to_owned());
        }
    }

    fn conclude(self) -> Result<()> {
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 {
            Ok(())
        } else {
            Err(format!("tests failed in {}", self.broken.join(", ")).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_runs_what_makes_a_difference_to_it_or_what_it_is_told_to() {
        let told = ["diff::".to_owned()];
        assert_eq!((words(true, &told), words(false, &told)), (told.to_vec(), told.to_vec()));
        assert_eq!(words(false, &[]), [""; 0]);
        assert_eq!(words(true, &[])[..2], ["--skip", "cache::"]);
    }

    #[test]
    fn the_closing_line_of_a_test_program_is_read() {
        let text =
            "running 3 tests\n\ntest result: FAILED. 12 passed; 3 failed; 0 ignored; finished in 0.1s\n";
        let count = Count::read(text);
        assert_eq!((count.passed, count.failed), (12, 3));
        assert_eq!(Count::read("killed").passed, 0);
    }
}
