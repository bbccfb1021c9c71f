//! `--offline`: no socket leads beyond this machine's loopback, whatever has to be resolved and built.

use std::process::Command;

use lbx_testkit::command::{Home, Ran, run};
use lbx_testkit::index;
use lbx_testkit::wheels::Wheel;

use crate::sources::{BACKEND, pyproject};
use crate::support::{HEAD, image, lbx_shared};

/// What kills whoever names another address.
const WATCH: &str = include_str!("loopback_only.py");

/// Runs a command under it.
fn watched(home: &Home, command: &Command) -> Ran {
    let mut watched = Command::new("python3");
    watched.arg(home.root().join("loopback_only.py")).arg(command.get_program()).args(command.get_args());
    watched.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    watched.current_dir(command.get_current_dir().expect("a project"));
    run(&mut watched)
}

#[test]
fn an_offline_build_that_resolves_and_builds_names_no_address_but_loopback_or_is_killed() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    Wheel::new("offline_one", "1.0").requires("offline-two").file("one.py", b"").write(folder.path());
    Wheel::new("offline_two", "1.0").file("two.py", b"").write(folder.path());
    let index = index::serve(folder.path());
    let home = Home::new();
    fs_err::write(home.root().join("loopback_only.py"), WATCH).unwrap();
    home.write("lbx.toml", format!("{HEAD}[functions.app]\nsource = \"app\"\nrequirements = [\"r.txt\"]\n"));
    home.write("app/app.py", "");
    home.write("r.txt", "./local\noffline-one\n");
    home.write("local/backend.py", BACKEND);
    home.write("local/pyproject.toml", pyproject("local", "1.0", ""));
    let build = |arguments: &[&str], index: &str| {
        let mut command = lbx_shared(&home, &["build", "--image", &image]);
        command.args(arguments).env("PIP_INDEX_URL", format!("http://{index}/simple"));
        command
    };
    let ran = run(&mut build(&[], index.address()));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let seen = index.seen().len();
    // There is something to build, too.
    home.write("local/local.py", "changed = True\n");
    let ran = watched(&home, &build(&["--offline"], index.address()));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("lbx: pip: app: 3 wheels\n"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("killed"), "{}", ran.stderr);
    assert_eq!(index.seen().len(), seen);
    // Who asks somebody else is seen, and killed.
    home.write("r.txt", "offline-three\n");
    let mut online = build(&[], "192.0.2.1");
    let ran = watched(&home, online.env("PIP_TRUSTED_HOST", "192.0.2.1"));
    assert_ne!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("killed: connect(192.0.2.1:80)"), "{}", ran.stderr);
}
