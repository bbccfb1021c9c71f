//! Repositories that requirements name: fetched outside the sandbox by the user's git, built inside.

use std::path::{Path, PathBuf};
use std::process::Command;

use lbx_testkit::command::{Home, files_below, run, stable_report};
use lbx_testkit::git::{self, Repository, Sshd};
use lbx_testkit::stub::Stub;

use crate::sources::{BACKEND, pyproject};
use crate::support::{HEAD, image, lbx, nothing_left, shared_store};

/// The exit code when requirements do not resolve or build.
const REQUIREMENTS: i32 = 6;

const USER: &str = "mallory";
const PASSWORD: &str = "hush-Zq82-never-shown";

/// A project whose requirements are these.
fn project(requirements: &str) -> Home {
    let home = Home::new();
    home.write("src/app.py", "");
    home.write("r.txt", requirements);
    let functions = "[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n";
    home.write("lbx.toml", format!("{HEAD}{functions}"));
    home
}

/// `lbx build` with a store of the home's own, but for the image.
fn build(home: &Home, image: &str) -> Command {
    let mut command = lbx(home, &["build", "-v", "--image", image]);
    command.env("PIP_NO_INDEX", "1").env("LBX_CACHE_DIR", home.cache());
    command
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let ran = run(command);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.stderr
}

/// What a build says that fails, from its error on.
#[track_caller]
fn fails(home: &Home, command: &mut Command) -> String {
    let ran = run(command);
    assert_eq!(ran.code, REQUIREMENTS, "{}", ran.stderr);
    nothing_left(home);
    let from = ran.stderr.find("error: ").unwrap_or_default();
    home.redact(ran.stderr[from..].trim_end())
}

/// What the zip has in a file.
fn packed(home: &Home, name: &str) -> String {
    let zip = fs_err::File::open(home.project().join("dist/app.zip")).expect("a zip");
    let mut zip = zip::ZipArchive::new(zip).expect("a zip");
    let text = std::io::read_to_string(zip.by_name(name).expect("the file"));
    text.expect("UTF-8").trim().to_owned()
}

/// The files of a version of a project.
fn files(version: &str) -> [(&'static str, String); 3] {
    [
        ("pyproject.toml", pyproject("one", version, "")),
        ("backend.py", BACKEND.to_owned()),
        ("one.py", format!("VERSION = '{version}'\n")),
    ]
}

fn commit(repository: &Repository, version: &str) -> String {
    let files = files(version);
    repository.commit(&files.each_ref().map(|(path, text)| (*path, text.as_str())))
}

struct Forge {
    folder: tempfile::TempDir,
    repository: Repository,
    /// Of the first version.
    first: String,
}

/// A repository with a version under a tag, a later one on its main branch, and one on another.
fn forge() -> Forge {
    let folder = tempfile::tempdir().expect("a directory");
    let repository = Repository::new(&folder.path().join("one"));
    let first = commit(&repository, "1.0");
    repository.git(&["tag", "v1.0"]);
    repository.git(&["checkout", "--quiet", "-b", "next/big"]);
    commit(&repository, "3.0");
    repository.git(&["checkout", "--quiet", "main"]);
    commit(&repository, "2.0");
    Forge { folder, repository, first }
}

impl Forge {
    fn url(server: &Stub) -> String {
        format!("git+http://{}/one", server.address())
    }
}

/// The image in a store of the home's own.
fn with_image(home: &Home, image: &str) {
    succeeds(lbx(home, &["pull", "--quiet", image]).env("LBX_CACHE_DIR", home.cache()));
}

#[test]
fn a_repository_is_built_at_a_tag_a_branch_a_commit_and_by_default() {
    let Some(image) = image() else { return };
    let forge = forge();
    let server = git::serve(forge.folder.path(), None);
    let url = Forge::url(&server);
    let store = Home::new();
    for (ending, version) in [
        (String::new(), "2.0"),
        ("@v1.0".to_owned(), "1.0"),
        ("@next/big".to_owned(), "3.0"),
        (format!("@{}", forge.first), "1.0"),
        (format!("@{}", &forge.first[..10]), "1.0"),
    ] {
        let home = project(&format!("one @ {url}{ending}\n"));
        let mut command = build(&home, &image);
        command.env("LBX_CACHE_DIR", store.cache());
        succeeds(&mut command);
        assert_eq!(packed(&home, "one.py"), format!("VERSION = '{version}'"), "{ending}");
        let report = stable_report(&home.project().join("dist/report.json"));
        let source = report["dependencies"][0]["built"][0]["source"].as_str().unwrap_or_default();
        let (address, commit) = source.rsplit_once('@').expect("a commit");
        assert_eq!((address, commit.len()), (url.as_str(), 40), "{report}");
        // A store that has it needs no server. `-e` and the old way to name it are the same.
        let asked = server.seen().len();
        home.write("r.txt", format!("-e {url}{ending}#egg=one\n"));
        succeeds(command.arg("--offline"));
        assert_eq!((packed(&home, "one.py"), server.seen().len()), (format!("VERSION = '{version}'"), asked));
    }
    // A commit that is there is not asked for again; a branch moves.
    let asked = server.seen().len();
    let home = project(&format!("one @ {url}@{}\n", forge.first));
    succeeds(build(&home, &image).env("LBX_CACHE_DIR", store.cache()));
    assert_eq!(server.seen().len(), asked);
    commit(&forge.repository, "2.1");
    let home = project(&format!("one @ {url}@main\n"));
    succeeds(build(&home, &image).env("LBX_CACHE_DIR", store.cache()));
    assert_eq!(packed(&home, "one.py"), "VERSION = '2.1'");
}

#[test]
fn a_password_reaches_git_and_is_found_nowhere_afterwards() {
    let Some(image) = image() else { return };
    let forge = forge();
    let server = git::serve(forge.folder.path(), Some((USER, PASSWORD)));
    let url = format!("git+http://{USER}:${{WORD}}@{}/one@v1.0", server.address());
    let home = project(&format!("one @ {url}\n"));
    with_image(&home, &image);
    succeeds(build(&home, &image).env("WORD", PASSWORD));
    assert_eq!(packed(&home, "one.py"), "VERSION = '1.0'");
    let everywhere = [home.project().join("dist"), home.cache().join("git"), home.cache().join("built")];
    for folder in everywhere.iter().chain([&home.cache().join("tmp")]) {
        for file in files_below(folder) {
            let bytes = fs_err::read(folder.join(&file)).unwrap_or_default();
            let found = bytes.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes());
            assert!(!found, "{file} in {}", folder.display());
        }
    }
    // The user's own helper knows it, too; without one, nobody is asked.
    let plain = format!("one @ git+http://{}/one@v1.0\n", server.address());
    let home = project(&plain);
    let settings = format!(
        "[credential]\n\thelper = \"!f() {{ echo username={USER}; echo password={PASSWORD}; }}; f\"\n"
    );
    fs_err::write(home.root().join("home/.gitconfig"), settings).unwrap();
    succeeds(build(&home, &image).env("LBX_CACHE_DIR", shared_store()));
    let home = project(&plain.replace("/one@", "/./one@"));
    let said = fails(&home, build(&home, &image).env("LBX_CACHE_DIR", shared_store()));
    assert!(
        said.starts_with("error: the repository http://127.0.0.1:[PORT]/./one cannot be fetched: "),
        "{said}"
    );
    assert!(said.contains("could not read Username") || said.contains("terminal prompts disabled"), "{said}");
    assert!(
        said.ends_with("`GIT_TERMINAL_PROMPT=0 git ls-remote http://127.0.0.1:[PORT]/./one` must work"),
        "{said}"
    );
}

#[test]
fn what_a_repository_has_not_got_is_named() {
    let Some(image) = image() else { return };
    let forge = forge();
    let server = git::serve(forge.folder.path(), None);
    let url = Forge::url(&server);
    for (requirement, options, expected) in [
        (
            format!("one @ {url}@v9"),
            &[][..],
            "cannot give `v9`: there is no branch, tag or commit of that name",
        ),
        (format!("one @ {url}@--upload-pack=x"), &[], "cannot be read: it is no address of a repository"),
        (
            format!("one @ {url}#subdirectory=gone"),
            &[],
            "there is neither a pyproject.toml nor a setup.py in gone",
        ),
        (format!("one @ {}/none", url.trim_end_matches("/one")), &[], "cannot be fetched: "),
        (format!("one @ {url}-x"), &["--offline"], "cannot be had: the network is off"),
    ] {
        let home = project(&requirement);
        let said = fails(&home, build(&home, &image).env("LBX_CACHE_DIR", shared_store()).args(options));
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_folder_of_a_repository_is_built_with_its_submodules_and_its_version() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    let inner = Repository::new(&folder.path().join("inner"));
    inner.commit(&[("inner.py", "WORD = 'inner'\n")]);
    let outer = Repository::new(&folder.path().join("one"));
    let pyproject = pyproject("one", "1.0", "");
    let backend = format!(
        "import os, shutil\nshutil.copy('../sub/inner.py', 'inner.py')\n\
         open('version.py', 'w').write(os.environ['SETUPTOOLS_SCM_PRETEND_VERSION']){BACKEND}"
    );
    let server = git::serve(folder.path(), None);
    outer.commit(&[("python/pyproject.toml", &pyproject), ("python/backend.py", &backend)]);
    // An address that is relative to the repository's own.
    outer.git(&["submodule", "--quiet", "add", &format!("http://{}/inner", server.address()), "sub"]);
    outer.git(&["config", "--file", ".gitmodules", "submodule.sub.url", "../inner"]);
    outer.commit(&[]);
    outer.git(&["tag", "v4.2"]);
    let home = project(&format!("one @ git+http://{}/one@v4.2#subdirectory=python\n", server.address()));
    succeeds(build(&home, &image).env("LBX_CACHE_DIR", shared_store()));
    assert_eq!(
        (packed(&home, "inner.py"), packed(&home, "version.py")),
        ("WORD = 'inner'".into(), "4.2".into())
    );
}

#[test]
fn large_files_come_along_where_git_lfs_is_set_up() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    let repository = Repository::new(&folder.path().join("one"));
    for (name, value) in [
        ("clean", "git-lfs clean -- %f"),
        ("smudge", "git-lfs smudge -- %f"),
        ("process", "git-lfs filter-process"),
    ] {
        repository.git(&["config", &format!("filter.lfs.{name}"), value]);
    }
    let mut all = files("1.0").to_vec();
    all[1].1 = BACKEND.replace("glob.glob(\"*.py\")", "glob.glob(\"*.py\") + glob.glob(\"*.bin\")");
    all.push((".gitattributes", "*.bin filter=lfs -text\n".to_owned()));
    all.push(("large.bin", "large ".repeat(10_000)));
    repository.commit(&all.iter().map(|(path, text)| (*path, text.as_str())).collect::<Vec<_>>());
    assert!(repository.git(&["show", "HEAD:large.bin"]).starts_with("version https://git-lfs"));
    let home = project(&format!("one @ git+file://{}/one\n", folder.path().display()));
    with_image(&home, &image);
    succeeds(home.command("git").args(["lfs", "install", "--skip-repo"]));
    succeeds(&mut build(&home, &image));
    assert_eq!(packed(&home, "large.bin"), "large ".repeat(10_000).trim());
}

#[test]
fn a_large_file_that_git_has_not_brought_is_an_error_and_not_a_note() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    let repository = Repository::new(&folder.path().join("one"));
    let note = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 9\n", "0".repeat(64));
    let all = files("1.0");
    let mut all: Vec<(&str, &str)> = all.iter().map(|(path, text)| (*path, text.as_str())).collect();
    all.push(("data/large.bin", &note));
    repository.commit(&all);
    let server = git::serve(folder.path(), None);
    let home = project(&format!("one @ {}\n", Forge::url(&server)));
    let said = fails(&home, build(&home, &image).env("LBX_CACHE_DIR", shared_store()));
    assert!(said.contains("cannot give `data/large.bin`, which is kept by git-lfs"), "{said}");
}

#[test]
fn ssh_brings_a_repository_with_the_users_key_and_never_asks() {
    if !nix::unistd::geteuid().is_root() {
        // ssh wants its user to have a name; the tests run as root too.
        return;
    }
    let Some(image) = image() else { return };
    let forge = forge();
    let sshd = Sshd::start(&forge.folder.path().join("keys"));
    let repository = forge.folder.path().join("one");
    let ssh = |with_key: bool| wrapper(forge.folder.path(), &sshd.client(with_key));
    let home = project(&format!("one @ {}@v1.0\n", sshd.url(&repository)));
    let mut command = build(&home, &image);
    command.env("LBX_CACHE_DIR", shared_store());
    let path = |folder: PathBuf| format!("{}:/usr/bin:/bin", folder.display());
    let said = fails(&home, command.env("PATH", path(ssh(false))));
    assert!(said.contains("Permission denied (publickey)"), "{said}");
    succeeds(command.env("PATH", path(ssh(true))));
    assert_eq!(packed(&home, "one.py"), "VERSION = '1.0'");
}

/// A folder with an `ssh` that reads this configuration. ssh itself goes by the user's home in the system's list, not by
/// `HOME`; that it is told to ask nobody is what lbx adds.
fn wrapper(folder: &Path, client: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let bin = folder.join("bin");
    fs_err::create_dir_all(&bin).expect("a directory");
    let script = format!(
        "#!/bin/sh\n[ \"$1 $2\" = '-o BatchMode=yes' ] || exit 99\nexec /usr/bin/ssh -F {} \"$@\"\n",
        client.display()
    );
    fs_err::write(bin.join("ssh"), script).expect("a file");
    fs_err::set_permissions(bin.join("ssh"), std::fs::Permissions::from_mode(0o755)).expect("a mode");
    bin
}

#[test]
fn builds_at_once_take_turns_and_what_another_git_has_left_is_made_anew() {
    let Some(image) = image() else { return };
    let forge = forge();
    let server = git::serve(forge.folder.path(), None);
    let store = Home::new();
    with_image(&store, &image);
    let requirement = format!("one @ {}@main\n", Forge::url(&server));
    let build_here = |expected: &str| {
        let home = project(&requirement);
        succeeds(build(&home, &image).env("LBX_CACHE_DIR", store.cache()));
        assert_eq!(packed(&home, "one.py"), format!("VERSION = '{expected}'"));
    };
    build_here("2.0");
    commit(&forge.repository, "2.1");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| build_here("2.1"));
        }
    });
    // A git that was killed leaves its lock, and one that was killed early little else.
    let folder = store.cache().join("git");
    let mirror =
        fs_err::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()).find(|path| path.is_dir());
    let mirror = mirror.expect("a mirror");
    fs_err::write(mirror.join("refs/heads/main.lock"), "").unwrap();
    commit(&forge.repository, "2.2");
    build_here("2.2");
    fs_err::remove_dir_all(&mirror).unwrap();
    fs_err::create_dir(&mirror).unwrap();
    fs_err::write(mirror.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    build_here("2.2");
    fs_err::remove_file(mirror.join("HEAD")).unwrap();
    build_here("2.2");
}

#[test]
fn a_server_that_says_nothing_is_waited_for_as_long_as_was_said_and_nothing_stays() {
    let Some(image) = image() else { return };
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let home = project(&format!("one @ git+http://{address}/one\n"));
    with_image(&home, &image);
    let said = fails(&home, build(&home, &image).args(["--time-limit", "2s"]));
    assert_eq!(
        said,
        "error: the repository http://127.0.0.1:[PORT]/one cannot be fetched: git was stopped after 2 s, the time limit \
         (--time-limit)"
    );
    assert!(!is_running(&address), "what git has started goes with it");
    // The same for whoever gives up.
    let mut child = build(&home, &image).stderr(std::process::Stdio::null()).spawn().unwrap();
    let wait = |what: &str, done: &mut dyn FnMut() -> bool| {
        let start = std::time::Instant::now();
        while !done() {
            assert!(start.elapsed() < std::time::Duration::from_mins(1), "{what}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    wait("git asks", &mut || is_running(&address));
    succeeds_silently(Command::new("kill").args(["-TERM", &child.id().to_string()]));
    wait("lbx ends", &mut || child.try_wait().unwrap().is_some());
    assert!(!is_running(&address), "nothing stays");
}

fn succeeds_silently(command: &mut Command) {
    assert!(command.status().expect("it starts").success());
}

/// Whether a program of git's has this word among its arguments.
fn is_running(word: &str) -> bool {
    let processes = fs_err::read_dir("/proc").expect("processes").flatten();
    let arguments = processes.map(|entry| fs_err::read(entry.path().join("cmdline")).unwrap_or_default());
    arguments.into_iter().any(|bytes| {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.contains("git") && text.contains(word) && !text.contains("lbx")
    })
}
