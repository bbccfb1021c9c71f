//! Processes seen from outside: who descends from whom, who is still there, and signals.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process that was seen once; its number may be somebody else's later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its number.
    pub pid: u32,
    /// When it started, in the kernel's ticks.
    started: u64,
    /// Its name.
    pub name: String,
}

impl Seen {
    /// Whether it is still there. A zombie is not: nobody waits for it any more than for the dead.
    pub fn is_alive(&self) -> bool {
        status(self.pid).is_some_and(|(seen, _, state)| seen == *self && state != 'Z')
    }
}

/// Name, parent and state of a process.
fn status(pid: u32) -> Option<(Seen, u32, char)> {
    let text = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = text.rsplit_once(") ")?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = rest.split(' ').collect();
    let started = fields.get(19)?.parse().ok()?;
    Some((Seen { pid, started, name }, fields.get(1)?.parse().ok()?, fields.first()?.chars().next()?))
}

/// Every process that descends from `pid`.
pub fn descendants(pid: u32) -> Vec<Seen> {
    let entries = fs_err::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let all: Vec<_> = pids.filter_map(status).collect();
    let mut found: Vec<Seen> = Vec::new();
    let mut open = vec![pid];
    while let Some(parent) = open.pop() {
        for (seen, _, _) in all.iter().filter(|(_, of, _)| *of == parent) {
            open.push(seen.pid);
            found.push(seen.clone());
        }
    }
    found
}

/// Sends a signal.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).expect("a process number");
    kill(Pid::from_raw(pid), signal).expect("the process can be signalled");
}

/// Waits until `found` finds something, and panics with `what` when it takes longer than half a minute.
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(30) {
        if let Some(found) = found() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("waited for half a minute: {what}");
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_is_seen_until_it_is_dead() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let seen = descendants(std::process::id()).into_iter().find(|seen| seen.pid == child.id());
        let seen = seen.expect("the child");
        assert!(seen.is_alive());
        signal(seen.pid, Signal::SIGKILL);
        child.wait().expect("its end");
        assert!(!seen.is_alive());
    }
}
