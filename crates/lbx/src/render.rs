//! From events to what the user sees: bars on a terminal that can draw them, plain lines elsewhere, JSON lines on request.
//!
//! Results go to stdout, everything else to stderr; with JSON, everything goes to stdout, a line an object.

mod bars;
mod json;
mod lines;
pub(crate) mod summary;

use std::io::Write;
use std::path::Path;

use lbx_build::Event;
pub(crate) use lbx_build::bytes;
pub(crate) use lines::finding;

use crate::arguments::{Arguments, MessageFormat};
use crate::failure::Failure;

/// Something that shows events. It is called from several threads.
trait Renderer: Send + Sync {
    fn event(&self, event: &Event);

    /// Removes what is not to stay, such as bars.
    fn finish(&self) {}
}

/// Shows what a command does, and how it ends.
pub(crate) struct Output {
    renderer: Box<dyn Renderer>,
    json: bool,
    quiet: bool,
}

impl Output {
    /// Chooses how to show things, once.
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let json = arguments.message_format == MessageFormat::Json;
        let show_pip = arguments.verbose > 0;
        // The log goes to stderr by itself, and would tear bars apart.
        let bars = || if show_pip { None } else { bars::Bars::new() };
        let renderer: Box<dyn Renderer> = if json {
            Box::new(json::Json)
        } else if arguments.quiet {
            Box::new(Silent)
        } else if let Some(bars) = bars() {
            Box::new(bars)
        } else {
            Box::new(lines::Lines::new(show_pip))
        };
        Self { renderer, json, quiet: arguments.quiet }
    }

    /// Shows an event.
    pub(crate) fn event(&self, event: &Event) {
        self.renderer.event(event);
    }

    /// Ends the show of progress.
    pub(crate) fn finish(&self) {
        self.renderer.finish();
    }

    /// Says something in passing.
    pub(crate) fn note(&self, text: &str) {
        if !self.json && !self.quiet {
            stderr(&format!("lbx: {text}"));
        }
    }

    /// Hands over a result: a line on stdout.
    pub(crate) fn result(&self, text: &str) {
        if !self.json {
            stdout(text);
        }
    }

    /// Hands over a result as JSON, when JSON is asked for.
    pub(crate) fn json(&self, value: &serde_json::Value) {
        if self.json {
            stdout(&value.to_string());
        }
    }

    /// Shows a failure, and returns its exit code.
    pub(crate) fn failure(&self, failure: &Failure) -> u8 {
        self.renderer.finish();
        if self.json {
            self.json(&json::failure(failure));
            return failure.code;
        }
        if let Some(output) = &failure.output {
            stderr(printable(output).trim_end());
        }
        stderr(&format!("error: {}", printable(&failure.message)));
        for line in failure.diagnosis.lines() {
            stderr(&format!("  {line}"));
        }
        if let Some(hint) = &failure.hint {
            stderr(&format!("hint: {}", printable(hint)));
        }
        failure.code
    }
}

/// Shows nothing.
struct Silent;

impl Renderer for Silent {
    fn event(&self, _event: &Event) {}
}

/// `1 file`, `2 files`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Something in the store was damaged.
fn damaged(path: &Path) -> String {
    format!("{} is not as it was stored: making it anew", path.display())
}

/// A path as the user would write it: relative to where they are, when it is below.
pub(crate) fn short_path(path: &Path, current_dir: &Path) -> String {
    path.strip_prefix(current_dir).unwrap_or(path).display().to_string()
}

/// Text without control characters: names come from strangers, and a terminal obeys some of them.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let plain = !c.is_control() && !is_unseen(c) || matches!(c, '\n' | '\t');
            plain.then_some(c).into_iter().chain((!plain).then(|| c.escape_default()).into_iter().flatten())
        })
        .collect()
}

/// Names come from strangers, and each has one line.
pub(crate) fn one_line(text: &str) -> String {
    printable(text).replace('\n', "\\n").replace('\t', "\\t")
}

/// What ends a line or turns its direction without being seen.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes a line to stderr. A reader that went away is no reason to fail.
pub(crate) fn stderr(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Writes a line to stdout. A reader that went away is no reason to fail.
pub(crate) fn stdout(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_strangers_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\rc\n\td"), "a\\u{1b}[2Jb\\rc\n\td");
        assert_eq!(printable("a\u{202e}b\u{2028}c é"), "a\\u{202e}b\\u{2028}c é");
    }
}
