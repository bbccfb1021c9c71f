//! Commands and options beside the build itself: what goes to stdout and what does not.

use std::process::Stdio;

use lbx_testkit::command::{Home, run, succeed};
use lbx_testkit::images::{Image, Layer, Tar};
use lbx_testkit::registry::Registry;
use serde_json::Value;

use crate::support::{example, image, in_progress, lbx, lbx_shared};

/// The lines of `--message-format json`, each of which must parse and say what it is.
pub(crate) fn events(stdout: &str) -> Vec<Value> {
    let events: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(events.iter().all(|event| event["reason"].is_string()), "{stdout}");
    events
}

#[test]
fn version_and_help_go_to_stdout_and_help_names_every_command() {
    let home = Home::new();
    let version = succeed(&mut lbx(&home, &["--version"]));
    assert_eq!(version, format!("lbx {}\n", env!("CARGO_PKG_VERSION")));
    let help = succeed(&mut lbx(&home, &["--help"]));
    for word in ["build", "pull", "doctor", "--quiet", "--verbose", "--message-format", "--version"] {
        assert!(help.contains(word), "{word} is missing:\n{help}");
    }
    let help = succeed(&mut lbx(&home, &["build", "--help"]));
    for word in
        ["--config", "--layer", "--requirements", "--output", "--out-dir", "--runtime", "--arch", "--image"]
    {
        assert!(help.contains(word), "{word} is missing:\n{help}");
    }
    let nothing = run(&mut lbx(&home, &[]));
    assert_eq!((nothing.code, nothing.stdout.as_str()), (2, ""), "no command is an error");
    assert_eq!(fs_err::read_dir(home.cache()).unwrap().count(), 0, "and none of this makes a store");
}

#[test]
fn pull_prints_the_image_by_digest_and_a_second_pull_by_it_needs_no_registry() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path());
    let layer = Layer::gzip(&Tar::new().file("hello", 0o644, b"hello").finish());
    let digest = registry.push_image("lambda/python", "3.11", &Image::new("amd64", vec![layer]));
    let home = Home::new();
    let printed = succeed(&mut lbx(&home, &["pull", &registry.reference("lambda/python", "3.11")]));
    assert_eq!(printed, format!("{}/lambda/python@{digest}\n", registry.address()));
    drop(registry);
    assert_eq!(succeed(&mut lbx(&home, &["pull", printed.trim()])), printed);
    let told = succeed(&mut lbx(&home, &["pull", printed.trim(), "--message-format", "json"]));
    let last = events(&told).pop().unwrap();
    assert_eq!((&last["reason"], &last["image"]), (&"finished".into(), &printed.trim().into()));
    in_progress(&home.cache().join("lbx"), &[]);
}

#[test]
fn the_runtimes_are_listed_with_their_images_and_what_was_pulled() {
    let home = Home::new();
    let none = succeed(&mut lbx(&home, &["images"]));
    for said in [
        "python3.11\n  Amazon Linux 2, glibc 2.26: wheels up to manylinux_2_26\n  supported until ",
        "python3.13, the default\n  Amazon Linux 2023, glibc 2.34: wheels up to manylinux_2_34\n",
        "  public.ecr.aws/lambda/python:3.12, and with compilers public.ecr.aws/sam/build-python3.12:latest\n",
    ] {
        assert!(none.contains(said), "{none}");
    }
    assert!(none.ends_with("pulled: none\n"), "{none}");
    assert_eq!(fs_err::read_dir(home.cache()).unwrap().count(), 0, "no store is made for it");

    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path());
    let layer = Layer::gzip(&Tar::new().file("hello", 0o644, b"hello").finish());
    let digest = registry.push_image("lambda/python", "3.11", &Image::new("amd64", vec![layer]));
    let reference = registry.reference("lambda/python", "3.11");
    succeed(&mut lbx(&home, &["pull", &reference]));
    let pulled = succeed(&mut lbx(&home, &["images"]));
    assert!(pulled.ends_with(&format!("pulled:\n  {reference}  {digest}\n")), "{pulled}");
    let told = events(&succeed(&mut lbx(&home, &["images", "--message-format", "json"])));
    assert_eq!(told[0]["pulled"][0]["digest"].as_str(), Some(digest.as_str()));
    assert!(told[0]["runtimes"].as_array().is_some_and(|all| all.len() >= 6));
    // What somebody has put there is no reason to fail.
    let refs = home.cache().join("lbx/refs");
    fs_err::write(refs.join("x.json"), "{").unwrap();
    std::os::unix::fs::symlink("/dev/zero", refs.join("y.json")).unwrap();
    assert_eq!(succeed(&mut lbx(&home, &["images"])), pulled);
}

#[test]
fn quiet_prints_paths_and_nothing_else() {
    let Some(image) = image() else { return };
    let (home, project) = example("hello");
    let arguments = ["build", "--quiet", "--runtime", "python3.11", "--image", &image];
    let ran = run(lbx_shared(&home, &arguments).current_dir(&project));
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "dist/hello.zip\n", ""));
    // An output file of one's own is printed as it was named.
    let arguments = [&arguments[..], &["-o", "out/my.zip"]].concat();
    let ran = run(lbx_shared(&home, &arguments).current_dir(&project));
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "out/my.zip\n", ""));
    let out = lbx_testkit::command::files_below(&project.join("out"));
    assert_eq!(out, ["my.report.json", "my.zip", "my.zip.sha256"]);
}

#[test]
fn json_is_one_object_a_line_on_stdout_and_the_last_says_how_it_ended() {
    let Some(image) = image() else { return };
    let (home, project) = example("hello");
    let arguments = ["build", "--message-format", "json", "--runtime", "python3.11", "--image", &image];
    let ran = run(lbx_shared(&home, &arguments).current_dir(&project));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let events = events(&ran.stdout);
    let reasons: Vec<&str> = events.iter().filter_map(|event| event["reason"].as_str()).collect();
    assert_eq!((reasons[0], reasons[reasons.len() - 1]), ("planned", "finished"));
    assert!(reasons.contains(&"artifact-finished"), "{reasons:?}");
}

#[test]
fn a_failure_in_json_is_the_last_line_with_its_exit_code_and_hint() {
    let home = Home::new();
    home.write("lbx.toml", "[project]\nruntime = \"python2.7\"\n[layers.a]\nsource = \".\"\n");
    let ran = run(&mut lbx(&home, &["build", "--message-format", "json"]));
    assert_eq!((ran.code, ran.stderr.as_str()), (3, ""));
    let last = events(&ran.stdout).pop().unwrap();
    assert_eq!((&last["reason"], &last["exit_code"]), (&"error".into(), &3.into()));
    assert_eq!(last["message"], "lbx.toml:2:11: there is no runtime `python2.7`");
    assert!(last["hint"].as_str().unwrap().contains("python3.11"), "{last}");
}

#[test]
fn a_reader_that_goes_away_is_no_reason_to_panic() {
    let home = Home::new();
    for arguments in [&["--help"][..], &["doctor"], &["schema"], &["--version"]] {
        let mut command = lbx(&home, arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code().is_some() && !said.contains("panicked"), "{arguments:?}: {said}");
    }
}
