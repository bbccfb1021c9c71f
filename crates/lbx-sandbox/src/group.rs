//! The control group (cgroup v2) of a run, which counts all its processes together. Only the caller's side touches it.
//!
//! Whether there can be one is found out by making it: below the group that this process is in, and nowhere else, so
//! that whatever was allowed to this process stays the most that its sandboxes can have. The kernel gives a group's
//! limits to its children only when it holds no processes itself. So where this process is alone in its group it moves
//! into a child of that group, and back when the last sandbox is gone; where it has company nobody is moved, and there
//! is no group.
//!
//! A group has the id of its maker in its name and is locked by it. What a killed maker leaves is removed by the next.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::limits::{Limits, Reached};

/// Where cgroup v2 is mounted: alone, and beside v1.
const PLACES: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// What is needed of it. Beside v1 it often has neither.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// What the name of each group of ours begins with; the id of its maker follows.
const PREFIX: &str = "lbx-";

/// The child that waits and the first process of a run count too.
const OURS: u64 = 2;

/// How often and how soon a group is looked at again whose last processes are about to go.
const PATIENCE: (u32, Duration) = (200, Duration::from_millis(5));

/// A group for one run. Dropping it kills all that is in it.
#[derive(Debug)]
pub(crate) struct Group {
    path: PathBuf,
    limits: Limits,
    /// Held for as long as the group is in use.
    _lock: fs_err::File,
    _home: Arc<Home>,
}

impl Group {
    /// A group with these limits, where there can be one and it would limit anything.
    pub(crate) fn new(limits: &Limits) -> Option<Self> {
        /// Those of this process, so that no two have one name.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if limits.memory.is_none() && limits.processes.is_none() {
            return None;
        }
        let home = home()?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = home.directory.join(format!("{PREFIX}{}-{number}", std::process::id()));
        let lock = make(&path).ok()?;
        let group = Self { path, limits: *limits, _lock: lock, _home: home };
        group.set().ok().map(|()| group)
    }

    fn set(&self) -> io::Result<()> {
        if let Some(memory) = self.limits.memory {
            self.write("memory.max", &memory.to_string())?;
            // All or nothing: a build that lost a compiler in the middle would end in a riddle.
            self.write("memory.oom.group", "1")?;
            // A kernel without swap has no such file.
            let _ = self.write("memory.swap.max", "0");
        }
        if let Some(processes) = self.limits.processes {
            self.write("pids.max", &processes.saturating_add(OURS).to_string())?;
        }
        Ok(())
    }

    /// Puts a process into the group, and with it all that it will start.
    pub(crate) fn add(&self, process: u32) -> io::Result<()> {
        self.write("cgroup.procs", &process.to_string())
    }

    /// The limit that was reached, if any.
    pub(crate) fn reached(&self) -> Option<Reached> {
        let count = |file: &str, name: &str| {
            let table = fs_err::read_to_string(self.path.join(file)).unwrap_or_default();
            field(&table, name).unwrap_or(0)
        };
        let memory = self.limits.memory.filter(|_| count("memory.events", "oom_kill") > 0);
        let processes = self.limits.processes.filter(|_| count("pids.events", "max") > 0);
        memory.map(Reached::Memory).or(processes.map(Reached::Processes))
    }

    /// The most memory that was in use at one time, in bytes. Since Linux 5.19.
    pub(crate) fn peak(&self) -> Option<u64> {
        fs_err::read_to_string(self.path.join("memory.peak")).ok()?.trim().parse().ok()
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        write(&self.path.join(file), text)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What is left of it goes with the next sweep.
        let _ = remove(&self.path);
    }
}

/// The group that has those of the runs for children.
#[derive(Debug)]
struct Home {
    directory: PathBuf,
    /// The child that this process has moved into.
    moved: Option<PathBuf>,
}

/// What is known of the home.
enum Known {
    Nothing,
    Denied,
    Used(Weak<Home>),
}

/// The home of all groups of this process, for as long as there is one of them.
fn home() -> Option<Arc<Home>> {
    static KNOWN: Mutex<Known> = Mutex::new(Known::Nothing);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    match &*known {
        Known::Denied => return None,
        Known::Used(home) => {
            if let Some(home) = home.upgrade() {
                return Some(home);
            }
        }
        Known::Nothing => {}
    }
    let found = Home::find().map(Arc::new);
    *known = found.as_ref().map_or(Known::Denied, |home| Known::Used(Arc::downgrade(home)));
    found
}

impl Home {
    fn find() -> Option<Self> {
        let directory = own_group()?;
        let listed = |file: &str| fs_err::read_to_string(directory.join(file)).unwrap_or_default();
        if !has_all(&listed("cgroup.controllers")) {
            return None;
        }
        // A process that cannot be put into this group cannot be put into one below it either.
        let procs = directory.join("cgroup.procs");
        nix::unistd::eaccess(&procs, nix::unistd::AccessFlags::W_OK).ok()?;
        sweep(&directory);
        if has_all(&listed("cgroup.subtree_control")) {
            return Some(Self { directory, moved: None });
        }
        match enable(&directory) {
            Ok(()) => Some(Self { directory, moved: None }),
            // There are processes in it; other than us, they are not ours to move.
            Err(Errno::EBUSY) if is_alone(&listed("cgroup.procs")) => Self::move_in(directory),
            Err(_) => None,
        }
    }

    /// Makes room in the group that this process is alone in.
    fn move_in(directory: PathBuf) -> Option<Self> {
        let below = directory.join(format!("{PREFIX}{}-caller", std::process::id()));
        // Not locked: as long as this process lives, it cannot be removed.
        fs_err::create_dir(&below).ok()?;
        let home = Self { directory, moved: Some(below.clone()) };
        write(&below.join("cgroup.procs"), "0").ok()?;
        // Fails when somebody has come in the meantime; dropping it moves back.
        enable(&home.directory).ok().map(|()| home)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(below) = &self.moved {
            // In this order, or the kernel refuses. What fails leaves an empty group behind.
            let _ = write(&self.directory.join("cgroup.subtree_control"), "-memory -pids");
            let _ = write(&self.directory.join("cgroup.procs"), "0");
            let _ = fs_err::remove_dir(below);
        }
    }
}

/// The group of this process, as a directory that says so itself.
fn own_group() -> Option<PathBuf> {
    let table = fs_err::read_to_string("/proc/self/cgroup").ok()?;
    let path = table.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let places = PLACES.iter().map(|place| Path::new(place).join(path));
    let own = std::process::id().to_string();
    let mut holds_us = places.filter(|place| {
        fs_err::read_to_string(place.join("cgroup.procs")).is_ok_and(|list| list.lines().any(|id| id == own))
    });
    holds_us.next()
}

fn has_all(list: &str) -> bool {
    CONTROLLERS.iter().all(|wanted| list.split_whitespace().any(|name| name == *wanted))
}

fn is_alone(list: &str) -> bool {
    list.split_whitespace().eq([std::process::id().to_string().as_str()])
}

/// The number after a name, in a table of names and numbers.
fn field(table: &str, name: &str) -> Option<u64> {
    table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn enable(directory: &Path) -> Result<(), Errno> {
    let number = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(0));
    write(&directory.join("cgroup.subtree_control"), "+memory +pids").map_err(number)
}

/// Writes to a file of the kernel's, which is there or not: none is ever made.
fn write(path: &Path, text: &str) -> io::Result<()> {
    use io::Write;
    let mut file = fs_err::OpenOptions::new().write(true).open(path)?.into_parts().0;
    file.write_all(text.as_bytes())
}

/// Makes a group, and locks it.
fn make(path: &Path) -> io::Result<fs_err::File> {
    fs_err::create_dir(path)?;
    let lock = fs_err::File::open(path)?;
    lock.file().try_lock()?;
    Ok(lock)
}

/// Removes the groups of processes that are gone.
fn sweep(directory: &Path) {
    let Ok(entries) = fs_err::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok());
        // One with the same id in another namespace holds the lock.
        let gone = |maker: i32| kill(Pid::from_raw(maker), None) == Err(Errno::ESRCH);
        let lock = fs_err::File::open(entry.path());
        if maker.is_some_and(gone) && lock.is_ok_and(|lock| lock.file().try_lock().is_ok()) {
            let _ = remove(&entry.path());
        }
    }
}

/// Kills what is in a group, and removes it.
fn remove(path: &Path) -> io::Result<()> {
    let (tries, pause) = PATIENCE;
    for _ in 0..tries {
        match fs_err::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            other => return other,
        }
        // Since 5.14. Before, a run's processes are dead when it is waited for.
        let _ = write(&path.join("cgroup.kill"), "1");
        std::thread::sleep(pause);
    }
    Err(Errno::EBUSY.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read_by_whole_names() {
        let events = "low 0\nhigh 3\nmax 17\noom 2\noom_kill 1\noom_group_kill 4\n";
        assert_eq!(field(events, "oom_kill"), Some(1));
        assert_eq!(field(events, "max"), Some(17));
        assert_eq!(field(events, "oom_group"), None);
        assert_eq!(field("", "max"), None);
    }

    #[test]
    fn both_controllers_are_needed() {
        assert!(has_all("cpuset cpu io memory hugetlb pids\n"));
        assert!(!has_all("cpuset cpu io pids\n"));
        assert!(!has_all("memory.x pids\n"));
        assert!(!has_all(""));
    }

    #[test]
    fn a_process_with_company_is_not_alone() {
        let own = std::process::id();
        assert!(is_alone(&format!("{own}\n")));
        assert!(!is_alone(&format!("{own}\n1\n")));
        assert!(!is_alone(""));
    }

    #[test]
    fn without_limits_there_is_no_group() {
        assert!(Group::new(&Limits { open_files: Some(7), ..Limits::default() }).is_none());
    }
}
