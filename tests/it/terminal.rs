//! What is drawn on a terminal, and what is left on it: on a real pseudo-terminal, of several sizes and kinds.

use std::process::Command;

use lbx_testkit::command::{Home, run};
use lbx_testkit::images::{Image, Layer, Tar};
use lbx_testkit::process::signal;
use lbx_testkit::registry::Registry;
use lbx_testkit::stall::StallingRegistry;
use lbx_testkit::terminal::{Shown, start, start_stderr_only};
use lbx_testkit::wheels::Wheel;
use nix::sys::signal::Signal;

use crate::support::{HEAD, image, lbx, lbx_shared};

/// A project with a function and a layer, whose requirements come from `wheels/`.
fn project(requirement: &str) -> Home {
    let home = Home::new();
    Wheel::new("one_wheel_with_quite_a_long_name_that_pip_says_in_full", "1.0")
        .write(&home.project().join("wheels"));
    home.write("r.txt", format!("--no-index\n--find-links wheels\n{requirement}\n"));
    home.write("src/app.py", "");
    home.write("lib/lib.py", "");
    let tables =
        "[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n[layers.lib]\nsource = \"lib\"\n";
    home.write("lbx.toml", format!("{HEAD}{tables}"));
    home
}

const REQUIREMENT: &str = "one_wheel_with_quite_a_long_name_that_pip_says_in_full";

/// On a terminal that can do what bars need.
fn on_xterm(command: &mut Command, columns: u16, rows: u16) -> Shown {
    start(command.env("TERM", "xterm-256color"), columns, rows).finish()
}

/// Whether something was drawn that has these words in one line.
fn drew(shown: &Shown, words: &[&str]) -> bool {
    let lines = shown.screen.lines();
    let mut all = shown.screen.erased().iter().chain(&lines);
    all.any(|line| words.iter().all(|word| line.contains(word)))
}

/// What lines of progress start with. A line that was too long for the screen goes on in one that starts otherwise.
#[track_caller]
fn nothing_is_cut_in_two(shown: &Shown) {
    // Spinners turn through Braille patterns.
    let is_marker = |c| matches!(c, ' ' | '✓' | '\u{2801}'..='\u{28ff}');
    for line in shown.screen.erased() {
        let mut start = line.chars();
        let marker = start.next().unwrap_or(' ');
        let fits = is_marker(marker) && start.next() == Some(' ');
        let title = line.get(marker.len_utf8() + 1..).unwrap_or_default();
        assert!(fits && ["layer ", "pip ", "zip "].iter().any(|kind| title.starts_with(kind)), "{line:?}");
    }
}

/// The lines at the end, but for the one that names versions and the image's digest, and without sizes.
fn left(shown: &Shown) -> Vec<String> {
    let lines = shown.screen.lines();
    let is_said =
        |line: &str| line.starts_with("lbx: image ready: Python 3.11.") || line.starts_with("lbx: lock: ");
    let lines = lines.iter().filter(|line| !is_said(line.as_str()));
    lines.map(|line| without_size(line)).collect()
}

/// A line about a zip of some bytes, without their number.
fn without_size(line: &str) -> String {
    let Some((start, end)) = line.split_once(" B, ") else { return line.to_owned() };
    format!("{} B, {end}", start.trim_end_matches(|c: char| c.is_ascii_digit()))
}

#[test]
fn bars_are_drawn_for_layers_pip_and_zips_and_only_results_stay() {
    let Some(image) = image() else { return };
    let home = project(REQUIREMENT);
    let shown = on_xterm(&mut lbx(&home, &["build", "--image", &image]), 100, 30);
    assert_eq!(shown.code, 0, "{}", shown.raw);
    for words in [
        &["layer 1 pull", " MB of "][..],
        &["layer 1 unpack", "█"],
        &["  pip app", "waits"],
        &[" pip app", "runs"],
        &["  zip lib", "waits"],
    ] {
        assert!(drew(&shown, words), "{words:?} was not drawn: {:?}", shown.raw);
    }
    // Which of them are drawn is up to the pace.
    let words = ["Looking in indexes: ", "Collecting ", "Saved /lbx/out"];
    assert!(words.iter().any(|words| drew(&shown, &[" pip app", words])), "{:?}", shown.raw);
    let (summary, results): (Vec<String>, Vec<String>) =
        left(&shown).into_iter().partition(|line| line.starts_with("lbx:"));
    assert_eq!(summary[0], "lbx:   zipped  unpacked");
    assert!(summary.last().is_some_and(|line| line.starts_with("lbx: reused 0 of 1 wheel, ")), "{summary:?}");
    assert_eq!(
        results,
        [
            "✓ pip app         1 wheel",
            "✓ zip app          B, 3 files",
            "✓ zip lib          B, 1 file",
            "dist/app.zip",
            "dist/lib.zip"
        ]
    );
    assert!(shown.screen.is_ready_for_a_prompt(), "{:?}", shown.raw);
    nothing_is_cut_in_two(&shown);
}

#[test]
fn narrow_and_low_terminals_show_one_line_for_each_bar_and_are_clean_afterwards() {
    let Some(image) = image() else { return };
    for (columns, rows) in [(40, 24), (60, 4), (80, 24)] {
        let home = project(REQUIREMENT);
        let shown = on_xterm(&mut lbx(&home, &["build", "--image", &image]), columns, rows);
        assert_eq!(shown.code, 0, "{}", shown.raw);
        nothing_is_cut_in_two(&shown);
        assert!(drew(&shown, &["layer 1 unpack", " MB of "]), "{:?}", shown.raw);
        let left = left(&shown).join("\n");
        assert!(!left.contains("layer ") && !left.contains("runs") && !left.contains("waits"), "{left}");
        assert!(left.ends_with("dist/app.zip\ndist/lib.zip"), "{left}");
        assert!(shown.screen.is_ready_for_a_prompt(), "{:?}", shown.raw);
    }
}

#[test]
fn a_prompt_has_a_line_of_its_own_also_when_results_go_elsewhere() {
    let Some(image) = image() else { return };
    let home = project(REQUIREMENT);
    let mut command = lbx_shared(&home, &["build", "--image", &image]);
    command.env("TERM", "xterm").stdout(std::process::Stdio::null());
    let shown = start_stderr_only(&mut command, 80, 24).finish();
    assert_eq!(shown.code, 0, "{}", shown.raw);
    let left = left(&shown);
    assert!(left.contains(&"✓ zip lib          B, 1 file".to_owned()), "{left:?}");
    assert!(left.last().is_some_and(|line| line.starts_with("lbx: reused ")), "{left:?}");
    assert!(shown.screen.is_ready_for_a_prompt(), "{:?}", shown.raw);
}

#[test]
fn a_failure_takes_the_bars_away_before_it_is_told() {
    let Some(image) = image() else { return };
    let home = project("two");
    let shown = on_xterm(&mut lbx_shared(&home, &["build", "--image", &image]), 80, 24);
    assert_eq!(shown.code, 6, "{}", shown.raw);
    assert!(drew(&shown, &["  zip app", "waits"]), "{:?}", shown.raw);
    let left = left(&shown);
    // Where the project is takes as many lines as its path is long.
    let said = left.iter().position(|line| line.starts_with("ERROR: ")).unwrap();
    assert!(left[0].starts_with("Looking in indexes: /"), "{left:?}");
    assert_eq!(
        left[said..],
        [
            "ERROR: Could not find a version that satisfies the requirement two (from version",
            "s: none)",
            "ERROR: No matching distribution found for two",
            "error: pip cannot build the requirements of r.txt (exit status 1)",
            "hint: no version of that package fits this Python, CPU and C library; `lbx build",
            " -v` shows what pip looked at",
        ]
    );
    assert!(shown.screen.is_ready_for_a_prompt(), "{:?}", shown.raw);
}

#[test]
fn an_interrupt_takes_the_bars_away() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path());
    let layer = Layer::plain(&Tar::new().file("zeros", 0o644, &vec![0; 1 << 20]).finish());
    registry.push_image("python", "3.11", &Image::new("amd64", vec![layer]));
    let stalling = StallingRegistry::start(registry.address(), 600_000);
    let home = project(REQUIREMENT);
    let reference = format!("{}/python:3.11", stalling.address());
    let mut command = lbx(&home, &["build", "--image", &reference]);
    let running = start(command.env("TERM", "xterm"), 80, 24);
    stalling.wait_until_stalled();
    // Bars are drawn now and then, and not at once.
    std::thread::sleep(std::time::Duration::from_millis(300));
    signal(running.pid(), Signal::SIGINT);
    let shown = running.finish();
    assert_eq!(shown.code, 130, "{}", shown.raw);
    assert!(drew(&shown, &["layer 1 pull", "of 1.1 MB"]), "{:?}", shown.raw);
    assert_eq!(shown.screen.lines(), ["error: interrupted"]);
    assert!(shown.screen.is_ready_for_a_prompt(), "{:?}", shown.raw);
}

/// What is said without bars, line by line.
fn said_in_lines(said: &str) {
    let lines: Vec<String> = said.lines().map(without_size).collect();
    assert!(!said.contains('\u{1b}') && lines.iter().all(|line| !line.contains('✓')), "{said}");
    assert!(lines[0].starts_with("lbx: building app, lib in "), "{said}");
    for line in ["lbx: pip: app: 1 wheel", "lbx: built app:  B, 3 files", "lbx: built lib:  B, 1 file"] {
        assert!(lines.iter().any(|one| one == line), "{line}: {said}");
    }
}

#[test]
fn terminals_that_cannot_move_their_cursor_and_pipes_get_plain_lines() {
    let Some(image) = image() else { return };
    let home = project(REQUIREMENT);
    let build = || lbx_shared(&home, &["build", "--image", &image]);
    for term in [Some("dumb"), None] {
        let mut command = build();
        let shown = start(command.envs(term.map(|term| ("TERM", term))), 80, 24).finish();
        assert_eq!(shown.code, 0, "{}", shown.raw);
        said_in_lines(&shown.raw);
    }
    let ran = run(build().env("TERM", "xterm"));
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "dist/app.zip\ndist/lib.zip\n"));
    said_in_lines(&ran.stderr);
}

#[test]
fn the_developers_log_and_the_progress_do_not_tear_each_other_apart() {
    let Some(image) = image() else { return };
    let home = project(REQUIREMENT);
    let mut command = lbx_shared(&home, &["build", "-v", "--image", &image]);
    let shown = start(command.env("TERM", "xterm").env("NO_COLOR", "1"), 200, 50).finish();
    assert_eq!(shown.code, 0, "{}", shown.raw);
    said_in_lines(&shown.raw);
    assert!(shown.raw.contains("lbx: pip: Looking in indexes: /"), "{}", shown.raw);
}

#[test]
fn bars_have_no_colours_whether_these_are_wanted_or_not() {
    let Some(image) = image() else { return };
    let home = project(REQUIREMENT);
    for no_colour in [None, Some("1")] {
        let mut command = lbx_shared(&home, &["build", "--image", &image]);
        let shown = on_xterm(command.envs(no_colour.map(|value| ("NO_COLOR", value))), 80, 24);
        assert_eq!(shown.code, 0, "{}", shown.raw);
        // The screen knows no sequence that sets a colour.
        assert!(drew(&shown, &[" zip app", "runs"]) || drew(&shown, &["✓ zip app"]), "{:?}", shown.raw);
    }
}

#[test]
fn the_log_has_colours_on_a_terminal_that_has_them_and_nowhere_else() {
    let home = Home::new();
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path());
    let layer = Layer::gzip(&Tar::new().file("hello", 0o644, b"hello").finish());
    registry.push_image("x", "1", &Image::new("amd64", vec![layer]));
    let pull = || lbx(&home, &["pull", "-vv", &registry.reference("x", "1")]);
    let elsewhere = run(pull().env("TERM", "xterm-256color"));
    assert!(elsewhere.stderr.contains("DEBUG") && !elsewhere.stderr.contains('\u{1b}'), "{elsewhere:?}");
    let raw = |command: &mut Command| start(command, 80, 24).finish().raw;
    assert!(!raw(pull().env("TERM", "dumb")).contains('\u{1b}'));
    assert!(!raw(pull().env("TERM", "xterm-256color").env("NO_COLOR", "1")).contains('\u{1b}'));
}
