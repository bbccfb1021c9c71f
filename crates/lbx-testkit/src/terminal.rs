//! A terminal to run a program on: a real pseudo-terminal, and the screen that the program's output makes on it.
//!
//! The screen knows the control sequences that progress bars need. One that it does not know is a panic, so that a
//! test never takes garbage for a clean screen.

use std::fs::File;
use std::io::Read;
use std::process::{Child, Command};
use std::thread::JoinHandle;

use nix::pty::{Winsize, openpty};

/// A program that runs on a terminal of its own.
#[derive(Debug)]
pub struct OnTerminal {
    child: Child,
    reader: JoinHandle<String>,
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
}

/// Starts a program with stdin, stdout and stderr on a new terminal, but for streams that the command has set.
/// What it needs to know of the terminal otherwise, such as `TERM`, is the caller's to set.
pub fn start(command: &mut Command, columns: u16, rows: u16) -> OnTerminal {
    start_with(command, columns, rows, false)
}

/// The same with stdout left as the command has it.
pub fn start_stderr_only(command: &mut Command, columns: u16, rows: u16) -> OnTerminal {
    start_with(command, columns, rows, true)
}

fn start_with(command: &mut Command, columns: u16, rows: u16, keep_stdout: bool) -> OnTerminal {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = openpty(&size, None).expect("a pseudo-terminal");
    let copy = || pair.slave.try_clone().expect("a copy of a descriptor");
    command.stdin(copy()).stderr(copy());
    if !keep_stdout {
        command.stdout(copy());
    }
    let child = command.spawn().expect("the program starts");
    // The end of the output comes only when nobody here holds the other side any more.
    command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    if !keep_stdout {
        command.stdout(std::process::Stdio::null());
    }
    drop(pair.slave);
    let master = File::from(pair.master);
    let reader = std::thread::spawn(move || read_all(master));
    OnTerminal { child, reader, columns: columns.into(), rows: rows.into() }
}

/// Reads until the other side is closed, which Linux tells by an error.
fn read_all(mut master: File) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = master.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(bytes).expect("UTF-8")
}

impl OnTerminal {
    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end.
    pub fn finish(mut self) -> Shown {
        let code = self.child.wait().expect("its end").code().unwrap_or(-1);
        let raw = self.reader.join().expect("the terminal is read");
        let screen = Screen::of(&raw, self.columns, self.rows);
        Shown { code, raw, screen }
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
    fn a_program_sees_a_terminal_of_the_size_that_was_asked_for() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "test -t 2 && stty size; exit 3"]);
        let shown = start(&mut command, 40, 7).finish();
        assert_eq!((shown.code, shown.raw.as_str()), (3, "7 40\r\n"));
        assert_eq!(shown.screen.lines(), ["7 40"]);
    }
}
