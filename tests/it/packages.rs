//! System packages: a compiler for what is built, what its package manager may do, what it sees, and where it fails.

use std::path::PathBuf;
use std::process::Command;

use lbx_testkit::command::{Home, Ran, run, stable_report};
use lbx_testkit::debian::{self, Package, SOURCES};
use lbx_testkit::images::{Layer, Tar};
use lbx_testkit::standin;
use lbx_testkit::stub::Stub;
use lbx_testkit::wheels::sdist;
use serde_json::Value;

use crate::sources::{BACKEND, pyproject};
use crate::support::{image, lbx_shared, nothing_left, same};

/// The exit code when this host does not allow a sandbox.
const SANDBOX: i32 = 5;
/// The exit code when requirements do not build.
const REQUIREMENTS: i32 = 6;

/// Code that a compiler turns into a library, which calls another one's.
const CODE: &str = "#include <zlib.h>\nconst char *version(void) { return zlibVersion(); }\n";

/// The stand-in of a build image, with a mirror that does not exist for its package manager.
fn build_image(tag: &str) -> Option<String> {
    let (path, text) = SOURCES;
    let layer = Layer::gzip(&Tar::new().file(path, 0o644, text.as_bytes()).finish());
    standin::with_layer("build-python3.11", &format!("packages-{tag}"), &layer)
}

/// The folder with packages of Debian's, or a loud skip.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests are told this way, and skip loudly"
)]
fn debs() -> Option<PathBuf> {
    let folder = std::env::var_os("LBX_TEST_DEBS").map(PathBuf::from);
    if folder.is_none() {
        assert!(!standin::must_run("standin"), "LBX_TEST_DEBS is not set");
        eprintln!("SKIP: LBX_TEST_DEBS is not set; run `cargo xtask test`");
    }
    folder
}

/// A project of one local package, whose backend runs these statements before it packs.
fn project(image: &str, packages: &str, statements: &str) -> Home {
    let home = Home::new();
    home.write("app/app.py", "");
    home.write("r.txt", "./native\n");
    let backend = BACKEND.replace("    print(\"the backend", &format!("{statements}    print(\"the backend"));
    home.write("native/backend.py", &backend);
    home.write("native/native.py", "");
    home.write("native/code.c", CODE);
    home.write("native/pyproject.toml", pyproject("native", "1.0", ""));
    let functions = "[functions.app]\nsource = \"app\"\nrequirements = [\"r.txt\"]\n";
    let head = format!("[project]\nruntime = \"python3.11\"\nbuild-image = \"{image}\"\n");
    home.write("lbx.toml", format!("{head}system-packages = [{packages}]\n{functions}"));
    home
}

/// Builds, where `mirror` is the proxy that everything else is reached through.
fn build(home: &Home, image: &str, mirror: &Stub) -> Command {
    let mut command = lbx_shared(home, &["build", "--image", image]);
    command.env("http_proxy", format!("http://{}", mirror.address()));
    command.env("PIP_NO_INDEX", "1");
    command
}

#[track_caller]
fn succeeds(command: &mut Command) -> Ran {
    let ran = run(command);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran
}

fn built(home: &Home) -> Value {
    let mut report = stable_report(&home.project().join("dist/report.json"));
    report["dependencies"][0]["built"][0].take()
}

/// What a backend does to have a library beside its modules.
const COMPILE: &str = "    import subprocess\n    subprocess.check_call([\"cc\", \"-shared\", \"-fPIC\", \"-o\", \"native.so.py\", \
                       \"code.c\", \"-lz\"])\n";

#[test]
fn a_compiler_and_a_library_of_debians_build_what_needs_them() {
    let (Some(run_image), Some(image), Some(debs)) = (image(), build_image("gcc"), debs()) else { return };
    let mirror = debian::serve(&debs);
    let home = project(&image, "\"zlib1g-dev\", \"gcc\", \"libc6-dev\", \"gcc\"", COMPILE);
    let said = succeeds(&mut build(&home, &run_image, &mirror)).stderr;
    let started = format!("lbx: packages: installing gcc libc6-dev zlib1g-dev in {image}\n");
    assert!(said.contains(&started), "{said}");
    assert!(said.contains(" packages from mirror.test\n"), "{said}");
    let zip = fs_err::File::open(home.project().join("dist/app.zip")).unwrap();
    let mut zip = zip::ZipArchive::new(zip).unwrap();
    let mut code = Vec::new();
    std::io::Read::read_to_end(&mut zip.by_name("native.so.py").unwrap(), &mut code).unwrap();
    assert!(code.starts_with(b"\x7fELF"), "what the compiler made is in the zip");
    let report = built(&home);
    let installed = report["system_packages"].as_object().unwrap();
    assert!(["gcc", "gcc-12", "zlib1g-dev"].iter().all(|name| installed.contains_key(*name)), "{report}");
    assert!(!installed.contains_key("bash"), "what the image had is nothing that was installed");

    // The wheel is kept, and the packages are; another order is the same list.
    let asked = mirror.seen().len();
    let text = fs_err::read_to_string(home.project().join("lbx.toml")).unwrap();
    home.write("lbx.toml", text.replace("\"gcc\", \"libc6-dev\", \"gcc\"", "\"libc6-dev\", \"gcc\""));
    let said = succeeds(&mut build(&home, &run_image, &mirror)).stderr;
    assert!(!said.contains("packages:"), "{said}");
    assert_eq!(built(&home), report);
    // So does another source, also offline.
    home.write("native/native.py", "changed = True\n");
    succeeds(build(&home, &run_image, &mirror).arg("--offline"));
    assert_eq!(built(&home)["system_packages"], report["system_packages"]);
    assert_ne!(built(&home)["sha256"], report["sha256"]);
    assert_eq!(mirror.seen().len(), asked, "nobody was asked again");
    // Whoever wants it anew gets it anew.
    let said = succeeds(build(&home, &run_image, &mirror).arg("--rebuild")).stderr;
    assert!(said.contains(&started), "{said}");
}

/// What a package does that wants to be installed by root, and what it can see of where it is.
const POSTINST: &str = r#"
test "$(id -u)" = 0
groupadd -r demo
useradd -r -g demo -d / -s /bin/false demo
chown demo:demo /usr/lib/demo/owned
chgrp -R mail /usr/lib/demo || chgrp -R 8 /usr/lib/demo
chmod 4755 /usr/lib/demo/setuid
mknod /usr/lib/demo/device c 1 3
mkfifo /usr/lib/demo/pipe
sync
env > /usr/share/seen
ls -A /lbx /lbx/* >> /usr/share/seen
id >> /usr/share/seen
bash -c 'echo x > /dev/tcp/169.254.169.254/80' 2>> /usr/share/seen && exit 1
bash -c "echo x > /dev/tcp/127.0.0.1/PORT" 2>> /usr/share/seen && exit 1
rm /usr/share/standin/hard/first
"#;

#[test]
fn packages_are_installed_as_root_and_see_and_reach_nothing_of_the_host() {
    let (Some(run_image), Some(image)) = (image(), build_image("demo")) else { return };
    let folder = tempfile::tempdir().unwrap();
    // Somebody else's server, on this host's loopback.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    Package::new("demo", "1:2.0-1")
        .file("usr/lib/demo/owned", 0o600, (33, 44), b"owned\n")
        .file("usr/lib/demo/setuid", 0o6755, (0, 0), b"#!/bin/sh\n")
        .script("postinst", &POSTINST.replace("PORT", &port))
        .write(folder.path());
    let mirror = debian::serve(folder.path());
    let look = "    seen = open(\"/usr/share/seen\").read()\n    \
                import stat\n    \
                for name in sorted(os.listdir(\"/usr/lib/demo\")):\n        \
                    found = os.lstat(\"/usr/lib/demo/\" + name)\n        \
                    print(\"demo:\", name, oct(found.st_mode), found.st_uid == os.getuid())\n    \
                print(\"demo:\", open(\"/usr/lib/demo/owned\").read().strip())\n    \
                print(\"demo:\", os.path.exists(\"/usr/share/standin/hard/first\"))\n    \
                print(\"demo:\", \"demo\" in open(\"/etc/passwd\").read())\n    \
                open(\"seen.py\", \"w\").write(seen)\n";
    let home = project(&image, "\"demo\"", look);
    let mut command = build(&home, &run_image, &mirror);
    command.args(["-v"]).env("LBX_LOG", "off").env("MY_SECRET", "hush-hush");
    command.env("https_proxy", "http://user:hush-hush@proxy.test:1");
    let said = succeeds(&mut command).stderr;
    let shown: Vec<&str> =
        said.lines().filter_map(|line| line.split_once("demo: ")).map(|(_, rest)| rest).collect();
    let expected = [
        "owned 0o100600 True",
        "setuid 0o100755 True",
        "owned",
        "False",
        // The user is the sandbox's own again.
        "False",
    ];
    assert_eq!(shown, expected, "{said}");
    let zip = fs_err::File::open(home.project().join("dist/app.zip")).unwrap();
    let mut zip = zip::ZipArchive::new(zip).unwrap();
    let seen = std::io::read_to_string(zip.by_name("seen.py").unwrap()).unwrap();
    assert!(seen.contains("uid=0(root)") && !seen.contains("hush"), "{seen}");
    assert!(seen.contains("\n/lbx:\nout\n"), "{seen}");
    assert_eq!(seen.matches("/dev/tcp/").count(), 2, "{seen}");
    assert_eq!(built(&home)["system_packages"], serde_json::json!({"demo": "1:2.0-1"}));
    other.set_nonblocking(true).unwrap();
    assert!(other.accept().is_err(), "nobody has come");
}

#[test]
fn what_cannot_be_installed_is_named_with_what_to_do() {
    let (Some(run_image), Some(image)) = (image(), build_image("missing")) else { return };
    let folder = tempfile::tempdir().unwrap();
    Package::new("broken", "1.0").script("postinst", "echo it is broken; exit 3").write(folder.path());
    let mirror = debian::serve(folder.path());
    let fails = |packages: &str, image: &str, extra: &[&str], code: i32| {
        let home = project(image, packages, "");
        let ran = run(build(&home, &run_image, &mirror).args(extra));
        assert_eq!(ran.code, code, "{}", ran.stderr);
        nothing_left(&home);
        let start = ran.stderr.find("error: ").unwrap_or_else(|| panic!("{}", ran.stderr));
        (ran.stderr[start..].to_owned(), ran.stderr)
    };
    let (error, _) = fails("\"libfoo-devel\"", &image, &[], REQUIREMENTS);
    same(
        &error,
        &format!(
            "error: cannot install libfoo-devel in {image} (exit status 100)\n\
             hint: the image's own repositories have no `libfoo-devel`: names are those of its distribution, such as \
             libxml2-devel on Amazon Linux and libxml2-dev on Debian\n"
        ),
    );
    // No pattern: apt would take this for one of `broken`.
    let (error, _) = fails("\"broke.\"", &image, &[], REQUIREMENTS);
    assert!(error.contains("the image's own repositories have no `broke.`: "), "{error}");
    let (error, said) = fails("\"broken\"", &image, &[], REQUIREMENTS);
    same(&error, &format!("error: cannot install broken in {image} (exit status 100)\n"));
    assert!(said.contains("it is broken\n"), "{said}");
    let (error, _) = fails("\"gcc\"", &run_image, &[], REQUIREMENTS);
    same(
        &error,
        &format!(
            "error: cannot install gcc: {run_image} has no package manager\n\
             hint: name an image that has one with `build-image`; apt-get, dnf, microdnf and yum will do\n"
        ),
    );
    // Everything that runs is in the store, but for these.
    let (error, _) = fails("\"never-installed\"", &image, &["--offline"], REQUIREMENTS);
    same(
        &error,
        &format!(
            "error: cannot install never-installed in {image}: it was not done before, and the network is off\n\
             hint: build once with a network, or take an image that has them as `build-image`\n"
        ),
    );
    let (error, _) = fails("\"gcc\"", &image, &["--backend", "proot"], SANDBOX);
    same(
        &error,
        "error: cannot install gcc: the sandbox of this host (proot) has no root that can be changed\n\
         hint: `lbx doctor` says what is missing; an image that has them as `build-image` needs nothing\n",
    );
}

#[test]
fn a_mirror_on_this_machine_is_none_of_an_images_business() {
    let Some(run_image) = image() else { return };
    let (path, text) = SOURCES;
    let (listener, sources) = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, text.replace("mirror.test", &address))
    };
    let layer = Layer::gzip(&Tar::new().file(path, 0o644, sources.as_bytes()).finish());
    let Some(image) = standin::with_layer("build-python3.11", "packages-own", &layer) else { return };
    let home = project(&image, "\"gcc\"", "");
    let ran = run(lbx_shared(&home, &["build", "--image", &run_image]).env("PIP_NO_INDEX", "1"));
    assert_eq!(ran.code, REQUIREMENTS, "{}", ran.stderr);
    let hint = "hint: 127.0.0.1 is an address of this machine or its cloud\n";
    assert!(ran.stderr.ends_with(hint), "{}", ran.stderr);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody has come");
}

/// A backend that builds only where this list of packages is installed, of those that there are.
fn only_with(name: &str) -> String {
    let others = ["all", "local", "cloned", "indexed"].into_iter().filter(|other| *other != name);
    let absent = others.map(|other| format!(" and not os.path.exists(\"/usr/share/has-{other}\")"));
    let check =
        format!("    assert os.path.exists(\"/usr/share/has-{name}\"){}\n", absent.collect::<String>());
    BACKEND.replace("    print(\"the backend", &format!("{check}    print(\"the backend"))
}

#[test]
fn a_package_can_have_a_list_of_its_own_wherever_it_comes_from() {
    let (Some(run_image), Some(image)) = (image(), build_image("own")) else { return };
    let (folder, wheels) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["all", "local", "cloned", "indexed"] {
        let package = Package::new(name, "1.0").file(&format!("usr/share/has-{name}"), 0o644, (0, 0), b"");
        package.write(folder.path());
    }
    let mirror = debian::serve(folder.path());
    let home = project(&image, "\"all\"", "");
    home.write("native/backend.py", only_with("all"));
    home.write("local/backend.py", only_with("local"));
    home.write("local/pyproject.toml", pyproject("The.Local", "1.0", ""));
    let text = pyproject("Special.Case", "1.0", "");
    let backend = only_with("indexed");
    let files = [("pyproject.toml", text.as_str()), ("backend.py", &backend), ("special_case.py", "")];
    sdist(wheels.path(), "Special.Case", "1.0", &files);
    home.write("repository/backend.py", only_with("cloned"));
    home.write(
        "repository/pyproject.toml",
        "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n",
    );
    home.write("repository/setup.cfg", "[metadata]\nname = cloned\n");
    let named = only_with("cloned")
        .replace("text = open(\"pyproject.toml\").read()", "text = 'name = \"cloned\"\\nversion = \"1.0\"'");
    home.write("repository/backend.py", named);
    let repository = home.project().join("repository");
    for arguments in [
        &["init", "-q"][..],
        &["add", "."],
        &["-c", "user.name=a", "-c", "user.email=a@b.test", "commit", "-qm", "x"],
    ] {
        assert!(home.command("git").current_dir(&repository).args(arguments).status().unwrap().success());
    }
    let config = fs_err::read_to_string(home.project().join("lbx.toml")).unwrap();
    let own = |package: &str, list: &str| format!("[build.{package}]\nsystem-packages = [\"{list}\"]\n");
    let all = [own("special_case", "indexed"), own("the-local", "local"), own("Cloned", "cloned")].concat();
    home.write("lbx.toml", format!("{config}{all}"));
    let url = format!("git+file://{}", repository.display());
    home.write("r.txt", format!("./native\n./local\nspecial-case\ncloned @ {url}\n"));
    let mut command = build(&home, &run_image, &mirror);
    command.env("PIP_FIND_LINKS", wheels.path());
    let said = succeeds(&mut command).stderr;
    assert_eq!(said.matches(": 1 package from mirror.test\n").count(), 4, "{said}");
}

#[test]
fn without_overlays_the_packages_are_in_a_copy_of_the_whole_image() {
    let (Some(run_image), Some(image)) = (image(), build_image("copy")) else { return };
    // The backends that have no layers and lend their root are root's.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (backend, owner) in [("root-namespaces", 33), ("chroot", 44)] {
        let script = "test $(id -u) = 0; chown 33:44 /usr/share/has-$DPKG_MAINTSCRIPT_PACKAGE; useradd demo";
        Package::new(backend, "1.0")
            .file(&format!("usr/share/has-{backend}"), 0o600, (owner, owner), b"")
            .script("postinst", script)
            .write(folder.path());
    }
    let mirror = debian::serve(folder.path());
    for backend in ["root-namespaces", "chroot"] {
        let check = format!("    open(\"/usr/share/has-{backend}\")\n");
        let home = project(&image, &format!("\"{backend}\""), &check);
        let said = succeeds(build(&home, &run_image, &mirror).args(["--backend", backend])).stderr;
        assert!(said.contains(": 1 package from mirror.test\n"), "{said}");
        assert!(home.project().join("dist/app.zip").exists());
        // What is kept is as good.
        home.write("native/native.py", "changed = True\n");
        succeeds(build(&home, &run_image, &mirror).args(["--backend", backend, "--offline"]));
    }
}
