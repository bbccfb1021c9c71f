//! A terminal to run a program on: a real pseudo-terminal, and the screen that the program's output makes on it.
//!
//! The screen knows the control sequences that progress bars need. One that it does not know is a panic, so that a
//! test never takes garbage for a clean screen.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::{Mode, fstat, major, minor};
use nix::sys::termios::{Termios, tcgetattr};

/// How long words are waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// A program that runs on a terminal of its own. Dropping it kills the program.
#[derive(Debug)]
pub struct OnTerminal {
    child: Child,
    master: File,
    device: (u64, u64),
    output: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    hung_up: Arc<AtomicBool>,
    columns: usize,
    rows: usize,
}

/// How it ended, and what is on the terminal then.
#[derive(Debug)]
pub struct Shown {
    /// The exit code; -1 when a signal ended it.
    pub code: i32,
    /// Every byte that came.
    pub raw: String,
    /// The screen at the end.
    pub screen: Screen,
    /// The terminal's settings at the end.
    pub settings: Termios,
}

/// Starts a program with stdin, stdout and stderr on a new terminal, but for streams that the command has set.
/// What it needs to know of the terminal otherwise, such as `TERM`, is the caller's to set.
///
/// It is not the program's controlling terminal, whose keys are signals: `setsid --ctty` makes it that.
pub fn start(command: &mut Command, columns: u16, rows: u16) -> OnTerminal {
    start_with(command, columns, rows, Streams::All)
}

/// The same with stdout left as the command has it.
pub fn start_stderr_only(command: &mut Command, columns: u16, rows: u16) -> OnTerminal {
    start_with(command, columns, rows, Streams::AllButStdout)
}

/// The same with stderr left as the command has it.
pub fn start_without_stderr(command: &mut Command, columns: u16, rows: u16) -> OnTerminal {
    start_with(command, columns, rows, Streams::AllButStderr)
}

/// Which streams are the terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Streams {
    All,
    AllButStdout,
    AllButStderr,
}

fn start_with(command: &mut Command, columns: u16, rows: u16, streams: Streams) -> OnTerminal {
    let (master, other_side) = pair();
    resize(&master, columns, rows);
    let copy = || other_side.try_clone().expect("a copy of a descriptor");
    command.stdin(copy());
    if streams != Streams::AllButStderr {
        command.stderr(copy());
    }
    if streams != Streams::AllButStdout {
        command.stdout(copy());
    }
    let child = command.spawn().expect("the program starts");
    // The end of the output comes only when nobody here holds the other side any more.
    command.stdin(std::process::Stdio::null());
    if streams != Streams::AllButStderr {
        command.stderr(std::process::Stdio::null());
    }
    if streams != Streams::AllButStdout {
        command.stdout(std::process::Stdio::null());
    }
    let number = fstat(&other_side).expect("a device").st_rdev;
    drop(other_side);
    let (output, hung_up) = (Arc::default(), Arc::default());
    let reader = {
        let master = master.try_clone().expect("a copy of a descriptor");
        let (output, hung_up) = (Arc::clone(&output), Arc::clone(&hung_up));
        Some(std::thread::spawn(move || read_all(master, &output, &hung_up)))
    };
    let (device, columns, rows) = ((major(number), minor(number)), columns.into(), rows.into());
    OnTerminal { child, master, device, output, reader, hung_up, columns, rows }
}

/// Both sides of a new terminal. Programs that other tests start meanwhile inherit neither, or it would outlive them.
fn pair() -> (File, File) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags).expect("a pseudo-terminal");
    grantpt(&master).expect("a pseudo-terminal of one's own");
    unlockpt(&master).expect("a pseudo-terminal that can be opened");
    let name = ptsname_r(&master).expect("the terminal's name");
    let other_side = open(name.as_str(), flags, Mode::empty()).expect("the terminal");
    (OwnedFd::from(master).into(), other_side.into())
}

/// Gives a terminal another size.
fn resize(master: &File, columns: u16, rows: u16) {
    let mut stty = Command::new("stty");
    stty.args(["cols", &columns.to_string(), "rows", &rows.to_string()]);
    let status = stty.stdin(master.try_clone().expect("a copy of a descriptor")).status();
    assert!(status.expect("stty starts").success(), "stty");
}

/// Reads until the other side is closed, which Linux tells by an error, or until this one is to be.
fn read_all(mut master: File, output: &Mutex<Vec<u8>>, hung_up: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !hung_up.load(Ordering::SeqCst) {
        let waited = poll(&mut [PollFd::new(master.as_fd(), PollFlags::POLLIN)], PollTimeout::from(20_u8));
        if waited.expect("a terminal can be waited for") == 0 {
            continue;
        }
        let Ok(count @ 1..) = master.read(&mut buffer) else { return };
        output.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
    }
}

impl OnTerminal {
    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What came so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    fn bytes(&self) -> Vec<u8> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Presses keys.
    pub fn press(&self, keys: &str) {
        (&self.master).write_all(keys.as_bytes()).expect("keys");
    }

    /// Waits until these words have come as often as this.
    #[track_caller]
    pub fn wait_for(&self, words: &str, times: usize) {
        let started = Instant::now();
        while self.output().matches(words).count() < times {
            assert!(
                started.elapsed() < PATIENCE,
                "{words:?} did not come {times} times: {:?}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Gives the terminal another size, which the programs in its foreground are told.
    pub fn resize(&self, columns: u16, rows: u16) {
        resize(&self.master, columns, rows);
    }

    /// The terminal's settings.
    pub fn settings(&self) -> Termios {
        tcgetattr(&self.master).expect("the terminal's settings")
    }

    /// The major and the minor number of the terminal's device.
    pub fn device(&self) -> (u64, u64) {
        self.device
    }

    /// Takes the terminal away, as a window that is closed does, and waits for the end: the exit code; -1 when a
    /// signal ended it.
    pub fn hang_up(mut self) -> i32 {
        self.hung_up.store(true, Ordering::SeqCst);
        self.join_reader();
        self.master = fs_err::File::open("/dev/null").expect("/dev/null").into_parts().0;
        self.child.wait().expect("its end").code().unwrap_or(-1)
    }

    fn join_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the terminal is read");
        }
    }

    /// Waits for the end.
    pub fn finish(mut self) -> Shown {
        let code = self.child.wait().expect("its end").code().unwrap_or(-1);
        self.join_reader();
        let raw = String::from_utf8(self.bytes()).expect("UTF-8");
        let screen = Screen::of(&raw, self.columns, self.rows);
        Shown { code, raw, screen, settings: self.settings() }
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // A test that failed leaves no program behind; one that has ended is not there to be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a terminal shows, with all that has been scrolled away above.
#[derive(Debug)]
pub struct Screen {
    columns: usize,
    rows: usize,
    lines: Vec<Vec<char>>,
    row: usize,
    /// As wide as the screen when the line is full, and the next character begins another.
    column: usize,
    erased: Vec<String>,
    cursor_visible: bool,
}

impl Screen {
    /// The screen after this output.
    pub fn of(output: &str, columns: usize, rows: usize) -> Self {
        let lines = vec![Vec::new()];
        let mut screen =
            Self { columns, rows, lines, row: 0, column: 0, erased: Vec::new(), cursor_visible: true };
        let mut rest = output.chars();
        while let Some(c) = rest.next() {
            match c {
                '\r' => screen.column = 0,
                '\n' => screen.go_to_row(screen.row + 1),
                '\u{1b}' => screen.obey(&sequence(&mut rest)),
                c if c.is_control() => panic!("a control character: {c:?}"),
                c => screen.print(c),
            }
        }
        screen
    }

    /// The lines, without the blanks at their ends and the empty ones at the bottom.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.lines.iter().map(|line| text(line)).collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines
    }

    /// Every line that was shown and then erased, in order; the same many times when it was drawn many times.
    pub fn erased(&self) -> &[String] {
        &self.erased
    }

    /// Whether the cursor is to be seen, at the start of an empty line: where a shell's prompt belongs.
    pub fn is_ready_for_a_prompt(&self) -> bool {
        self.cursor_visible
            && self.column == 0
            && self.lines[self.row..].iter().all(|line| text(line).is_empty())
    }

    fn print(&mut self, c: char) {
        if self.column == self.columns {
            self.go_to_row(self.row + 1);
            self.column = 0;
        }
        let line = &mut self.lines[self.row];
        if line.len() <= self.column {
            line.resize(self.column + 1, ' ');
        }
        line[self.column] = c;
        self.column += 1;
    }

    fn go_to_row(&mut self, row: usize) {
        while self.lines.len() <= row {
            self.lines.push(Vec::new());
        }
        self.row = row;
    }

    /// The first row that can be reached: what is above has been scrolled away.
    fn top(&self) -> usize {
        self.lines.len().saturating_sub(self.rows)
    }

    fn obey(&mut self, sequence: &str) {
        let (parameter, command) = sequence.split_at(sequence.len() - 1);
        let count = || parameter.parse().unwrap_or(1).max(1);
        match (parameter, command) {
            (_, "A") => self.row = self.row.saturating_sub(count()).max(self.top()),
            (_, "B") => {
                self.row = (self.row + count()).min(self.top() + self.rows - 1).min(self.lines.len() - 1);
            }
            ("2", "K") => self.erase(),
            ("?25", "h") => self.cursor_visible = true,
            ("?25", "l") => self.cursor_visible = false,
            // Pasted text is marked or not: shells ask for it.
            ("?2004", "h" | "l") => {}
            _ => panic!("a control sequence: {sequence:?}"),
        }
        if matches!(command, "A" | "B") {
            self.column = self.column.min(self.columns - 1);
        }
    }

    fn erase(&mut self) {
        let line = text(&std::mem::take(&mut self.lines[self.row]));
        if !line.is_empty() {
            self.erased.push(line);
        }
    }
}

fn text(line: &[char]) -> String {
    line.iter().collect::<String>().trim_end().to_owned()
}

/// What follows an escape character: a bracket, which is dropped, parameters and a letter.
fn sequence(rest: &mut std::str::Chars<'_>) -> String {
    assert_eq!(rest.next(), Some('['), "an escape sequence of another kind");
    let mut sequence = String::new();
    for c in rest {
        sequence.push(c);
        if c.is_ascii_alphabetic() {
            return sequence;
        }
    }
    panic!("an unfinished control sequence: {sequence:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_drawn_erased_wrapped_and_scrolled() {
        let screen = Screen::of("one\r\ntwo\u{1b}[1A\r\u{1b}[2KONE\r\n", 10, 5);
        assert_eq!(screen.lines(), ["ONE", "two"]);
        assert_eq!(screen.erased(), ["one"]);
        assert!(!screen.is_ready_for_a_prompt(), "the cursor is on a line with text");
        // A full line, and then a line feed: no empty line between.
        let screen = Screen::of("abcde\r\nfghijk\r\n", 5, 5);
        assert_eq!(screen.lines(), ["abcde", "fghij", "k"]);
        assert!(screen.is_ready_for_a_prompt());
        assert!(!Screen::of("\u{1b}[?25l", 5, 5).is_ready_for_a_prompt());
        // What has been scrolled away is out of reach.
        assert_eq!(Screen::of("1\r\n2\r\n3\u{1b}[9A\rx", 5, 2).lines(), ["1", "x", "3"]);
    }

    #[test]
    fn keys_reach_a_program_and_it_is_told_of_another_size() {
        let mut command = Command::new("setsid");
        let script = "trap 'stty size' WINCH; read -r word; echo \"got $word\"; read -r word; stty -echo";
        command.args(["--ctty", "/bin/sh", "-c", script]);
        let running = start(&mut command, 40, 7);
        let before = running.settings();
        running.press("word\r");
        running.wait_for("got word", 1);
        running.resize(41, 8);
        running.press("\r");
        running.wait_for("8 41", 1);
        let shown = running.finish();
        assert_eq!(shown.code, 0, "{}", shown.raw);
        assert_ne!(shown.settings, before);
    }

    #[test]
    fn a_program_sees_a_terminal_of_the_size_that_was_asked_for() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "test -t 2 && stty size; exit 3"]);
        let shown = start(&mut command, 40, 7).finish();
        assert_eq!((shown.code, shown.raw.as_str()), (3, "7 40\r\n"));
        assert_eq!(shown.screen.lines(), ["7 40"]);
    }
}
