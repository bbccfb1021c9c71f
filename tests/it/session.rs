//! `lbx run` and `lbx shell`: exit codes, streams, signals, what the command may touch, and the terminal.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use lbx_testkit::command::{Home, Ran, run};
use lbx_testkit::process::{Seen, descendants, signal, wait_for};
use lbx_testkit::terminal::{OnTerminal, start, start_without_stderr};
use nix::sys::signal::Signal;

use crate::support::{HEAD, LBX, RUNTIME, fails, image, lbx, lbx_shared, shared_store};

/// `lbx` with options for the stand-in image, as arguments.
fn arguments<'a>(command: &'a str, image: &'a str, options: &[&'a str], program: &[&'a str]) -> Vec<&'a str> {
    let all = [&[command, "--runtime", RUNTIME, "--image", image, "--offline"], options, program].concat();
    shared_store();
    all
}

/// `lbx run` in the stand-in image.
fn lbx_run(home: &Home, options: &[&str], program: &[&str]) -> Option<Command> {
    let image = image()?;
    Some(lbx_shared(home, &arguments("run", &image, options, &[&["--"], program].concat())))
}

/// Runs a program there to its end.
fn ran(home: &Home, options: &[&str], program: &[&str]) -> Option<Ran> {
    Some(run(&mut lbx_run(home, options, program)?))
}

/// What a script prints; it must succeed and say nothing else, and lbx nothing at all.
#[track_caller]
fn prints(home: &Home, options: &[&str], script: &str, expected: &str) -> Option<()> {
    let ran = ran(home, options, &["sh", "-c", script])?;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    assert_eq!(ran.stdout, expected);
    Some(())
}

/// A test that finds no image is skipped, loudly.
fn skipped(_: Option<()>) {}

#[test]
fn the_exit_code_is_the_commands() {
    let home = Home::new();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -34 $$", 162),
    ] {
        let Some(ran) = ran(&home, &[], &["sh", "-c", script]) else { return };
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (code, "", ""), "{script}");
    }
}

#[test]
fn a_program_that_is_missing_or_none_has_the_exit_code_that_shells_give_it() {
    let home = Home::new();
    home.write("data", "no program");
    for (program, code, said) in [
        ("nope", 127, "error: no program `nope` in the sandbox\n"),
        ("/nope/nope", 127, "error: no program `/nope/nope` in the sandbox\n"),
        (
            "/lbx/project/data",
            126,
            "error: cannot execute `/lbx/project/data` in the sandbox: \
             cannot execute the command: execve(\"/lbx/project/data\"): EACCES\n",
        ),
        (
            "/etc",
            126,
            "error: cannot execute `/etc` in the sandbox: cannot execute the command: execve(\"/etc\"): EACCES\n",
        ),
    ] {
        let Some(mut command) = lbx_run(&home, &[], &[program]) else { return };
        fails(&home, &mut command, code, said);
    }
}

#[test]
fn every_byte_of_input_and_output_is_passed_on() {
    let home = Home::new();
    let bytes: Vec<u8> = (0..1_000_003_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
    let Some(mut command) = lbx_run(&home, &[], &["cat"]) else { return };
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut arrived = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stdin.write_all(&bytes).unwrap();
            drop(stdin);
        });
        stdout.read_to_end(&mut arrived).unwrap();
    });
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(arrived == bytes, "{} bytes arrived", arrived.len());
}

#[test]
fn files_as_streams_are_read_and_written_but_not_handed_over() {
    let home = Home::new();
    home.write("in", "words");
    home.write("out", "");
    let open = |name: &str, write: bool| {
        fs_err::OpenOptions::new().read(!write).write(write).open(home.project().join(name)).unwrap()
    };
    // What could open its input again could write to it, and what could leave it, when it is a folder, is outside.
    let script = "cat; stat -Lc %F /dev/stdin /dev/stdout /dev/stderr; : > /proc/self/fd/0; echo end >&2";
    let Some(mut command) = lbx_run(&home, &[], &["sh", "-c", script]) else { return };
    let out = open("out", true);
    command.stdin(open("in", false).into_parts().0).stderr(out.try_clone().unwrap().into_parts().0);
    let status = command.stdout(out.into_parts().0).status().unwrap();
    assert_eq!(status.code(), Some(0));
    let said = fs_err::read_to_string(home.project().join("out")).unwrap();
    // Output and messages that go to one place stay in order.
    assert_eq!(said, "wordsfifo\nfifo\nfifo\nend\n");
    assert_eq!(fs_err::read_to_string(home.project().join("in")).unwrap(), "words");
}

#[test]
fn a_reader_that_goes_away_ends_the_command() {
    let home = Home::new();
    let Some(mut command) = lbx_run(&home, &[], &["sh", "-c", "while echo word; do :; done"]) else { return };
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut word = [0; 5];
    child.stdout.take().unwrap().read_exact(&mut word).unwrap();
    let status = wait_for("the end of lbx", || child.try_wait().unwrap());
    assert_eq!((&word, status.code()), (b"word\n", Some(141)));
}

#[test]
fn the_project_is_read_only_unless_it_may_be_written() {
    let home = Home::new();
    home.write("old", "old");
    let script = "cat old; touch new; echo changed > old; rm old";
    let Some(ran) = ran(&home, &[], &["sh", "-c", script]) else { return };
    assert_eq!((ran.code, ran.stdout.as_str()), (1, "old"));
    for name in ["new", "old"] {
        assert!(
            ran.stderr.contains(&format!("{name}: Read-only file system"))
                || ran.stderr.contains(&format!("'{name}': Read-only file system")),
            "{}",
            ran.stderr
        );
    }
    assert_eq!(fs_err::read_to_string(home.project().join("old")).unwrap(), "old");
    assert!(!home.project().join("new").exists());

    skipped(prints(&home, &["--write"], "touch new; echo changed > old; stat -c %u:%g new", "1000:1000\n"));
    let written = fs_err::metadata(home.project().join("new")).unwrap();
    assert_eq!(
        (written.uid(), written.gid()),
        (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw())
    );
    assert_eq!(fs_err::read_to_string(home.project().join("old")).unwrap(), "changed\n");
}

#[test]
fn what_may_write_to_the_project_must_not_reach_the_store() {
    let home = Home::new();
    let Some(image) = image() else { return };
    let mut command = lbx(&home, &arguments("run", &image, &["--write"], &["--", "true"]));
    fails(
        &home,
        command.env("LBX_CACHE_DIR", "store"),
        3,
        "error: the store [ROOT]/project/store and the project [ROOT]/project lie one in the other\n\
         hint: what a command writes must not reach later builds: point LBX_CACHE_DIR elsewhere, or leave --write out\n",
    );
}

#[test]
fn there_is_no_network_unless_it_is_wanted() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let connect =
        "import socket, sys\nsocket.create_connection(('127.0.0.1', int(sys.argv[1])), 5)\nprint('there')";
    let Some(without) = ran(&home, &[], &["python3.11", "-c", connect, &port]) else { return };
    assert_eq!((without.code, without.stdout.as_str()), (1, ""), "{without:?}");
    assert!(without.stderr.contains("PermissionError"), "{without:?}");
    let Some(with) = ran(&home, &["--network"], &["python3.11", "-c", connect, &port]) else { return };
    assert_eq!((with.code, with.stdout.as_str()), (0, "there\n"), "{with:?}");
}

#[test]
fn the_current_folder_is_the_same_one_inside() {
    let home = Home::new();
    home.write("lbx.toml", HEAD);
    home.write("a/b/file", "here");
    skipped(prints(&home, &[], "pwd", "/lbx/project\n"));
    let Some(mut command) = lbx_run(&home, &[], &["sh", "-c", "pwd; cat file"]) else { return };
    let ran = run(command.current_dir(home.project().join("a/b")));
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "/lbx/project/a/b\nhere"), "{ran:?}");
    // A project that is elsewhere has no such folder.
    let elsewhere = Home::new();
    let config = home.project().join("lbx.toml").display().to_string();
    skipped(prints(&elsewhere, &["--config", &config], "pwd; ls", "/lbx/project\na\nlbx.toml\n"));
}

#[test]
fn what_the_configuration_names_besides_the_image_need_not_be_there() {
    let home = Home::new();
    home.write(
        "lbx.toml",
        format!("{HEAD}[functions.app]\nsource = \"gone\"\nrequirements = [\"gone.txt\"]\n"),
    );
    skipped(prints(&home, &[], "echo $LAMBDA_TASK_ROOT", "/var/task\n"));
}

#[test]
fn a_limit_that_the_command_met_is_told() {
    let home = Home::new();
    let script = "exec head -c 2000000 /dev/zero > /tmp/zeros";
    let Some(ran) = ran(&home, &["--file-size-limit", "1MB"], &["sh", "-c", script]) else { return };
    let told = "lbx: the limit of 1.0 MB for one file was reached: raise it with --file-size-limit\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (153, told));
}

#[test]
fn nothing_of_the_hosts_environment_is_inside() {
    let home = Home::new();
    let Some(mut command) = lbx_run(&home, &[], &["env"]) else { return };
    let ran = run(command
        .env("SECRET", "secret")
        .env("TERM", "xterm")
        .env("PIP_INDEX_URL", "https://me:secret@x/"));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!ran.stdout.contains("secret") && !ran.stdout.contains("TERM"), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("HOME=/home/lbx\n") && ran.stdout.contains("PATH=/var/lang/bin:"),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_pull_is_shown_before_the_command_starts_and_nothing_when_there_is_none() {
    let Some(image) = image() else { return };
    let home = Home::new();
    let lbx_run = || lbx(&home, &["run", "--runtime", RUNTIME, "--image", &image, "--", "echo", "done"]);
    let first = run(&mut lbx_run());
    assert_eq!((first.code, first.stdout.as_str()), (0, "done\n"), "{first:?}");
    assert!(first.stderr.lines().all(|line| line.starts_with("lbx: ")), "{first:?}");
    for words in ["lbx: image sha256:", "lbx: layer 1 of "] {
        assert!(first.stderr.contains(words), "{first:?}");
    }
    let second = run(&mut lbx_run());
    assert_eq!((second.code, second.stdout.as_str(), second.stderr.as_str()), (0, "done\n", ""));
}

#[test]
fn command_lines_that_make_no_sense_are_refused() {
    let home = Home::new();
    fails(
        &home,
        &mut lbx(&home, &["shell"]),
        2,
        "error: a shell needs a terminal, and stdin and stdout are not both one\n\
         hint: run a command: lbx run -- CMD\n",
    );
    let ran = run(&mut lbx(&home, &["run", "--message-format", "json", "--", "true"]));
    assert_eq!(ran.code, 2);
    assert!(ran.stdout.contains("with --message-format json, stdout is lbx's"), "{ran:?}");
    for arguments in [&["run"][..], &["run", "--"], &["run", "true"]] {
        let ran = run(&mut lbx(&home, arguments));
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
        assert!(ran.stderr.contains("CMD") || ran.stderr.contains("'true'"), "{ran:?}");
    }
}

/// A running `lbx`. A test that failed leaves none behind.
struct Running {
    child: Child,
    seen: Vec<Seen>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended is not there to be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a script whose first words are `ready`, and waits for them.
fn started(home: &Home, script: &str) -> Option<Running> {
    let mut command = lbx_run(home, &[], &["sh", "-c", script])?;
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("lbx starts");
    let mut running = Running { child, seen: Vec::new() };
    let mut words = [0; 6];
    running.child.stdout.as_mut().expect("a pipe").read_exact(&mut words).expect("the first words");
    assert_eq!(&words, b"ready\n");
    running.seen = descendants(running.child.id());
    assert!(running.seen.iter().any(|one| one.name == "sh"), "{:?}", running.seen);
    Some(running)
}

/// How it ended; nothing runs on.
#[track_caller]
fn end(mut running: Running) -> (Option<i32>, String) {
    let status = wait_for("the end of lbx", || running.child.try_wait().expect("its state"));
    wait_for("the end of the sandbox", || (!running.seen.iter().any(Seen::is_alive)).then_some(()));
    let mut said = String::new();
    running.child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("UTF-8");
    (status.code(), said)
}

#[test]
fn a_signal_to_lbx_reaches_the_command_whose_end_decides() {
    let home = Home::new();
    for (with, name, code) in [(Signal::SIGINT, "INT", 130), (Signal::SIGTERM, "TERM", 143)] {
        let Some(running) = started(&home, "echo ready; while :; do sleep 600; done") else { return };
        signal(running.child.id(), with);
        assert_eq!(end(running), (Some(code), String::new()));
        // One that cleans up, and has its own code.
        let script = format!("trap 'echo heard; exit 9' {name}; echo ready; while :; do sleep 600; done");
        let Some(running) = started(&home, &script) else { return };
        signal(running.child.id(), with);
        assert_eq!(end(running), (Some(9), "heard\n".to_owned()));
    }
}

#[test]
fn a_second_signal_ends_a_command_that_ignores_them_and_all_that_it_started() {
    let home = Home::new();
    let script = "trap 'echo heard' TERM INT; (trap '' TERM INT; sleep 600) & echo ready; \
                  while :; do sleep 600 & wait $!; done";
    let Some(mut running) = started(&home, script) else { return };
    signal(running.child.id(), Signal::SIGINT);
    let mut word = [0; 6];
    running.child.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
    assert_eq!((&word, running.child.try_wait().unwrap()), (b"heard\n", None));
    signal(running.child.id(), Signal::SIGTERM);
    assert_eq!(end(running).0, Some(137));
}

#[test]
fn a_signal_before_the_command_starts_stops_what_is_done_for_it() {
    let Some(image) = image() else { return };
    let (address, name) = image.split_once('/').unwrap();
    let stalling = lbx_testkit::stall::StallingRegistry::start(address, 100_000);
    let home = Home::new();
    let reference = format!("{}/{name}", stalling.address());
    let mut command =
        lbx(&home, &["run", "--runtime", RUNTIME, "--image", &reference, "--", "echo", "never"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let running = Running { child, seen: Vec::new() };
    stalling.wait_until_stalled();
    signal(running.child.id(), Signal::SIGTERM);
    assert_eq!(end(running), (Some(143), String::new()));
}

/// `lbx` on a terminal of its own, which is its controlling one, so that it is told of another size.
fn on_terminal(home: &Home, arguments: &[&str]) -> Command {
    let mut command = home.command("setsid");
    command.args(["--ctty", LBX]).args(arguments);
    command.env("LBX_CACHE_DIR", shared_store()).env("TERM", "dumb");
    command
}

/// The image's shell at its first prompt.
fn shell(home: &Home, options: &[&str]) -> Option<OnTerminal> {
    let image = image()?;
    let running = start(&mut on_terminal(home, &arguments("shell", &image, options, &[])), 80, 24);
    running.wait_for(PROMPT, 1);
    Some(running)
}

/// What the shell shows where it waits for a line.
const PROMPT: &str = "lbx:/lbx/project$ ";

#[test]
fn a_shell_has_a_prompt_a_name_and_a_terminal_and_its_exit_code_is_passed_on() {
    let home = Home::new();
    let Some(running) = shell(&home, &[]) else { return };
    let raw = running.settings();
    running.press("id -un; test -t 0 -a -t 1 -a -t 2 && echo on-$TERM\r");
    running.wait_for("on-dumb", 1);
    running.press("cd /tmp\r");
    running.wait_for("lbx:/tmp$ ", 1);
    running.press("exit 7\r");
    let shown = running.finish();
    assert_eq!(shown.code, 7, "{}", shown.raw);
    let lines = shown.screen.lines();
    assert!(lines.iter().any(|line| line == "lbx"), "{lines:?}");
    assert!(lines.last().is_some_and(|line| line == "exit"), "{lines:?}");
    // No word of what it misses, such as job control or a name.
    let first = lines.first().expect("a line");
    assert!(first.starts_with(PROMPT) && !shown.raw.contains("no job control"), "{lines:?}");
    assert_ne!(shown.settings, raw, "the terminal is as it was, and not raw any more");
}

#[test]
fn a_shell_without_bash_is_the_one_that_every_image_has() {
    use lbx_testkit::images::{Layer, Tar};
    // The image's other shell is this one by another name.
    let other = b"#!/var/lang/bin/python3.11\nimport os, sys\nprint('shell', sys.argv, os.environ['PS1'])\n";
    let tar = Tar::new().file("usr/bin/.wh.bash", 0o644, b"").file("usr/bin/sh", 0o755, other);
    let layer = Layer::gzip(&tar.finish());
    let Some(image) = lbx_testkit::standin::with_layer(RUNTIME, "without-bash", &layer) else { return };
    let home = Home::new();
    let mut command = on_terminal(&home, &["shell", "--quiet", "--runtime", RUNTIME, "--image", &image]);
    let shown = start(&mut command, 80, 24).finish();
    assert_eq!(shown.code, 0, "{}", shown.raw);
    assert_eq!(shown.screen.lines(), [r"shell ['/bin/sh'] lbx:$PWD\$"]);
}

#[test]
fn the_size_of_the_terminal_reaches_the_command_also_when_it_changes() {
    let home = Home::new();
    let Some(running) = shell(&home, &[]) else { return };
    running.press("stty size; trap 'stty size' WINCH\r");
    running.wait_for("24 80", 1);
    running.wait_for(PROMPT, 2);
    running.resize(91, 13);
    // Bash runs traps when a line is done.
    wait_for("the new size", || {
        running.press("\r");
        std::thread::sleep(std::time::Duration::from_millis(50));
        running.output().contains("13 91").then_some(())
    });
    running.press("exit\r");
    assert_eq!(running.finish().code, 0);
}

#[test]
fn interrupts_from_the_keyboard_are_the_commands() {
    let home = Home::new();
    let Some(running) = shell(&home, &[]) else { return };
    running.press("echo now; sleep 600\r");
    running.wait_for("now", 2);
    let seen = descendants(running.pid());
    wait_for("the command to be interrupted", || {
        running.press("\u{3}");
        std::thread::sleep(std::time::Duration::from_millis(50));
        (running.output().matches(PROMPT).count() >= 2).then_some(())
    });
    assert!(seen.iter().any(|one| one.name == "bash" && one.is_alive()), "the shell goes on: {seen:?}");
    running.press("exit $?\r");
    let shown = running.finish();
    assert_eq!(shown.code, 130, "{}", shown.raw);
}

#[test]
fn the_terminals_settings_are_restored_after_every_end() {
    let Some(image) = image() else { return };
    let home = Home::new();
    let ends: [(&str, Option<Signal>, i32); 4] = [
        ("echo ready; read -r line; exit 3", None, 3),
        ("trap '' TERM HUP; echo ready; read -r line; sleep 600", Some(Signal::SIGTERM), 143),
        ("trap '' TERM HUP; echo ready; read -r line; sleep 600", Some(Signal::SIGHUP), 129),
        ("echo ready; read -r line; kill -SEGV $$", None, 139),
    ];
    for (script, with, code) in ends {
        // A terminal like the one that lbx gets, on which nothing was done.
        let fresh = start(&mut Command::new("true"), 80, 24).finish().settings;
        let program = ["--", "bash", "-c", script];
        let running = start(&mut on_terminal(&home, &arguments("run", &image, &[], &program)), 80, 24);
        running.wait_for("ready", 1);
        assert_ne!(running.settings(), fresh, "keys are not the user's terminal's any more");
        let seen = descendants(running.pid());
        match with {
            Some(with) => signal(running.pid(), with),
            None => running.press("\r"),
        }
        let shown = running.finish();
        assert_eq!(shown.code, code, "{script}: {}", shown.raw);
        assert!(shown.settings == fresh, "{script}: {:?}", shown.settings);
        wait_for("the end of the sandbox", || (!seen.iter().any(Seen::is_alive)).then_some(()));
    }
    // Nor does one that never started leave anything.
    let fresh = start(&mut Command::new("true"), 80, 24).finish().settings;
    let missing = on_terminal(&home, &arguments("run", &image, &[], &["--", "nope"]));
    let shown = start(&mut { missing }, 80, 24).finish();
    assert_eq!(
        (shown.code, shown.screen.lines().concat().as_str()),
        (127, "error: no program `nope` in the sandbox")
    );
    assert!(shown.settings == fresh, "{:?}", shown.settings);
}

#[test]
fn a_terminal_that_goes_away_takes_the_command_with_it() {
    let Some(image) = image() else { return };
    let home = Home::new();
    let program = ["--", "bash", "-c", "trap '' HUP TERM; echo ready; sleep 600"];
    let running = start(&mut on_terminal(&home, &arguments("run", &image, &[], &program)), 80, 24);
    running.wait_for("ready", 1);
    let seen = wait_for("sleep", || {
        let seen = descendants(running.pid());
        seen.iter().any(|one| one.name == "sleep").then_some(seen)
    });
    assert_eq!(running.hang_up(), 129);
    wait_for("the end of the sandbox", || (!seen.iter().any(Seen::is_alive)).then_some(()));
}

#[test]
fn the_users_own_terminal_is_never_handed_over() {
    let Some(image) = image() else { return };
    let home = Home::new();
    // The device that each stream is: the user's terminals are the host's, and known here by their numbers.
    let script = "stat -Lc %F:%t:%T /dev/stdin /dev/stdout /dev/stderr";
    let program = ["--", "sh", "-c", script];
    let command = || on_terminal(&home, &arguments("run", &image, &[], &program));
    let all = start(&mut command(), 80, 24);
    let (major, minor) = all.device();
    let own = format!("character special file:{major:x}:{minor:x}");
    let shown = all.finish();
    assert_eq!(shown.code, 0, "{}", shown.raw);
    let lines = shown.screen.lines();
    assert!(
        lines.len() == 3 && lines.iter().all(|line| line.starts_with("character special file:")),
        "{lines:?}"
    );
    assert!(!lines.contains(&own), "{own}: {lines:?}");
    // Messages that go elsewhere stay apart, and input that comes from elsewhere makes all of them pipes.
    let errors = home.project().join("errors");
    let mut apart = command();
    let shown =
        start_without_stderr(apart.stderr(fs_err::File::create(&errors).unwrap().into_parts().0), 80, 24);
    let lines = shown.finish().screen.lines();
    assert!(lines[0].starts_with("character") && lines[1].starts_with("character"), "{lines:?}");
    assert_eq!(lines[2], "fifo:0:0");
    assert_eq!(fs_err::read_to_string(&errors).unwrap(), "");
}

#[test]
fn keys_cannot_be_pressed_by_the_command() {
    let Some(image) = image() else { return };
    let home = Home::new();
    let script = "import fcntl, termios\nfor request in termios.TIOCSTI, 0x541C:\n    try:\n        \
                  fcntl.ioctl(0, request, b'x')\n        print('pressed')\n    except OSError as error:\n        \
                  print(error.strerror)\n";
    let program = ["--", "python3.11", "-c", script];
    let shown = start(&mut on_terminal(&home, &arguments("run", &image, &[], &program)), 80, 24).finish();
    assert_eq!(shown.screen.lines(), ["Operation not permitted", "Operation not permitted"], "{}", shown.raw);
}

#[test]
fn each_backend_that_works_here_has_the_same_streams_exit_codes_and_terminals() {
    let Some(image) = image() else { return };
    let home = Home::new();
    home.write("file", "words");
    let script = "import os, sys\nprint(os.path.basename(os.getcwd()), open('file').read())\n\
                  if sys.stdin.isatty():\n    print(os.tcgetpgrp(0) == os.getpgrp(), os.get_terminal_size())\n\
                  else:\n    print(sys.stdin.read())\nsys.exit(7)";
    for backend in lbx_sandbox::Backend::all().map(lbx_sandbox::Backend::name) {
        let options = ["--backend", backend, "--require", "none"];
        let program = ["--", "/var/lang/bin/python3.11", "-c", script];
        let all = arguments("run", &image, &options, &program);
        let mut command = lbx_shared(&home, &all);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // One that does not work does not read.
        let _ = child.stdin.take().unwrap().write_all(b"input");
        let ran = Ran::from(child.wait_with_output().unwrap());
        if ran.code == 5 && backend != "namespaces" {
            continue;
        }
        assert_eq!((ran.code, ran.stdout.as_str()), (7, "project words\ninput\n"), "{backend}: {ran:?}");
        let shown = start(&mut on_terminal(&home, &all), 91, 24).finish();
        let expected = "project words\r\nTrue os.terminal_size(columns=91, lines=24)\r\n";
        // What a backend does not promise is said before.
        assert!(
            shown.code == 7 && shown.raw.ends_with(expected),
            "{backend}: {} {:?}",
            shown.code,
            shown.raw
        );
    }
}
