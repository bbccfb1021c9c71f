//! `lbx doctor`: what it finds, what it prints for containers, what it changes and what not; and the diagnosis that
//! every sandbox error ends in.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lbx_sandbox::Remedy;
use lbx_testkit::command::{Home, run, succeed};
use lbx_testkit::standin::must_run;
use serde_json::Value;

use crate::commands::events;
use crate::host::{SANDBOX, SYSTEM, in_namespace};
use crate::support::{LBX, after_progress, image, lbx, shared_store};

/// No more user namespaces, in a namespace of our own.
const NO_NAMESPACES: &str = "echo 0 > /proc/sys/user/max_user_namespaces";
/// A place for settings that goes away with the mount namespace.
const OWN_SETTINGS: &str = "mount -t tmpfs none /etc/sysctl.d";
/// What the fix for that is called.
const SETTING: &str = "/etc/sysctl.d/90-lbx-user-max-user-namespaces.conf";

/// The one line of JSON that a doctor says.
fn told(stdout: &str) -> Value {
    events(stdout).pop().expect("a line")
}

#[test]
fn it_says_that_this_host_can_build_and_what_each_backend_promises() {
    let Some(_) = image() else { return };
    let home = Home::new();
    let said = succeed(&mut lbx(&home, &["doctor"]));
    assert!(said.ends_with("lbx can build on this host.\n"), "{said}");
    let store = format!("ok      store: {}\n", home.cache().join("lbx").display());
    assert!(said.contains(&store), "{said}");
    assert!(said.contains("ok      backend namespaces: full isolation; builds use it\n"), "{said}");
    let told = told(&succeed(&mut lbx(&home, &["doctor", "--message-format", "json"])));
    assert_eq!((&told["reason"], &told["usable"]), (&"doctor".into(), &true.into()));
    assert_eq!(told["backend"], "namespaces");
    let layers = told["diagnosis"].as_array().expect("an array");
    assert!(layers.iter().all(|layer| layer["layer"].is_string() && layer["outcome"].is_string()), "{told}");
    let backends = told["backends"].as_array().expect("an array");
    let names: Vec<_> = backends.iter().map(|backend| backend["backend"].as_str().unwrap()).collect();
    assert!(
        names.iter().copied().eq(lbx_sandbox::Backend::all().map(lbx_sandbox::Backend::name)),
        "{names:?}"
    );
    for backend in backends {
        let explained = if backend["works"] == true { &backend["claims"] } else { &backend["why"] };
        assert!(!explained.is_null(), "{backend}");
        assert!(said.contains(&format!(" backend {}: ", backend["backend"].as_str().unwrap())), "{said}");
    }
}

#[test]
fn it_prints_what_a_container_needs_and_looks_at_nothing() {
    let home = Home::new();
    let says = |option: &str| {
        let ran = run(&mut lbx(&home, &["doctor", option]));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        ran.stdout
    };
    assert_eq!(
        says("--docker"),
        "--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined\n"
    );
    let pod = says("--kubernetes");
    for line in ["  hostUsers: false\n", "        procMount: Unmasked\n", "          type: Unconfined\n"] {
        assert!(pod.contains(line), "{pod}");
    }
    assert!(!home.cache().join("lbx").exists());
}

#[test]
fn every_sandbox_error_ends_in_the_diagnosis_for_people_and_for_programs() {
    let Some(image) = image() else { return };
    let home = Home::new();
    home.write("app.py", "");
    home.write("requirements.txt", "six\n");
    let script = format!("{NO_NAMESPACES}; exec \"$@\"");
    let denied = |arguments: &[&str]| {
        let mut command = in_namespace(&home, &script)?;
        command.args(arguments).env("LBX_CACHE_DIR", shared_store());
        Some(run(&mut command))
    };
    let namespaces =
        "unshare(CLONE_NEWNS|CLONE_NEWUTS|CLONE_NEWIPC|CLONE_NEWUSER|CLONE_NEWPID|CLONE_NEWNET): ENOSPC";
    let head = format!("error: cannot start the sandbox: cannot create namespaces: {namespaces}\n");
    let layer = "  denied  user namespace: unshare(CLONE_NEWUSER): ENOSPC (user.max_user_namespaces is 0 (this is not about disk space))\n\
        \x20         fix: sudo sysctl -w user.max_user_namespaces=15000\n";
    let hint =
        "hint: `lbx doctor --fix` prints what to change on this machine, and with --apply changes it\n";
    let build = ["build", "--runtime", "python3.11", "--image", &image];
    // Chosen by lbx, where nothing is strong enough; and asked for by name.
    for options in [&["--require", "full"][..], &["--backend", "namespaces"]] {
        let Some(ran) = denied(&[&build[..], options].concat()) else { return };
        assert_eq!(ran.code, SANDBOX, "{}", ran.stderr);
        let said = after_progress(&ran.stderr);
        assert!(said.starts_with(&head) && said.contains(layer) && said.ends_with(hint), "{said}");
    }
    let ran = denied(&[&build[..], &["--require", "full", "--message-format", "json"]].concat()).unwrap();
    let error = told(&ran.stdout);
    assert_eq!((&error["reason"], &error["exit_code"]), (&"error".into(), &SANDBOX.into()));
    let found = error["diagnosis"].as_array().expect("an array");
    assert_eq!((&found[0]["layer"], &found[0]["errno"]), (&"user-namespace".into(), &"ENOSPC".into()));
    assert_eq!(found[0]["fix"], "sudo sysctl -w user.max_user_namespaces=15000");
    assert!(found.iter().any(|one| one["backend"] == "chroot" && one["why"].is_string()), "{error}");
    // The doctor's own words are the same.
    let doctor = denied(&["doctor"]).unwrap();
    assert!(doctor.stdout.contains(&layer.replace("\n  ", "\n")[2..]), "{}", doctor.stdout);
}

#[test]
fn too_little_isolation_is_refused_with_what_takes_it_away() {
    let Some(image) = image() else { return };
    let home = Home::new();
    home.write("app.py", "");
    home.write("requirements.txt", "six\n");
    let script = "mount -t tmpfs mask /proc/driver; exec \"$@\"";
    let Some(mut command) = in_namespace(&home, script) else { return };
    command.args(["build", "--runtime", "python3.11", "--require", "full", "--image", &image]);
    let ran = run(command.env("LBX_CACHE_DIR", shared_store()));
    assert_eq!(ran.code, SANDBOX, "{}", ran.stderr);
    for words in [
        "the backend `namespaces` gives partial isolation here, and full isolation is required\n",
        "  denied  own /proc: mount(\"proc\", \"/proc\", \"proc\"): EPERM (parts of /proc are masked by the container",
        "          fix: run the container with `--security-opt systempaths=unconfined`",
        "          lost: build code sees the container's processes\n",
    ] {
        assert!(ran.stderr.contains(words), "{words}\n{}", ran.stderr);
    }
}

#[test]
fn where_nothing_is_denied_there_is_nothing_to_fix_and_nothing_to_run() {
    let home = Home::new();
    for arguments in [&["doctor", "--fix"][..], &["doctor", "--fix", "--apply"]] {
        let ran = run(lbx(&home, arguments).env("PATH", "/nowhere"));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(ran.stdout.starts_with("# There is nothing to fix"), "{}", ran.stdout);
        assert!(ran.stdout.lines().all(|line| line.starts_with('#')), "a shell would run {}", ran.stdout);
    }
    let told = told(&succeed(&mut lbx(&home, &["doctor", "--fix", "--message-format", "json"])));
    assert_eq!((&told["reason"], &told["script"]), (&"fix".into(), &Value::Null));
}

#[test]
fn apply_means_nothing_without_fix() {
    let home = Home::new();
    for arguments in [&["doctor", "--apply"][..], &["doctor", "--fix", "--docker"]] {
        assert_eq!(run(&mut lbx(&home, arguments)).code, 2, "{arguments:?}");
    }
}

/// A program for the tests' PATH.
fn program(home: &Home, name: &str, script: &str) -> PathBuf {
    let folder = home.root().join("bin");
    fs_err::create_dir_all(&folder).expect("a directory");
    fs_err::write(folder.join(name), format!("#!/bin/sh\n{script}\n")).expect("a script");
    fs_err::set_permissions(folder.join(name), PermissionsExt::from_mode(0o755)).expect("mode");
    folder
}

/// Like procps' own, as far as it is used.
fn sysctl(home: &Home) -> PathBuf {
    let load = "test \"$1\" = -p && sed -n 's/^user.\\([a-z_]*\\) = /\\1 /p' \"$2\" | while read -r name value; do \
                echo \"$value\" > /proc/sys/user/\"$name\"; done; echo \"loaded $2\"";
    program(home, "sysctl", load)
}

#[test]
fn a_fix_is_printed_and_nothing_is_changed() {
    let home = Home::new();
    let script = format!(
        "{OWN_SETTINGS}; {NO_NAMESPACES}; \"$1\" doctor --fix > fix.sh; \
         ls /etc/sysctl.d; cat /proc/sys/user/max_user_namespaces; sh -n fix.sh; cat fix.sh; \
         echo RUN; PATH=\"$2:$PATH\" sh fix.sh; cat /proc/sys/user/max_user_namespaces; ls {SETTING}"
    );
    let Some(mut command) = in_namespace(&home, &script) else { return };
    let said = succeed(command.arg(sysctl(&home)));
    let (printed, done) = said.split_once("RUN\n").expect("both parts");
    let expected = format!(
        "0\n\
         #!/bin/sh\n\
         # What lets lbx isolate builds on this machine. Read it, then run it as root:\n\
         #   lbx doctor --fix | sudo sh\n\
         # `lbx doctor --fix --apply` does the same and looks whether it helped.\n\
         set -eu\n\
         PATH=\"$PATH:/usr/sbin:/sbin\"\n\
         \n\
         # Denied: user namespace: unshare(CLONE_NEWUSER): ENOSPC (user.max_user_namespaces is 0 (this is not about disk space))\n\
         # This sets user.max_user_namespaces to 15000, now and at every boot, for all programs of all users.\n\
         cat > {SETTING} <<'END_OF_FILE'\n\
         # Written by `lbx doctor --fix`: lbx isolates builds in user namespaces.\n\
         user.max_user_namespaces = 15000\n\
         END_OF_FILE\n\
         chmod 644 {SETTING}\n\
         sysctl -p {SETTING}\n"
    );
    crate::support::same(printed, &expected);
    assert_eq!(done, format!("loaded {SETTING}\n15000\n{SETTING}\n"), "what was printed does it");
}

#[test]
fn root_applies_a_fix_and_is_told_that_it_helped() {
    let home = Home::new();
    let script = format!(
        "{OWN_SETTINGS}; {NO_NAMESPACES}; PATH=\"$2:$PATH\" \"$1\" doctor --fix --apply; cat {SETTING}"
    );
    let Some(mut command) = in_namespace(&home, &script) else { return };
    let ran = run(command.arg(sysctl(&home)));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.starts_with("ok      user namespace is allowed now\n"), "{}", ran.stdout);
    assert!(ran.stdout.ends_with("\nuser.max_user_namespaces = 15000\n"), "{}", ran.stdout);
    assert_eq!(ran.stderr, format!("loaded {SETTING}\n"), "what commands say is no result");
}

/// `lbx doctor --fix --apply` as a user who is not root, with this folder of programs; and what became of the setting.
fn apply_as_user(home: &Home, programs: &Path, json: bool) -> Option<lbx_testkit::command::Ran> {
    // The capabilities are for the script; what lbx looks at is the user id.
    in_namespace(home, "exit 0")?;
    let format = if json { "json" } else { "human" };
    let script = format!(
        "{OWN_SETTINGS}; {NO_NAMESPACES}; code=0; \
         PATH=\"$1\" {LBX} doctor --fix --apply --message-format {format} || code=$?; \
         cat /proc/sys/user/max_user_namespaces; exit $code"
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-user=1000", "--map-group=1000", "--keep-caps", "--mount"]);
    command.args(["/bin/sh", "-euc", &script, "sh"]).arg(programs).env_clear().env("PATH", "/usr/bin:/bin");
    Some(run(command.current_dir(home.project()).env("HOME", home.root())))
}

#[test]
fn who_is_not_root_applies_a_fix_through_sudo() {
    let home = Home::new();
    let bin = sysctl(&home);
    // Programs that the script itself needs, beside those that stand in for the system's.
    program(&home, "sudo", "echo \"sudo $1 $2\" >&2; PATH=\"$PATH:/usr/bin:/bin\" exec \"$@\"");
    let Some(ran) = apply_as_user(&home, &bin, false) else { return };
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.starts_with("ok      user namespace is allowed now\n"), "{ran:?}");
    assert!(ran.stdout.ends_with("\n15000\n"), "{ran:?}");
    assert!(ran.stderr.starts_with("sudo sh -c\n"), "{ran:?}");
    let ran = apply_as_user(&home, &bin, true).unwrap();
    let told = told(ran.stdout.lines().next().unwrap());
    assert_eq!((&told["reason"], &told["helped"]), (&"fixed".into(), &true.into()), "{ran:?}");
}

#[test]
fn without_sudo_or_its_consent_nothing_is_changed_and_the_script_is_pointed_at() {
    let home = Home::new();
    let bin = home.root().join("bin");
    fs_err::create_dir(&bin).unwrap();
    let Some(ran) = apply_as_user(&home, &bin, false) else { return };
    let hint = "hint: run it yourself, as root: `lbx doctor --fix` prints it\n";
    assert_eq!((ran.code, ran.stdout.as_str()), (SYSTEM, "0\n"), "{ran:?}");
    let message = "error: cannot become root to make the changes: cannot run sudo: ";
    assert!(ran.stderr.starts_with(message) && ran.stderr.ends_with(hint), "{ran:?}");
    program(&home, "sudo", "exit 1");
    let ran = apply_as_user(&home, &bin, false).unwrap();
    assert_eq!((ran.code, ran.stdout.as_str()), (SYSTEM, "0\n"), "{ran:?}");
    assert_eq!(
        ran.stderr,
        format!("error: the changes could not be made: sudo ended with exit status 1\n{hint}")
    );
    // One that only says that it did.
    program(&home, "sudo", "exit 0");
    let ran = apply_as_user(&home, &bin, false).unwrap();
    assert_eq!(ran.code, SANDBOX, "{ran:?}");
    assert!(
        ran.stdout.starts_with("denied  user namespace: ") && ran.stdout.contains("did not help."),
        "{ran:?}"
    );
}

/// AppArmor's own parser takes the profile, and reads the path in it as the path that it is.
#[test]
fn the_profile_is_one_that_apparmor_takes_and_names_the_program() {
    let parser = "/usr/sbin/apparmor_parser";
    if !Path::new(parser).exists() {
        assert!(
            !must_run("sandbox"),
            "LBX_MUST_RUN=sandbox, and there is no apparmor_parser (package apparmor)"
        );
        return eprintln!("SKIP: no apparmor_parser (package apparmor)");
    }
    let home = Home::new();
    // The first that knows user namespaces is AppArmor 4; what the path looks like is the same before it.
    let is_old = !Path::new("/etc/apparmor.d/abi/4.0").exists();
    // As the parser prints what it has understood: with what a regular expression must escape, and no more.
    for (path, understood) in [
        ("/usr/bin/lbx", "/usr/bin/lbx"),
        ("/opt/my tools/lbx", r"/opt/my\ tools/lbx"),
        ("/a*b[1]{c,d}@{HOME}^e\\f\"g/l.bx", r#"/a\*b\[1\]{c,d}@{HOME}^e\f"g/l\.bx"#),
    ] {
        let steps = Remedy::AppArmorProfile.steps(Path::new(path));
        let mut profile = steps.file.1;
        if is_old {
            profile = profile.replace("abi <abi/4.0>,\n", "").replace("  userns,\n", "");
        }
        home.write("profile", &profile);
        let ran = run(home.command(parser).args(["-Q", "-K", "-D", "rule-exprs", "profile"]));
        assert_eq!(ran.code, 0, "{path}\n{profile}\n{}", ran.stderr);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        let rule = said.lines().find_map(|line| line.strip_prefix("rule: ")).expect("the attachment");
        let rule = rule.split("  ->  ").nth(1).expect("what it became");
        assert!(rule.starts_with(&format!("{understood} ")), "{path} became {rule}");
    }
}

#[test]
fn a_backend_that_is_weaker_than_required_is_refused_with_what_to_do() {
    let Some(image) = image() else { return };
    let home = Home::new();
    let run_in =
        ["run", "--runtime", "python3.11", "--image", &image, "--backend", "loader", "--require", "full"];
    let ran = run(&mut lbx(&home, &[&run_in[..], &["--", "true"]].concat()));
    assert_eq!(ran.code, SANDBOX, "{}", ran.stderr);
    for words in [
        "the backend `loader` gives partial isolation here, and full isolation is required",
        "hint: `lbx doctor` says which ways to isolate builds work here",
    ] {
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
    }
}

#[test]
fn a_backend_that_this_user_cannot_have_is_refused_with_what_to_do() {
    if nix::unistd::geteuid().is_root() {
        return;
    }
    let Some(image) = image() else { return };
    let home = Home::new();
    home.write("app.py", "");
    home.write("requirements.txt", "six\n");
    let build = ["build", "--runtime", "python3.11", "--image", &image, "--backend", "chroot"];
    let ran = run(&mut lbx(&home, &build));
    assert_eq!(ran.code, SANDBOX, "{}", ran.stderr);
    let said = after_progress(&ran.stderr);
    assert!(said.contains("chroot as the user"), "{said}");
    assert!(said.contains("hint: `lbx doctor` says which ways to isolate builds work here"), "{said}");
}
