//! What a command in the sandbox may use, how long it may run, and how long it may say nothing. A build that left a
//! process behind can keep pip waiting for its output for ever.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lbx_sandbox::{Access, Changes, Spec, bytes_in};

/// How often a clock is looked at.
const TICK: Duration = Duration::from_millis(200);

/// How long the disk is left alone between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// The limits of one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// From start to end.
    pub total: Duration,
    /// Without a line of output.
    pub silence: Duration,
}

impl Default for TimeLimits {
    /// Four hours, and half an hour: pip says something at least each minute while a build says anything at all.
    fn default() -> Self {
        Self { total: Duration::from_hours(4), silence: Duration::from_mins(30) }
    }
}

/// What each command in the sandbox may use, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long.
    pub time: TimeLimits,
    /// What the kernel holds it to.
    pub resources: lbx_sandbox::Limits,
    /// Bytes of all that it writes to folders on a disk. Nobody holds it to that, but it is stopped when it is seen.
    pub disk: u64,
}

impl Limits {
    /// What no build needs and a machine survives: 90% of its memory, 4096 processes, 65,536 open files or what the host
    /// allows, 16 GB for one file and for all of them, and 8 GB, or half of the memory where that is less, for each folder
    /// of temporary files.
    pub fn usual() -> Self {
        let memory = memory();
        let resources = lbx_sandbox::Limits {
            memory: memory.map(|bytes| bytes / 10 * 9),
            processes: Some(4096),
            open_files: Some(65_536),
            file_size: Some(16_000_000_000),
            tmp: Some(memory.map_or(8_000_000_000, |bytes| (bytes / 2).min(8_000_000_000))),
        };
        Self { time: TimeLimits::default(), resources: resources.within_the_host(), disk: 16_000_000_000 }
    }
}

/// The memory of this machine, in bytes.
fn memory() -> Option<u64> {
    let table = fs_err::read_to_string("/proc/meminfo").ok()?;
    let line = table.lines().find_map(|line| line.strip_prefix("MemTotal:")?.strip_suffix("kB"))?;
    line.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// A limit that was reached, with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// It ran for too long.
    Total(Duration),
    /// It was silent for too long.
    Silence(Duration),
    /// All its processes together wanted more memory.
    Memory(u64),
    /// It wrote too much to a folder of temporary files that is on a disk.
    Tmp(u64),
    /// It wrote too much to other folders on a disk.
    Disk(u64),
}

impl Breach {
    /// The option that raises the limit.
    pub fn option(&self) -> &'static str {
        match self {
            Self::Total(_) => "--time-limit",
            Self::Silence(_) => "--silence-limit",
            Self::Memory(_) => "--memory-limit",
            Self::Tmp(_) => "--tmp-limit",
            Self::Disk(_) => "--disk-limit",
        }
    }
}

impl std::fmt::Display for Breach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Total(limit) => write!(f, "stopped after {}, the time limit", words(*limit)),
            Self::Silence(limit) => write!(f, "stopped after {} without a word", words(*limit)),
            Self::Memory(limit) => write!(f, "stopped: the memory limit of {} was reached", bytes(*limit)),
            Self::Tmp(limit) => {
                write!(f, "stopped: the limit of {} for temporary files was reached", bytes(*limit))
            }
            Self::Disk(limit) => {
                write!(f, "stopped: the limit of {} for what is written was reached", bytes(*limit))
            }
        }
    }
}

/// Bytes for people: `512 B`, `1.5 kB`, `53.9 MB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut whole = count;
    let mut unit = 0;
    while whole >= 999_950 && unit + 1 < UNITS.len() {
        whole /= 1000;
        unit += 1;
    }
    let tenths = (whole + 50) / 100;
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A duration as people say it.
fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} minutes", seconds / 60),
        _ => format!("{} hours", seconds / 3600),
    }
}

/// Folders on a disk that a command writes to.
#[derive(Debug)]
struct Places {
    /// Those that outlive it.
    outputs: Vec<PathBuf>,
    /// Where roots are made in which nothing is mounted, and what is written to in each.
    made: Option<PathBuf>,
    targets: Vec<String>,
    tmp: Vec<String>,
}

impl Places {
    fn of(spec: &Spec) -> Self {
        let writable = || spec.binds.iter().filter(|bind| bind.access == Access::ReadWrite);
        let tmp = spec.tmpfs.iter().map(|tmpfs| tmpfs.target.clone());
        let changed = match &spec.changes {
            Changes::Above(place) => Some(place.clone()),
            Changes::Never | Changes::InPlace => None,
        };
        Self {
            outputs: writable().map(|bind| bind.source.clone()).chain(changed).collect(),
            made: spec.scratch.clone(),
            targets: writable().map(|bind| bind.target.clone()).collect(),
            // Where paths are traced, the folders lie beside the root, and have numbers.
            tmp: tmp
                .chain(["/dev/shm".to_owned()])
                .chain((0..=spec.tmpfs.len()).map(|number| format!("memory{number}")))
                .collect(),
        }
    }

    /// The first limit that what is there is over.
    fn breach(&self, limits: &Limits) -> Option<Breach> {
        let made = self.made.iter().filter_map(|folder| fs_err::read_dir(folder).ok());
        let roots: Vec<_> = made.flat_map(|entries| entries.flatten().map(|entry| entry.path())).collect();
        let below = |targets: &[String]| -> Vec<_> {
            let each = roots
                .iter()
                .flat_map(|root| targets.iter().map(|target| root.join(target.trim_start_matches('/'))));
            each.collect()
        };
        let outputs = self.outputs.iter().cloned().chain(below(&self.targets));
        let written: u64 = outputs.map(|folder| bytes_in(&folder, limits.disk)).sum();
        if written > limits.disk {
            return Some(Breach::Disk(limits.disk));
        }
        let tmp = limits.resources.tmp?;
        below(&self.tmp).iter().any(|folder| bytes_in(folder, tmp) > tmp).then_some(Breach::Tmp(tmp))
    }
}

/// Hears each line, and knows when there was none for too long. Looks at the disk now and then.
#[derive(Debug)]
pub(crate) struct Watch {
    limits: Limits,
    places: Places,
    started: Instant,
    heard: Mutex<Instant>,
}

impl Watch {
    pub(crate) fn start(limits: Limits, spec: &Spec) -> Self {
        let now = Instant::now();
        Self { limits, places: Places::of(spec), started: now, heard: Mutex::new(now) }
    }

    /// Something was said.
    pub(crate) fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until the other end of `ended` goes, or a limit is reached. No time passes while the command `waits` for
    /// something that is not its own.
    pub(crate) fn wait(&self, ended: &Receiver<()>, waits: &dyn Fn() -> bool) -> Option<Breach> {
        let limits = self.limits.time;
        let (mut looked, mut last, mut waited) = (Instant::now(), Instant::now(), Duration::ZERO);
        loop {
            match ended.recv_timeout(TICK) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return None,
            }
            if waits() {
                waited += last.elapsed();
                self.hear();
            }
            last = Instant::now();
            let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            if self.started.elapsed().saturating_sub(waited) >= limits.total {
                return Some(Breach::Total(limits.total));
            }
            if heard.elapsed() >= limits.silence {
                return Some(Breach::Silence(limits.silence));
            }
            if looked.elapsed() >= LOOK {
                if let Some(breach) = self.places.breach(&self.limits) {
                    return Some(breach);
                }
                looked = Instant::now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_with_its_value() {
        assert_eq!(
            Breach::Total(Duration::from_hours(4)).to_string(),
            "stopped after 4 hours, the time limit"
        );
        assert_eq!(
            Breach::Silence(Duration::from_mins(30)).to_string(),
            "stopped after 30 minutes without a word"
        );
        assert_eq!(Breach::Silence(Duration::from_secs(2)).to_string(), "stopped after 2 s without a word");
        assert_eq!(
            Breach::Memory(2_000_000_000).to_string(),
            "stopped: the memory limit of 2.0 GB was reached"
        );
    }

    fn spec() -> Spec {
        Spec::new(lbx_sandbox::Root::Tree("/nowhere".into()), ["true"])
    }

    #[test]
    fn bytes_are_shown_with_one_decimal_and_round_up_to_the_next_unit() {
        let shown: Vec<_> =
            [0, 999, 1000, 1550, 999_949, 999_950, 53_900_000, 2_000_000_000].map(bytes).into();
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "1.6 kB", "999.9 kB", "1.0 MB", "53.9 MB", "2.0 GB"]);
    }

    #[test]
    fn what_is_written_is_summed_and_each_folder_of_temporary_files_counts_for_itself() {
        let (out, made) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut spec = spec();
        for (name, access) in
            [("one", Access::ReadWrite), ("two", Access::ReadWrite), ("in", Access::ReadOnly)]
        {
            let source = out.path().join(name);
            fs_err::create_dir(&source).unwrap();
            spec.binds.push(lbx_sandbox::Bind { source, target: format!("/lbx/{name}"), access });
        }
        spec.scratch = Some(made.path().to_owned());
        let root = made.path().join("root-1");
        for target in ["tmp", "var/tmp", "lbx/one"] {
            fs_err::create_dir_all(root.join(target)).unwrap();
        }
        let resources = lbx_sandbox::Limits { tmp: Some(1 << 20), ..Limits::usual().resources };
        let limits = Limits { disk: 3 << 20, resources, ..Limits::usual() };
        let breach = || Places::of(&spec).breach(&limits);
        let write = |path: PathBuf, megabytes: usize| fs_err::write(path, vec![1; megabytes << 20]).unwrap();
        write(out.path().join("in/file"), 8);
        write(out.path().join("one/file"), 1);
        write(out.path().join("two/file"), 1);
        assert_eq!(breach(), None);
        write(root.join("tmp/file"), 2);
        assert_eq!(breach(), Some(Breach::Tmp(1 << 20)));
        write(root.join("lbx/one/file"), 2);
        assert_eq!(breach(), Some(Breach::Disk(3 << 20)));
    }

    #[test]
    fn no_time_passes_while_a_command_waits_for_something_else() {
        let short = Duration::from_millis(100);
        let time = TimeLimits { total: Duration::from_secs(1000), silence: short };
        let watch = Watch::start(Limits { time, ..Limits::usual() }, &spec());
        let (_end, ended) = std::sync::mpsc::channel::<()>();
        let begun = Instant::now();
        let waits = || begun.elapsed() < 5 * short;
        assert_eq!(watch.wait(&ended, &waits), Some(Breach::Silence(short)));
        assert!(begun.elapsed() >= 5 * short, "{:?}", begun.elapsed());
    }

    #[test]
    fn an_end_comes_before_any_limit() {
        let time = TimeLimits { total: Duration::ZERO, silence: Duration::ZERO };
        let watch = Watch::start(Limits { time, disk: 0, ..Limits::usual() }, &spec());
        let (end, ended) = std::sync::mpsc::channel::<()>();
        drop(end);
        assert_eq!(watch.wait(&ended, &|| false), None);
    }
}
