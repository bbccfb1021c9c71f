//! The options that limit what a command in the sandbox may use, for all commands of `lbx` that start one.

use std::time::Duration;

use clap::Args;
use lbx_build::TimeLimits;

/// What a command in the sandbox may use.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// How long it and what it starts may take in all: 90s, 45m, 4h, which is the default.
    #[arg(long = "time-limit", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
    /// How long it may say nothing; 30m by default.
    #[arg(long = "silence-limit", value_name = "TIME", value_parser = duration)]
    silence: Option<Duration>,
    #[command(flatten)]
    resources: Resources,
    /// How much it may leave on the disk; 16GB by default.
    #[arg(long = "disk-limit", value_name = "SIZE", value_parser = size)]
    disk: Option<u64>,
}

/// What the kernel holds it to.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Resources {
    /// How much memory: 512MB, 2GB; 90% of the machine's by default. Of all processes together where lbx has a control
    /// group of its own, else of each.
    #[arg(long = "memory-limit", value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// How many processes and threads at one time; 4096 by default.
    #[arg(long = "process-limit", value_name = "NUMBER", value_parser = number)]
    process: Option<u64>,
    /// How many open files in each process; 65536 by default, or as many as the host allows.
    #[arg(long = "open-file-limit", value_name = "NUMBER", value_parser = number)]
    open_file: Option<u64>,
    /// How large a file may become; 16GB by default.
    #[arg(long = "file-size-limit", value_name = "SIZE", value_parser = size)]
    file_size: Option<u64>,
    /// How much each folder of temporary files may hold, such as /tmp; 8GB by default, or half of the memory where that
    /// is less.
    #[arg(long = "tmp-limit", value_name = "SIZE", value_parser = size)]
    tmp: Option<u64>,
}

impl Resources {
    /// Those that were given, and the usual ones for the rest.
    pub(crate) fn with_defaults(&self) -> lbx_sandbox::Limits {
        let usual = lbx_build::Limits::usual().resources;
        let limits = lbx_sandbox::Limits {
            memory: self.memory.or(usual.memory),
            processes: self.process.or(usual.processes),
            open_files: self.open_file.or(usual.open_files),
            file_size: self.file_size.or(usual.file_size),
            tmp: self.tmp.or(usual.tmp),
        };
        limits.within_the_host()
    }
}

impl Limits {
    /// Those that were given, and the usual ones for the rest.
    pub(crate) fn with_defaults(&self) -> lbx_build::Limits {
        let usual = lbx_build::Limits::usual();
        lbx_build::Limits {
            time: TimeLimits {
                total: self.time.unwrap_or(usual.time.total),
                silence: self.silence.unwrap_or(usual.time.silence),
            },
            resources: self.resources.with_defaults(),
            disk: self.disk.unwrap_or(usual.disk),
        }
    }
}

/// What is wrong with a limit of zero.
const NOTHING: &str = "a limit of nothing stops everything";

/// A number and its unit of time.
fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a number with s, m or h behind it, such as 45m".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(expected)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(expected()),
    };
    let number: u32 = number.parse().map_err(|_| expected())?;
    if number == 0 { Err(NOTHING.to_owned()) } else { Ok(Duration::from_secs(1) * number * seconds) }
}

/// A number and its unit of bytes, the same units that sizes are shown in.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let expected = || "expected a number with kB, MB, GB or TB behind it, such as 2GB".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(2)).ok_or_else(expected)?;
    let bytes: u64 = match unit {
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(expected()),
    };
    let number: u32 = number.parse().map_err(|_| expected())?;
    let bytes = u64::from(number).saturating_mul(bytes);
    match bytes {
        0 => Err(NOTHING.to_owned()),
        // The kernel's own numbers have a sign.
        _ if i64::try_from(bytes).is_err() => Err("no machine has that much".to_owned()),
        _ => Ok(bytes),
    }
}

/// A number of things.
fn number(text: &str) -> Result<u64, String> {
    let number: u32 = text.parse().map_err(|_| "expected a number, such as 4096".to_owned())?;
    if number == 0 { Err(NOTHING.to_owned()) } else { Ok(number.into()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_duration_has_a_unit_and_is_not_nothing() {
        let read = |text: &str| super::duration(text).ok().map(|limit| limit.as_secs());
        assert_eq!(read("90s"), Some(90));
        assert_eq!(read("45m"), Some(2700));
        assert_eq!(read("4h"), Some(14_400));
        for bad in ["", "5", "m", "0s", "-1s", "1.5h", "5d", "5é"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_size_has_a_unit_and_is_not_nothing() {
        let read = |text: &str| super::size(text).ok();
        assert_eq!(read("512MB"), Some(512_000_000));
        assert_eq!(read("2GB"), Some(2_000_000_000));
        assert_eq!(read("64kB"), Some(64_000));
        assert_eq!(read("9TB"), Some(9_000_000_000_000));
        for bad in
            ["", "5", "GB", "0GB", "-1GB", "1.5GB", "2gb", "2GiB", "2 GB", "2B", "é", "2é", "4294967295TB"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_number_is_a_number_and_not_nothing() {
        assert_eq!(super::number("4096"), Ok(4096));
        for bad in ["", "0", "-1", "1k", "1.5", "many"] {
            assert!(super::number(bad).is_err(), "{bad}");
        }
    }
}
