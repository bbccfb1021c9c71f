//! Memory: the most that lbx's own processes hold at once during a build.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Bound, Results};
use crate::{Result, process, workspace};

/// How often the processes are looked at.
const EVERY: Duration = Duration::from_millis(5);

/// What a sandbox's own processes call themselves.
const SANDBOX: &[u8] = b"lbx-sandbox";

/// Measures `peak_rss_mb`.
pub(super) fn measure(scratch: &Path, image: &str, results: &mut Results) -> Result<()> {
    let mut build = Command::new(workspace::release("lbx")?);
    build.args(["build", "--quiet", "--image", image, "--out-dir"]).arg(scratch.join("dist"));
    build.current_dir(workspace::root().join("examples/data-science"));
    build.env("LBX_CACHE_DIR", scratch.join("cache"));
    results.add("peak_rss_mb", of(&mut build)?, Bound::AtMost(120.0));
    Ok(())
}

/// Runs a build, and returns the sum over lbx's processes of what each had in memory at its own worst moment, which is
/// never less than what all had at any one moment. Megabytes.
pub(super) fn of(build: &mut Command) -> Result<f64> {
    watch(build, &workspace::release("lbx")?)
}

/// The same for any program.
fn watch(build: &mut Command, program: &Path) -> Result<f64> {
    let name = process::describe(build);
    let mut build = build.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let mut peaks = std::collections::BTreeMap::new();
    let status = loop {
        for (process, peak) in own_processes(program) {
            let kept = peaks.entry(process).or_insert(0);
            *kept = peak.max(*kept);
        }
        if let Some(status) = build.try_wait()? {
            break status;
        }
        std::thread::sleep(EVERY);
    };
    if !status.success() {
        return Err(format!("`{name}` ended with {status}").into());
    }
    if peaks.is_empty() {
        return Err(format!("no process of `{name}` was seen").into());
    }
    // The build's own process starts many short-lived others; the largest at once are itself and one sandbox
    // with its two processes, of which each is counted by its peak.
    let mut peaks: Vec<u64> = peaks.into_values().collect();
    peaks.sort_unstable();
    let kilobytes: u64 = peaks.iter().rev().take(3).sum();
    #[expect(clippy::cast_precision_loss, reason = "kilobytes of memory are far below 2^53")]
    Ok(kilobytes as f64 * 1024.0 / 1e6)
}

/// Every process that runs this program, with its peak of resident memory in kilobytes.
fn own_processes(program: &Path) -> Vec<(u32, u64)> {
    let Ok(entries) = fs_err::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let process = entry.file_name().to_str()?.parse().ok()?;
            // The first process of a sandbox does not let others read what it runs, only what it is called.
            let is_ours = fs_err::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == program)
                || fs_err::read(entry.path().join("cmdline")).is_ok_and(|line| line.starts_with(SANDBOX));
            let status = fs_err::read_to_string(entry.path().join("status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            let peak = line.trim().split(' ').next()?.parse().ok()?;
            is_ours.then_some((process, peak))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_some_memory() {
        let program = fs_err::canonicalize("/bin/sleep").unwrap();
        let megabytes = watch(Command::new(&program).arg("0.2"), &program).unwrap();
        assert!(megabytes > 0.1 && megabytes < 100.0, "{megabytes}");
    }

    #[test]
    fn a_build_that_fails_or_that_nobody_sees_is_an_error() {
        let nobody = Path::new("/no/such/program");
        let words = |program: &str| watch(&mut Command::new(program), nobody).unwrap_err().to_string();
        assert!(words("false").starts_with("`false` ended with"), "{}", words("false"));
        assert_eq!(words("true"), "no process of `true` was seen");
    }
}
