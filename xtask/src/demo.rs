//! `cargo xtask demo`: all the set-up, then the main job on every example.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use lbx_testkit::registry::Registry;
use serde_json::Value;

use crate::{Result, check, process, provision, serve, workspace};

/// Where Lambda's own images are.
const ECR_PUBLIC: (&str, u16) = ("public.ecr.aws", 443);
/// How long it may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// The runtime of the examples.
const RUNTIME: &str = "python3.11";
/// How many of a zip's largest top-level entries are shown.
const SHOWN: usize = 8;

/// Runs the command.
pub(crate) fn run() -> Result<()> {
    println!("== build lbx, optimised, with all that it depends on: minutes when it is the first time");
    process::run(&mut check::command(&["build", "--release", "--package", "lbx"]))?;
    let lbx = workspace::release("lbx")?;
    let scratch = tempfile::tempdir()?;
    let (image, _registry) = image(&lbx, scratch.path())?;
    let mut zips = Vec::new();
    for example in examples()? {
        println!("== lbx build in examples/{}", example.file_name().unwrap_or_default().display());
        zips.extend(build(&lbx, &example, &image)?);
    }
    println!("== built");
    for zip in zips {
        println!("{zip}");
    }
    Ok(())
}

/// The image to build in: Lambda's own where it can be had, else the stand-in, and the registry behind it.
fn image(lbx: &Path, scratch: &Path) -> Result<(String, Option<Registry>)> {
    if ecr_answers() {
        let image = format!("{}/lambda/python:3.11", ECR_PUBLIC.0);
        println!("== lbx pull {image}");
        if process::run(Command::new(lbx).args(["pull", &image])).is_ok() {
            return Ok((image, None));
        }
    }
    provision::ensure(&[provision::IMAGE, provision::DEMO].concat())?;
    println!("== ECR Public does not answer: building in a stand-in image made of Debian packages");
    let registry = serve::standin(&[RUNTIME], &scratch.join("registry"))?;
    Ok((registry.reference("lambda/python", "3.11"), Some(registry)))
}

/// Whether a connection to ECR Public opens in time. Asking for an address has no time-out of its own.
fn ecr_answers() -> bool {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let answers = ECR_PUBLIC.to_socket_addrs().is_ok_and(|mut addresses| {
            addresses.any(|to| TcpStream::connect_timeout(&to, ANSWER_WITHIN).is_ok())
        });
        // Nobody listens any more when it took too long.
        let _ = sender.send(answers);
    });
    receiver.recv_timeout(ANSWER_WITHIN).unwrap_or(false)
}

fn examples() -> Result<Vec<PathBuf>> {
    let mut examples = Vec::new();
    for entry in fs_err::read_dir(workspace::root().join("examples"))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            examples.push(entry.path());
        }
    }
    examples.sort();
    Ok(examples)
}

/// Builds one example, and describes its zips.
fn build(lbx: &Path, example: &Path, image: &str) -> Result<Vec<String>> {
    let out = workspace::target()?.join("demo").join(example.file_name().unwrap_or_default());
    let mut command = Command::new(lbx);
    command.args(["build", "--image", image, "--out-dir"]).arg(&out).current_dir(example);
    if !example.join("lbx.toml").is_file() {
        command.args(["--runtime", RUNTIME]);
    }
    process::run(&mut command)?;
    let report: Value = serde_json::from_str(&fs_err::read_to_string(out.join("report.json"))?)?;
    let artifacts = report["stable"]["artifacts"].as_array().cloned().unwrap_or_default();
    artifacts.iter().map(|artifact| describe(&out, artifact)).collect()
}

fn describe(out: &Path, artifact: &Value) -> Result<String> {
    let path = out.join(artifact["file"].as_str().unwrap_or_default());
    let file = fs_err::File::open(&path)?;
    let archive = lbx_archive::Archive::open(file.file(), &lbx_archive::Limits::default())?;
    let mut tops: Vec<(u64, &str)> = Vec::new();
    for member in archive.members() {
        let top = member.name.split('/').next().unwrap_or_default();
        match tops.iter_mut().find(|(_, name)| *name == top) {
            Some((size, _)) => *size += member.packed.compressed_size,
            None => tops.push((member.packed.compressed_size, top)),
        }
    }
    let count = tops.len();
    tops.sort_unstable_by(|left, right| right.cmp(left));
    let mut names: Vec<&str> = tops.into_iter().take(SHOWN).map(|(_, name)| name).collect();
    if count > SHOWN {
        names.push("…");
    }
    let number = |key: &str| artifact[key].as_u64().unwrap_or_default();
    Ok(format!(
        "{}\n    {} {}: {} bytes, {} files, {} bytes unpacked, CodeSha256 {}\n    {}",
        path.display(),
        artifact["kind"].as_str().unwrap_or_default(),
        artifact["name"].as_str().unwrap_or_default(),
        number("size"),
        number("files"),
        number("unpacked_size"),
        artifact["code_sha256"].as_str().unwrap_or_default(),
        names.join("  "),
    ))
}
