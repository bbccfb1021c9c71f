//! What is wrong with the host: no room, no place for the store, no namespaces.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use lbx_testkit::command::{Home, run};
use lbx_testkit::images::{Image, Layer, Tar};
use lbx_testkit::registry::Registry;
use lbx_testkit::restrict::{self, DOCKER_BARE, DOCKER_ROOT, Restriction};
use lbx_testkit::standin::must_run;
use lbx_testkit::wheels::Wheel;

use crate::support::{
    HEAD, LBX, after_progress, example, fails, image, in_progress, lbx, lbx_shared, nothing_left, same,
    shared_store,
};

/// The exit code when the operating system refuses something.
pub(crate) const SYSTEM: i32 = 1;
/// The exit code when there is no sandbox to be had.
pub(crate) const SANDBOX: i32 = 5;

/// Becomes a program with less; see [`restrict::wrap`].
#[test]
#[ignore = "run by the tests of restricted hosts"]
fn helper_restricted() {
    restrict::become_planned_program();
}

/// `lbx` with the store that all tests share, under restrictions.
fn restricted(home: &Home, restrictions: &[Restriction], arguments: &[&str]) -> Command {
    restrict::wrap(restrictions, &lbx_shared(home, arguments), "host::helper_restricted")
}

#[test]
fn in_a_container_of_docker_root_builds_the_same_bytes_and_is_told_what_is_missing() {
    // Another user gets no further there; that is the next test.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let Some(image) = image() else { return };
    let (home, project) = example("service");
    let build = |folder: &str| {
        ["build".to_owned(), "--image".into(), image.clone(), "--out-dir".into(), folder.into()]
    };
    let plain = build("plain");
    let plain: Vec<&str> = plain.iter().map(String::as_str).collect();
    let ran = run(lbx_shared(&home, &plain).current_dir(&project));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let boxed = build("boxed");
    let boxed: Vec<&str> = boxed.iter().map(String::as_str).collect();
    let mut command = restricted(&home, DOCKER_ROOT, &boxed);
    let ran = run(command.current_dir(&project));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains(
            "isolation is partial here (backend chroot, because of namespaces: cannot create namespaces"
        ),
        "{}",
        ran.stderr
    );
    for zip in ["slack_send_message.zip", "slack_list_channels.zip"] {
        let read = |folder: &str| fs_err::read(project.join(folder).join(zip)).unwrap();
        assert!(read("plain") == read("boxed"), "{zip} differs");
    }
    let report = fs_err::read_to_string(project.join("boxed/report.json")).unwrap();
    assert!(
        report.contains("\"backend\": \"chroot\"") && report.contains("\"level\": \"partial\""),
        "{report}"
    );
    let mut strict = boxed.clone();
    strict.extend(["--require", "full"]);
    let ran = run(restricted(&home, DOCKER_ROOT, &strict).current_dir(&project));
    assert_eq!(ran.code, SANDBOX, "{}", ran.stderr);
}

#[test]
fn in_a_container_of_docker_without_capabilities_full_isolation_is_refused_and_the_filter_named() {
    let Some(image) = image() else { return };
    let home = Home::new();
    home.write("app.py", "");
    home.write("requirements.txt", "six\n");
    let build = ["build", "--runtime", "python3.11", "--image", &image, "--require", "full"];
    let ran = run(&mut restricted(&home, DOCKER_BARE, &build));
    assert_eq!(ran.code, SANDBOX, "{}", ran.stderr);
    assert!(ran.stderr.contains("Docker's or containerd's default"), "{}", ran.stderr);
    assert!(ran.stderr.contains("gives partial isolation here"), "{}", ran.stderr);
    // Less is to be had, and the doctor says so, and why not more.
    let ran = run(&mut restricted(&home, DOCKER_BARE, &["doctor"]));
    assert_eq!(ran.code, 0, "{}", ran.stdout);
    assert!(ran.stdout.contains("Docker's or containerd's default"), "{}", ran.stdout);
    assert!(ran.stdout.ends_with("lbx can build on this host.\n"), "{}", ran.stdout);
}

#[test]
fn without_any_certificate_the_package_that_brings_them_is_named() {
    let stub = Registry::start(tempfile::tempdir().unwrap().path());
    let home = Home::new();
    // What OpenSSL and its kin look at, on any distribution.
    let script = "for folder in /etc/ssl /usr/share/ca-certificates /usr/lib/ssl /etc/pki /usr/local/ssl; do \
                  if [ -d $folder ]; then mount -t tmpfs none $folder; fi; done; \
                  unset SSL_CERT_FILE SSL_CERT_DIR PIP_CERT REQUESTS_CA_BUNDLE CURL_CA_BUNDLE AWS_CA_BUNDLE; \
                  exec \"$1\" pull \"$2\"";
    let Some(mut command) = in_namespace(&home, script) else { return };
    let ran = run(command.arg(stub.reference("python", "3.11")));
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.contains("the package ca-certificates brings them"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}

/// Bytes that do not compress.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A shell script as root of a user namespace of its own, where it may mount; none, with a loud word, where the
/// host does not allow that.
#[expect(clippy::print_stderr, reason = "a skip must be loud")]
pub(crate) fn in_namespace(home: &Home, script: &str) -> Option<Command> {
    let mut probe = home.command("unshare");
    if run(probe.args(["--user", "--map-root-user", "--mount", "/bin/true"])).code != 0 {
        assert!(!must_run("sandbox"), "LBX_MUST_RUN=sandbox, and there are no user namespaces");
        eprintln!("SKIP: no user namespaces");
        return None;
    }
    let mut command = home.command("unshare");
    command.args(["--user", "--map-root-user", "--mount", "/bin/sh", "-euc", script, "sh", LBX]);
    Some(command)
}

#[test]
fn a_full_disk_under_the_store_is_named_and_nothing_half_written_stays() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path());
    let layer = Layer::gzip(&Tar::new().file("noise", 0o644, &noise(8 << 20)).finish());
    registry.push_image("python", "3.11", &Image::new("amd64", vec![layer]));
    let home = Home::new();
    home.write("app.py", "");
    home.write("requirements.txt", "six\n");
    // The listing of what is left is the last thing that the script writes to stdout.
    let script = "mount -t tmpfs -o size=5m none \"$XDG_CACHE_HOME\"; code=0; \
                  \"$1\" build --runtime python3.11 --image \"$2\" || code=$?; \
                  find \"$XDG_CACHE_HOME\"/lbx/tmp \"$XDG_CACHE_HOME\"/lbx/layers/v1 -mindepth 1; exit $code";
    let Some(mut command) = in_namespace(&home, script) else { return };
    fails(
        &home,
        command.arg(registry.reference("python", "3.11")),
        SYSTEM,
        "error: cannot get the image `127.0.0.1:[PORT]/python:3.11`: no space left for the store [ROOT]/cache/lbx: No space left on device (os error 28)\n\
        hint: free some space on its file system; nothing half-written was kept\n",
    );
}

#[test]
fn a_full_disk_under_the_output_is_named_and_nothing_half_written_stays() {
    let Some(image) = image() else { return };
    let home = Home::new();
    home.write("src/app.py", "");
    home.write("src/noise", noise(8 << 20));
    home.write("lbx.toml", format!("{HEAD}[functions.a]\nsource = \"src\"\n"));
    fs_err::create_dir(home.root().join("full")).unwrap();
    let script = "mount -t tmpfs -o size=5m none ../full; code=0; \
                  \"$1\" build --image \"$2\" --out-dir ../full || code=$?; ls -A ../full; exit $code";
    let Some(mut command) = in_namespace(&home, script) else { return };
    command.arg(image).env("LBX_CACHE_DIR", shared_store());
    fails(
        &home,
        &mut command,
        SYSTEM,
        "error: cannot write the zip `[ROOT]/project/../full/a.zip`: failed to write the archive: No space left on device (os error 28)\n\
        hint: there is no room on the disk of the output folder: free some, or use --out-dir\n",
    );
}

/// A project whose one requirement is a wheel of 8 MB, and a script that builds it where the store's folder `part`
/// has room for 4. Whatever stays there is listed on stdout, and then there is room, and it is built once more.
fn full_store(part: &str) -> Option<(Home, Command)> {
    let image = image()?;
    let home = Home::new();
    let wheel = Wheel::new("big", "1.0").file("big/noise", &noise(8 << 20));
    wheel.write(&home.project());
    home.write("src/app.py", "");
    home.write("r.txt", "--no-index\n./big-1.0-py3-none-any.whl\n");
    home.write("lbx.toml", format!("{HEAD}[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n"));
    let folder = shared_store().join(part);
    fs_err::create_dir_all(&folder).expect("a directory");
    // Offline, because nothing can be renamed between the small file system and the rest of the store.
    let script = "mount -t tmpfs -o size=4m,mode=700 none \"$3\"; code=0; \
                  \"$1\" build --offline --tmp-limit 8GB --image \"$2\" || code=$?; \
                  find \"$3\" -mindepth 1 ! -name .lock ! -name .publish-lock; ls -A dist 2>/dev/null || :; \
                  mount -o remount,size=64m none \"$3\"; \
                  \"$1\" build --offline --quiet --image \"$2\" --out-dir ../again >/dev/null; exit $code";
    let mut command = in_namespace(&home, script)?;
    command.arg(image).arg(&folder).env("LBX_CACHE_DIR", shared_store());
    Some((home, command))
}

/// The build failed for want of room, kept nothing, said this, and was well with more room.
#[track_caller]
fn fails_for_want_of_room(home: &Home, command: &mut Command, said: &str) {
    let ran = run(command);
    assert_eq!((ran.code, ran.stdout.as_str()), (SYSTEM, ""), "{}", ran.stderr);
    let stderr = ran.stderr.replace(&shared_store().display().to_string(), "[STORE]");
    let last: Vec<&str> = stderr.lines().rev().take(2).collect();
    same(&format!("{}\n{}\n", last[1], last[0]), said);
    assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{stderr}");
    assert!(home.root().join("again/app.zip").exists(), "the next build is well");
}

#[test]
fn a_full_disk_under_pip_is_named_and_the_next_build_is_well() {
    let Some((home, mut command)) = full_store("tmp") else { return };
    fails_for_want_of_room(
        &home,
        &mut command,
        "error: no space left for pip's work on r.txt in the store [STORE] or in memory (exit status 2)\n\
        hint: free some space on the store's file system, or point LBX_CACHE_DIR at another; if there is plenty, it is memory, which holds what pip downloads and unpacks (up to 8.0 GB: --tmp-limit)\n",
    );
}

#[test]
fn a_full_disk_under_pips_local_packages_is_named_and_the_next_build_is_well() {
    let Some((home, mut command)) = full_store("tmp") else { return };
    // A folder is copied for pip, so it is lbx that finds no room.
    home.write("r.txt", "--no-index\n./big\n");
    let build = "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n";
    let name = "big-1.0-py3-none-any.whl";
    let backend = format!(
        "import shutil\n\ndef build_wheel(folder, config_settings=None, metadata_directory=None):\n    \
         shutil.copy('{name}', folder)\n    return '{name}'\n"
    );
    home.write("big/pyproject.toml", build);
    home.write("big/backend.py", backend);
    fs_err::rename(home.project().join(name), home.project().join("big").join(name)).unwrap();
    fails_for_want_of_room(
        &home,
        &mut command,
        "error: no space left for pip's work on r.txt in the store [STORE]\n\
        hint: free some space on its file system, or point LBX_CACHE_DIR at another; nothing half-written was kept\n",
    );
}

#[test]
fn a_full_disk_under_the_store_of_wheels_is_named_and_the_next_build_is_well() {
    let Some((home, mut command)) = full_store("wheels") else { return };
    fails_for_want_of_room(
        &home,
        &mut command,
        "error: no space left for the wheel `big-1.0-py3-none-any.whl` in the store [STORE]\n\
        hint: free some space on its file system, or point LBX_CACHE_DIR at another; nothing half-written was kept\n",
    );
}

#[test]
fn a_store_of_wheels_that_cannot_be_opened_is_named() {
    let Some(image) = image() else { return };
    let home = Home::new();
    home.write("app.py", "");
    home.write("requirements.txt", "six\n");
    assert_eq!(run(&mut lbx(&home, &["pull", "--quiet", &image])).code, 0);
    let wheels = home.cache().join("lbx/wheels");
    fs_err::write(&wheels, "").unwrap();
    fails(
        &home,
        &mut lbx(&home, &["build", "--runtime", "python3.11", "--image", &image]),
        SYSTEM,
        "error: cannot open the store of wheels: failed to create directory `[ROOT]/cache/lbx/wheels`: File exists (os error 17)\n",
    );
}

#[test]
fn no_home_and_no_cache_directory_is_an_error_that_says_what_to_set() {
    let home = Home::new();
    home.write("app.py", "");
    home.write("requirements.txt", "six\n");
    let mut command = lbx(&home, &["build", "--runtime", "python3.11", "--image", "127.0.0.1:1/python:3.11"]);
    fails(
        &home,
        command.env_remove("HOME").env_remove("XDG_CACHE_HOME"),
        SYSTEM,
        "error: neither HOME nor XDG_CACHE_HOME nor LBX_CACHE_DIR names a folder for the store\n\
        hint: set LBX_CACHE_DIR to a folder that you can write to\n",
    );
}

#[test]
fn a_home_without_a_cache_directory_gets_one() {
    let home = Home::new();
    home.write("app.py", "");
    home.write("requirements.txt", "six\n");
    let mut command = lbx(&home, &["pull", "127.0.0.1:1/python:3.11"]);
    assert_eq!(run(command.env_remove("XDG_CACHE_HOME")).code, 4);
    in_progress(&home.root().join("home/.cache/lbx"), &[]);
    assert!(home.root().join("home/.cache/lbx/blobs").is_dir());
}

#[test]
fn a_store_that_cannot_be_written_to_or_trusted_is_named() {
    let home = Home::new();
    home.write("app.py", "");
    home.write("requirements.txt", "six\n");
    let arguments = ["build", "--runtime", "python3.11", "--image", "127.0.0.1:1/python:3.11"];
    let file = home.root().join("file");
    fs_err::write(&file, "").unwrap();
    let ran = run(lbx(&home, &arguments).env("LBX_CACHE_DIR", file.join("store")));
    assert_eq!(ran.code, SYSTEM, "{ran:?}");
    same(
        &home.redact(after_progress(&ran.stderr)),
        "error: cannot open the store: failed to create directory `[ROOT]/file`: File exists (os error 17)\n",
    );
    let open = home.root().join("open");
    fs_err::create_dir(&open).unwrap();
    fs_err::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
    let ran = run(lbx(&home, &arguments).env("LBX_CACHE_DIR", &open));
    assert_eq!(ran.code, SYSTEM, "{ran:?}");
    same(
        &home.redact(after_progress(&ran.stderr)),
        "error: cannot open the store: [ROOT]/open cannot hold the store: others can write to it (mode 777, expected 700)\n\
        hint: use a directory that belongs to you, is no symbolic link, and that nobody else can write to\n",
    );
    nothing_left(&home);
}

#[test]
fn a_store_on_a_read_only_file_system_is_named_by_every_command() {
    let home = Home::new();
    home.write("app.py", "");
    home.write("requirements.txt", "six\n");
    // Made while it can be written to, and read-only from then on.
    let store = home.cache().join("lbx");
    run(&mut lbx(&home, &["doctor"]));
    let script = "mount --bind \"$XDG_CACHE_HOME\" \"$XDG_CACHE_HOME\"; \
                  mount -o remount,bind,ro \"$XDG_CACHE_HOME\"; exec \"$@\"";
    let read_only = |arguments: &[&str]| Some(run(in_namespace(&home, script)?.args(arguments)));
    let build = ["build", "--runtime", "python3.11", "--image", "127.0.0.1:1/python:3.11"];
    let image = "cannot get the image `127.0.0.1:[PORT]/python:3.11`";
    for (arguments, what) in
        [(&["pull", "127.0.0.1:1/python:3.11"][..], image), (&build, "cannot open the store")]
    {
        let Some(ran) = read_only(arguments) else { return };
        assert_eq!((ran.code, ran.stdout.as_str()), (SYSTEM, ""), "{}", ran.stderr);
        same(
            &home.redact(after_progress(&ran.stderr)),
            &format!(
                "error: {what}: cannot write to the store [ROOT]/cache/lbx: Read-only file system (os error 30)\n\
                hint: let LBX_CACHE_DIR name a directory that you can write to\n"
            ),
        );
    }
    let doctor = read_only(&["doctor"]).unwrap();
    assert_eq!(doctor.code, SYSTEM, "{doctor:?}");
    let line = format!("denied  store: {}: cannot write to the store", store.display());
    assert!(doctor.stdout.contains(&line), "{}", doctor.stdout);
    assert!(doctor.stdout.ends_with("lbx cannot build on this host.\n"), "{}", doctor.stdout);
}

#[test]
fn a_relative_cache_directory_is_relative_to_the_current_folder() {
    let home = Home::new();
    run(lbx(&home, &["doctor"]).env("LBX_CACHE_DIR", "./my cache/"));
    assert!(home.project().join("my cache/blobs").is_dir(), "the store is not where the variable says");
    assert!(!home.cache().join("lbx").exists());
}

#[test]
fn a_variable_that_names_no_certificates_is_an_error_and_not_passed_over() {
    let home = Home::new();
    home.write("app.py", "");
    home.write("requirements.txt", "six\n");
    let gone = home.root().join("gone.pem");
    for arguments in [
        &["pull", "127.0.0.1:1/python:3.11"][..],
        &["build", "--runtime", "python3.11", "--image", "127.0.0.1:1/python:3.11"],
    ] {
        fails(
            &home,
            lbx(&home, arguments).env("SSL_CERT_FILE", &gone),
            SYSTEM,
            "error: SSL_CERT_FILE names no CA bundle that can be read: `[ROOT]/gone.pem` does not exist\n\
            hint: let it name a file of certificates in PEM, or unset it to trust the system's\n",
        );
    }
    home.write("empty.pem", "");
    let pulled = run(lbx(&home, &["pull", "127.0.0.1:1/x:1"]).env("SSL_CERT_FILE", "empty.pem"));
    assert_eq!(pulled.code, SYSTEM, "{pulled:?}");
    assert!(pulled.stderr.contains("`empty.pem` holds no certificate in PEM"), "{pulled:?}");
    let doctor = run(lbx(&home, &["doctor"]).env("SSL_CERT_FILE", home.root()));
    let line = format!(
        "denied  certificates: SSL_CERT_FILE names no CA bundle that can be read: `{}` is not a file\n",
        home.root().display()
    );
    assert!(doctor.stdout.contains(&line), "{}", doctor.stdout);
    assert!(doctor.stdout.ends_with("lbx cannot build on this host.\n") && doctor.code != 0, "{doctor:?}");
}
