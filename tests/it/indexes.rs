//! Package indexes: what pip in the sandbox gets of them, what it does not, and what the user is told.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use lbx_testkit::command::{Home, files_below, run, stable_report};
use lbx_testkit::index;
use lbx_testkit::pypiserver::PypiServer;
use lbx_testkit::stub::{Reply, Stub};
use lbx_testkit::wheels::{Wheel, sdist};
use serde_json::Value;

use crate::support::{HEAD, LBX, after_progress, image, lbx_shared, nothing_left, same};

/// The exit code when the configuration is at fault.
const PROJECT: i32 = 3;
/// The exit code when requirements do not resolve or build.
const REQUIREMENTS: i32 = 6;

/// What nobody must ever find: a password that is not a word of anything else.
const PASSWORD: &str = "hush-Zq81-never-shown";
const USER: &str = "mallory-not-shown-either";

/// What a place for a login needs.
type Change<'c> = &'c dyn Fn(&Home, &mut Command);

/// Wheels that an index has.
fn wheels(all: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a directory");
    for (name, version) in all {
        Wheel::new(name, version).file(&format!("{name}.py"), version.as_bytes()).write(folder.path());
    }
    folder
}

/// An index that answers those alone who know the password.
fn private(folder: &Path) -> Stub {
    use base64::Engine;
    let open = index::serve(folder);
    let token = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let expected = format!("Basic {token}");
    Stub::start(move |request| {
        if request.header("authorization") != Some(&expected) {
            return Reply::new(401, b"who are you?").with_header("WWW-Authenticate", "Basic realm=\"x\"");
        }
        let answer = lbx_testkit::registry::request(open.address(), &request.method, &request.path, &[], &[]);
        let answer = answer.expect("an answer");
        Reply::new(answer.status, &answer.body).with_header("Content-Type", "text/html")
    })
}

/// A project with these requirements and nothing else.
fn project(requirements: &str) -> Home {
    let home = Home::new();
    home.write("src/app.py", "");
    home.write("r.txt", requirements);
    configure(&home, "");
    home
}

fn configure(home: &Home, more: &str) {
    let functions = "[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n";
    home.write("lbx.toml", format!("{HEAD}{more}{functions}"));
}

/// `lbx build`, which knows of this index and of no other.
fn build(home: &Home, image: &str, index: &str) -> Command {
    let mut command = lbx_shared(home, &["build", "--image", image]);
    command.env("PIP_INDEX_URL", index).env_remove("PIP_EXTRA_INDEX_URL");
    command
}

fn url(stub: &Stub) -> String {
    format!("http://{}/simple", stub.address())
}

fn with_login(stub: &Stub) -> String {
    format!("http://{USER}:{PASSWORD}@{}/simple", stub.address())
}

fn report(home: &Home) -> Value {
    stable_report(&home.project().join("dist/report.json"))
}

/// The files that were taken, by name.
fn taken(home: &Home) -> Vec<String> {
    let report = report(home);
    let files = report["dependencies"][0]["taken"].as_array().expect("files");
    files.iter().map(|file| file["file"].as_str().expect("a name").to_owned()).collect()
}

/// What the artifact has of a project.
fn installed(home: &Home, name: &str) -> String {
    let report = report(home);
    let wheels = report["artifacts"][0]["wheels"].as_array().expect("wheels");
    let found = wheels.iter().find(|wheel| wheel["name"] == name);
    found.and_then(|wheel| wheel["version"].as_str()).unwrap_or("none").to_owned()
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let ran = run(command);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.stderr
}

#[test]
fn what_pip_took_is_in_the_report_with_where_it_came_from() {
    let Some(image) = image() else { return };
    let folder = wheels(&[("one", "1.0"), ("one", "2.0")]);
    let stub = index::serve(folder.path());
    let home = project("one<2\n");
    succeeds(&mut build(&home, &image, &url(&stub)));
    let report = report(&home);
    let set = &report["dependencies"][0];
    assert_eq!(set["requirements"][0], "r.txt");
    let one = &set["taken"][0];
    assert_eq!(one["file"], "one-1.0-py3-none-any.whl");
    assert_eq!(one["sha256"], report["artifacts"][0]["wheels"][0]["sha256"]);
    assert_eq!((&one["index"], &one["installed"]), (&url(&stub).into(), &true.into()));
    assert!(
        one["url"].as_str().is_some_and(|url| url.ends_with("/files/one/one-1.0-py3-none-any.whl")),
        "{one}"
    );
    assert_eq!(set["taken"].as_array().map(Vec::len), Some(1), "what was not chosen was not taken: {set}");
}

/// Every place that could have the password, each of which the index accepts.
#[test]
fn a_login_works_from_every_place_and_is_found_in_none_afterwards() {
    let Some(image) = image() else { return };
    let folder = wheels(&[("one", "1.0")]);
    // Build code sees all that there is to see in the sandbox, and keeps it.
    let files = [
        (
            "pyproject.toml",
            "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n",
        ),
        ("backend.py", SPY),
    ];
    sdist(folder.path(), "spy", "1.0", &files);
    let stub = private(folder.path());
    let host = stub.address().to_owned();
    let toml = format!(
        "index-strategy = \"first-match\"\n[[index]]\nurl = \"http://{host}/simple\"\nusername-env = \"MY_USER\"\n\
         password-env = \"MY_PASSWORD\"\n"
    );
    let in_url = with_login(&stub);
    let plain = url(&stub);
    let places: [(&str, &str, &str, Change<'_>); 7] = [
        ("PIP_INDEX_URL", "", &in_url, &|_, _| ()),
        ("PIP_EXTRA_INDEX_URL", "", &plain, &|_, command| {
            command
                .env_remove("PIP_INDEX_URL")
                .env("PIP_EXTRA_INDEX_URL", &in_url)
                .env("PIP_INDEX_URL", &in_url);
        }),
        ("lbx.toml", &toml, &plain, &|_, command| {
            command.env("MY_USER", USER).env("MY_PASSWORD", PASSWORD).env_remove("PIP_INDEX_URL");
        }),
        ("requirements", "", &plain, &|home, command| {
            let address = format!("http://${{MY_USER}}:${{MY_PASSWORD}}@{host}/simple");
            home.write("r.txt", format!("--index-url {address} # why\none\nspy\n"));
            command.env("MY_USER", USER).env("MY_PASSWORD", PASSWORD).env_remove("PIP_INDEX_URL");
        }),
        ("netrc", "", &plain, &|home, _| {
            let text = format!("machine 127.0.0.1 login {USER} password {PASSWORD}\n");
            fs_err::write(home.root().join("home/.netrc"), text).expect("a file");
        }),
        ("pip.conf", "", &plain, &|home, command| {
            let folder = home.root().join("home/.config/pip");
            fs_err::create_dir_all(&folder).expect("a directory");
            fs_err::write(folder.join("pip.conf"), format!("[global]\nindex-url = {in_url}\n"))
                .expect("a file");
            command.env_remove("PIP_INDEX_URL");
        }),
        ("keyring", "", &plain, &|home, command| {
            let bin = home.root().join("home/bin");
            fs_err::create_dir_all(&bin).expect("a directory");
            let script = format!("#!/bin/sh\n[ \"$1 $3\" = \"get {USER}\" ] && echo {PASSWORD}\n");
            fs_err::write(bin.join("keyring"), script).expect("a file");
            fs_err::set_permissions(bin.join("keyring"), std::fs::Permissions::from_mode(0o755))
                .expect("a mode");
            command.env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", bin.display()));
            command.env("PIP_KEYRING_PROVIDER", "subprocess");
            command.env("PIP_INDEX_URL", format!("http://{USER}@{host}/simple"));
        }),
    ];
    // The image alone is kept.
    let store = Home::new();
    for (place, more, index, change) in places {
        let home = project("one\nspy\n");
        configure(&home, more);
        let mut command = lbx(&home, &image, index);
        command.env("LBX_CACHE_DIR", store.cache());
        change(&home, &mut command);
        let ran = run(&mut command);
        assert_eq!(ran.code, 0, "{place}: {}", ran.stderr);
        assert_eq!(taken(&home), ["one-1.0-py3-none-any.whl", "spy-1.0.tar.gz"], "{place}");
        for secret in [USER, PASSWORD] {
            assert!(!ran.stderr.contains(secret) && !ran.stdout.contains(secret), "{place}: {}", ran.stderr);
            search(&home.project().join("dist"), secret, place);
            for part in ["index", "wheels", "tmp", "refs"] {
                search(&store.cache().join(part), secret, place);
            }
        }
        for part in ["index", "wheels"] {
            fs_err::remove_dir_all(store.cache().join(part)).expect("removed");
        }
        let seen = spied(&home);
        for word in ["argv", "environ", "/lbx/source/spy-1.0.tar.gz", "no_proxy"] {
            assert!(seen.contains(word), "the spy saw nothing of {word}: {seen}");
        }
    }
}

/// An index that others wrote, with a password file.
#[test]
fn pypiserver_gives_its_packages_to_who_has_the_password_and_tells_others_nothing() {
    let Some(image) = image() else { return };
    let folder = wheels(&[("one", "1.0"), ("one", "2.0")]);
    let Some(server) = PypiServer::start(folder.path(), USER, PASSWORD) else { return };
    let address = format!("http://{}/simple/", server.address());
    let login = format!("http://{USER}:{PASSWORD}@{}/simple/", server.address());
    let home = project("one<2\n");
    let started = std::time::Instant::now();
    for (index, words) in [
        (address.as_str(), "(401): it was given no login"),
        (&login.replace(PASSWORD, "another"), "(403): the login that it was given is not good"),
    ] {
        let ran = run(&mut build(&home, &image, index));
        assert_eq!(ran.code, REQUIREMENTS, "{}", ran.stderr);
        let said = ran.stderr.lines().rev().nth(1).unwrap_or_default();
        assert!(said.starts_with("error: cannot get the requirements of r.txt: "), "{said}");
        assert!(said.contains(words), "{said}");
        nothing_left(&home);
    }
    assert!(started.elapsed() < std::time::Duration::from_mins(1), "nobody was asked, and nothing hung");
    succeeds(&mut build(&home, &image, &login));
    assert_eq!(installed(&home, "one"), "1.0");
    let ran = run(lbx_shared(&home, &["lock", "--image", &image]).env("PIP_INDEX_URL", &login));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let lock = fs_err::read_to_string(home.project().join("pylock.r.toml")).unwrap();
    assert!(lock.contains("one-1.0-py3-none-any.whl") && !lock.contains(PASSWORD), "{lock}");
    // From the lock, the login is still needed for what is not in the store.
    let store = home.root().join("empty");
    let locked = |index: &str| run(build(&home, &image, index).arg("--locked").env("LBX_CACHE_DIR", &store));
    assert_eq!(locked(&address).code, REQUIREMENTS);
    assert_eq!(locked(&login).code, 0);
}

/// `lbx build -vv` with a store of the home's own, so that all of it can be searched.
fn lbx(home: &Home, image: &str, index: &str) -> Command {
    let mut command = home.command(LBX);
    command.args(["build", "-vv", "--image", image]).env("PIP_INDEX_URL", index);
    command
}

/// A build backend that puts all that it can read of processes, files and variables into its wheel.
const SPY: &str = r#"
import base64, hashlib, os, zipfile

def everything():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("cmdline", "environ"):
            try:
                found.append(f"{pid} {name} " + open(f"/proc/{pid}/{name}", errors="replace").read())
            except OSError as error:
                found.append(f"{pid} {name} {error}")
    found.append("argv")
    found.append("environ " + repr(dict(os.environ)))
    for top in ("/lbx", "/home", "/tmp", "/run", "/root", "/etc/pip.conf", "/etc/hosts", "/etc/resolv.conf"):
        for folder, _, files in os.walk(top):
            for name in files:
                path = os.path.join(folder, name)
                try:
                    found.append(path + " " + open(path, errors="replace").read(100000))
                except OSError as error:
                    found.append(path + " " + str(error))
    return "\n".join(found)

def digest(text):
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")

def build_wheel(folder, config_settings=None, metadata_directory=None):
    info = "spy-1.0.dist-info"
    files = {
        "spied.txt": everything().encode(errors="replace").decode(),
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: spy\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{path},sha256={digest(text)},{len(text.encode())}\n" for path, text in files.items()]
    files[f"{info}/RECORD"] = "".join(record) + f"{info}/RECORD,,\n"
    path = "spy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, path), "w") as file:
        for name, text in files.items():
            file.writestr(name, text)
    return path
"#;

/// What the spy put into the zip.
fn spied(home: &Home) -> String {
    let file = fs_err::File::open(home.project().join("dist/app.zip")).expect("a zip");
    let mut zip = zip::ZipArchive::new(file).expect("a zip");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut zip.by_name("spied.txt").expect("an entry"), &mut text).expect("text");
    text
}

/// Looks for a word in every byte of every file, and in zips in what they hold; also as basic authentication has it.
#[track_caller]
fn search(folder: &Path, word: &str, place: &str) {
    for name in files_below(folder) {
        let path = folder.join(&name);
        let Ok(bytes) = fs_err::read(&path) else { continue };
        let found = |bytes: &[u8]| bytes.windows(word.len()).any(|window| window == word.as_bytes());
        assert!(!found(&bytes), "{place}: {word} is in {name}");
        // A digest in base64 may begin with these two letters, too.
        if bytes.starts_with(b"PK\x03\x04") {
            let mut zip = zip::ZipArchive::new(std::io::Cursor::new(bytes)).expect("a zip");
            for index in 0..zip.len() {
                let mut member = Vec::new();
                std::io::Read::read_to_end(&mut zip.by_index(index).expect("a member"), &mut member)
                    .expect("bytes");
                assert!(!found(&member), "{place}: {word} is in a member of {name}");
            }
        }
    }
}

#[test]
fn an_index_that_wants_a_login_is_told_in_its_name_and_nobody_is_asked() {
    let Some(image) = image() else { return };
    let folder = wheels(&[("one", "1.0")]);
    let stub = private(folder.path());
    for (index, reason) in [
        (url(&stub), "it was given no login"),
        (format!("http://{USER}:wrong@{}/simple", stub.address()), "the login that it was given is not good"),
    ] {
        let home = project("one\n");
        let ran = run(&mut build(&home, &image, &index));
        assert_eq!(ran.code, REQUIREMENTS, "{}", ran.stderr);
        let last: Vec<&str> = ran.stderr.lines().rev().take(2).collect();
        let said = home.redact(last[1]);
        assert!(
            said.starts_with(
                "error: cannot get the requirements of r.txt: 127.0.0.1:[PORT] refused access to"
            ),
            "{said}"
        );
        assert!(said.ends_with(&format!("(401): {reason}")), "{said}");
        assert!(last[0].starts_with("hint: give a user and a password for"), "{}", last[0]);
        assert!(!ran.stderr.contains(USER), "{}", ran.stderr);
        nothing_left(&home);
    }
}

#[test]
fn the_first_index_that_has_a_project_is_the_only_one_when_that_is_wanted() {
    let Some(image) = image() else { return };
    let (inside, outside) = (wheels(&[("one", "1.0")]), wheels(&[("one", "9.0"), ("two", "1.0")]));
    let (inside, outside) = (index::serve(inside.path()), index::serve(outside.path()));
    let indexes = format!("[[index]]\nurl = \"{}\"\n[[index]]\nurl = \"{}\"\n", url(&inside), url(&outside));
    for (strategy, one) in [("index-strategy = \"first-match\"\n", "1.0"), ("", "9.0")] {
        let home = project("one\ntwo\n");
        configure(&home, &format!("{strategy}{indexes}"));
        // What the environment says does not count beside what the project says.
        succeeds(&mut build(&home, &image, "http://127.0.0.1:1/simple"));
        assert_eq!((installed(&home, "one").as_str(), installed(&home, "two").as_str()), (one, "1.0"));
    }
}

#[test]
fn the_options_of_requirement_files_mean_what_they_mean_to_pip() {
    let Some(image) = image() else { return };
    let (first, second) = (wheels(&[("one", "1.0")]), wheels(&[("one", "2.0")]));
    let (first, second) = (index::serve(first.path()), index::serve(second.path()));
    for (options, expected) in [
        (String::new(), "1.0"),
        (format!("-i {}\n", url(&second)), "2.0"),
        (format!("--extra-index-url={}\n", url(&second)), "2.0"),
        // The last one takes the place of all before it.
        (format!("--extra-index-url={}\n--index-url {}\n", url(&second), url(&first)), "1.0"),
        ("-f wheels\n".to_owned(), "3.0"),
        ("--no-index --find-links wheels\n".to_owned(), "3.0"),
        (format!("--find-links http://{}/simple/one/\n", second.address()), "2.0"),
    ] {
        let home = project(&format!("{options}one\n"));
        Wheel::new("one", "3.0").write(&home.project().join("wheels"));
        succeeds(&mut build(&home, &image, &url(&first)));
        assert_eq!(installed(&home, "one"), expected, "{options}");
    }
}

#[test]
fn an_archive_that_is_named_by_its_address_is_taken_and_its_hash_is_held() {
    let Some(image) = image() else { return };
    let folder = wheels(&[("one", "1.0"), ("two", "1.0")]);
    let stub = index::serve(folder.path());
    let file = format!("http://{}/files/one/one-1.0-py3-none-any.whl", stub.address());
    let right =
        lbx_testkit::images::sha256(&fs_err::read(folder.path().join("one-1.0-py3-none-any.whl")).unwrap());
    let right = right.replace(':', "=");
    for requirement in [
        format!("one @ {file}"),
        format!("one@{file}#{right} ; python_version > '3'"),
        format!("{file}#egg=one"),
    ] {
        let home = project(&format!("{requirement}\ntwo\n"));
        succeeds(&mut build(&home, &image, &url(&stub)));
        assert_eq!(installed(&home, "one"), "1.0");
        assert_eq!(report(&home)["dependencies"][0]["taken"][0]["url"], file.as_str());
    }
    let home = project(&format!("one @ {file}#sha256={}\n", "0".repeat(64)));
    let ran = run(&mut build(&home, &image, &url(&stub)));
    assert_eq!(ran.code, REQUIREMENTS, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("error: cannot get the requirements of r.txt: one-1.0-py3-none-any.whl from"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains(&format!("expected {}", "0".repeat(64))), "{}", ran.stderr);
    nothing_left(&home);
}

#[test]
fn without_a_network_the_second_build_is_the_first_and_opens_no_connection() {
    let Some(image) = image() else { return };
    let folder = wheels(&[("one", "1.0")]);
    let stub = index::serve(folder.path());
    let home = project("one\n");
    succeeds(&mut build(&home, &image, &url(&stub)));
    let first = fs_err::read(home.project().join("dist/app.zip")).unwrap();
    let asked = stub.seen().len();
    succeeds(build(&home, &image, &url(&stub)).arg("--offline"));
    assert_eq!(fs_err::read(home.project().join("dist/app.zip")).unwrap(), first);
    assert_eq!(stub.seen().len(), asked, "the index was asked");
    let home = project("two\n");
    let ran = run(build(&home, &image, &url(&stub)).arg("--offline"));
    assert_eq!(ran.code, REQUIREMENTS, "{}", ran.stderr);
    let said = home.redact(ran.stderr.lines().rev().nth(1).unwrap_or_default());
    same(
        &said,
        "error: cannot get the requirements of r.txt: the page http://127.0.0.1:[PORT]/simple/two/ is not in the store, \
         and the network is off",
    );
    nothing_left(&home);
}

/// A package whose build asks for what it must not have.
#[test]
fn what_build_code_asks_for_elsewhere_is_refused_and_reported_by_name() {
    let Some(image) = image() else { return };
    let folder = wheels(&[]);
    let build_system = "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n";
    let tries = "def tries():\n    import urllib.request\n    for url in ('https://evil.example/x', 'http://plain.example/y'):\n        \
                 try:\n            urllib.request.urlopen(url, timeout=5)\n        except Exception as error:\n            print(url, error)\n";
    let backend =
        format!("{tries}{}", SPY.replace("def everything():\n", "def everything():\n    tries()\n"));
    sdist(folder.path(), "spy", "1.0", &[("pyproject.toml", build_system), ("backend.py", &backend)]);
    let stub = index::serve(folder.path());
    let home = project("spy\n");
    let said = succeeds(&mut build(&home, &image, &url(&stub)));
    let refused = report(&home)["dependencies"][0]["refused"].clone();
    let expected = [
        "spy-1.0.tar.gz: CONNECT evil.example:443: only package indexes can be reached",
        "spy-1.0.tar.gz: GET plain.example: only package indexes can be reached",
    ];
    assert_eq!(refused, Value::from(expected.to_vec()));
    for one in expected {
        assert!(
            said.contains(&format!("lbx: pip: app: refused what build code asked for: {one}\n")),
            "{said}"
        );
    }
}

#[test]
fn settings_that_cannot_be_are_named_before_anything_is_fetched() {
    let home = project("one\n");
    let refused = |home: &Home, change: &dyn Fn(&mut Command), code: i32, expected: &str| {
        let mut command = build(home, "127.0.0.1:1/x:1", "http://127.0.0.1:1/simple");
        change(&mut command);
        let ran = run(&mut command);
        assert_eq!((ran.code, ran.stdout.as_str()), (code, ""), "{}", ran.stderr);
        same(&home.redact(after_progress(&ran.stderr)), expected);
        nothing_left(home);
    };
    refused(
        &home,
        &|command| _ = command.env("PIP_INDEX_URL", "simple"),
        1,
        "error: PIP_INDEX_URL is what it cannot be\n",
    );
    refused(
        &home,
        &|command| _ = command.env("PIP_INDEX_URL", format!("http://me:{PASSWORD}@index.test/simple")),
        PROJECT,
        "error: http://index.test/simple is plain HTTP, which anybody on the way can read and change\n\
         hint: use https, or name the host as a trusted host if you have to\n",
    );
    configure(&home, "[[index]]\nurl = \"https://index.test/simple\"\npassword-env = \"GONE\"\n");
    refused(
        &home,
        &|_| (),
        PROJECT,
        "error: lbx.toml:5:16: the variable GONE is not set, or is empty\nhint: set it in the environment of lbx\n",
    );
    configure(&home, "");
    let pip_conf = home.root().join("home/pip.conf");
    fs_err::write(&pip_conf, "[global]\ntimeout = soon\n").unwrap();
    refused(
        &home,
        &|command| _ = command.env("PIP_CONFIG_FILE", &pip_conf),
        1,
        "error: [ROOT]/home/pip.conf: line 2 of pip.conf sets timeout to no number of seconds\n",
    );
    home.write("r.txt", "six --index-url https://index.test\n");
    refused(
        &home,
        &|_| (),
        PROJECT,
        "error: r.txt:1: `six --index-url https://index.test` cannot be used: an option about indexes stands behind a \
         requirement, where pip ignores it\nhint: give it a line of its own\n",
    );
    home.write("r.txt", "-f gone\nsix\n");
    refused(
        &home,
        &|_| (),
        PROJECT,
        "error: `gone`, which the requirements name, does not exist\n\
         hint: folders of archives are relative to the file that names them, all else to the project's folder\n",
    );
}
