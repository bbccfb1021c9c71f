//! What pip refuses, in pip's own words, and what is wrong between wheels and own code. The wheels are made here,
//! so that only the one test about real build tools asks an index.

use lbx_testkit::command::{Home, run};
use lbx_testkit::wheels::{Wheel, sdist};

use crate::support::{
    HEAD, LBX, after_progress, fails, image, in_progress, lbx, lbx_shared, nothing_left, same,
};

/// The exit code when requirements do not resolve or build.
const REQUIREMENTS: i32 = 6;
/// The exit code when the artifact cannot be put together.
const ARTIFACT: i32 = 7;

/// A project with one function, whose requirements come from `wheels/` alone.
pub(crate) fn project(requirements: &str, wheels: &[Wheel]) -> Home {
    let home = Home::new();
    home.write("src/app.py", "import one\n");
    home.write("r.txt", format!("--no-index\n--find-links wheels\n{requirements}"));
    home.write("lbx.toml", format!("{HEAD}[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n"));
    fs_err::create_dir(home.project().join("wheels")).expect("a directory");
    for wheel in wheels {
        wheel.write(&home.project().join("wheels"));
    }
    home
}

#[test]
fn a_requirement_that_does_not_exist_is_told_in_the_words_of_pip() {
    let Some(image) = image() else { return };
    let home = project("one==2\n", &[Wheel::new("one", "1.0")]);
    fails(
        &home,
        &mut lbx_shared(&home, &["build", "--image", &image]),
        REQUIREMENTS,
        "Looking in indexes: [ROOT]/project/wheels\n\
        ERROR: Could not find a version that satisfies the requirement one==2 (from versions: 1.0)\n\
        ERROR: No matching distribution found for one==2\n\
        error: pip cannot build the requirements of r.txt (exit status 1)\n\
        hint: no version of that package fits this Python, CPU and C library; `lbx build -v` shows what pip looked at\n",
    );
}

#[test]
fn a_build_that_says_nothing_or_takes_too_long_is_stopped_at_its_limit() {
    let Some(image) = image() else { return };
    for (option, words) in [
        ("--silence-limit", "stopped after 3 s without a word"),
        ("--time-limit", "stopped after 3 s, the time limit"),
    ] {
        let home = project("one", &[]);
        let build = "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n";
        let backend = "import time\n\ndef build_wheel(*others):\n    time.sleep(1000)\n";
        let files = [("pyproject.toml", build), ("backend.py", backend)];
        sdist(&home.project().join("wheels"), "one", "1.0", &files);
        let ran = run(&mut lbx_shared(&home, &["build", "--image", &image, option, "3s"]));
        assert_eq!(ran.code, REQUIREMENTS, "{}", ran.stderr);
        let last: Vec<&str> = ran.stderr.lines().rev().take(2).collect();
        same(last[1], &format!("error: cannot build one-1.0.tar.gz ({words})"));
        same(last[0], &format!("hint: raise the limit with {option}"));
        nothing_left(&home);
    }
}

#[test]
fn pins_that_contradict_each_other_are_told_in_the_words_of_pip() {
    let Some(image) = image() else { return };
    let wheels = [
        Wheel::new("one", "1.0").requires("base==1.0"),
        Wheel::new("two", "1.0").requires("base==2.0"),
        Wheel::new("base", "1.0"),
        Wheel::new("base", "2.0"),
    ];
    let home = project("one\ntwo\n", &wheels);
    let ran = run(&mut lbx_shared(&home, &["build", "--image", &image]));
    assert_eq!(ran.code, REQUIREMENTS);
    let said = after_progress(&ran.stderr);
    for words in ["one 1.0 depends on base==1.0", "two 1.0 depends on base==2.0", "ResolutionImpossible"] {
        assert!(said.contains(words), "{said}");
    }
    let error = said.lines().find(|line| line.starts_with("error: pip cannot")).unwrap_or_default();
    same(error, "error: pip cannot build the requirements of r.txt (exit status 1)");
    nothing_left(&home);
}

#[test]
fn an_extension_without_a_wheel_and_without_a_compiler_says_what_to_do() {
    let Some(image) = image() else { return };
    let home = Home::new();
    home.write("app.py", "");
    let files = [
        (
            "setup.py",
            "from setuptools import Extension, setup\nsetup(ext_modules=[Extension('fast', ['fast.c'])])\n",
        ),
        (
            "pyproject.toml",
            "[build-system]\nrequires = ['setuptools==80.9.0']\n[project]\nname = 'fast'\nversion = '1.0'\n",
        ),
        ("fast.c", "int nothing;\n"),
    ];
    sdist(&home.project(), "fast", "1.0", &files);
    home.write("requirements.txt", "./fast-1.0.tar.gz\n");
    let ran = run(&mut lbx_shared(&home, &["build", "--runtime", "python3.11", "--image", &image]));
    assert_eq!(ran.code, REQUIREMENTS, "{}", ran.stderr);
    assert!(ran.stderr.contains("gcc"), "{}", ran.stderr);
    let last: Vec<&str> = ran.stderr.lines().rev().take(2).collect();
    same(
        &format!("{}\n{}\n", last[1], last[0]),
        "error: cannot build fast-1.0.tar.gz (exit status 1)\n\
        hint: fast-1.0.tar.gz needs a compiler (`x86_64-linux-gnu-gcc`), which the image lacks: pin a version that has a wheel, \
        or let lbx.toml have `build-image = \"public.ecr.aws/sam/build-python3.11:latest\"` in [project], and `system-packages` with what \
        that lacks\n",
    );
    nothing_left(&home);
}

#[test]
fn own_code_and_a_wheel_with_one_path_are_a_conflict_that_names_both() {
    let Some(image) = image() else { return };
    let home = project("one\n", &[Wheel::new("one", "1.0").file("app.py", b"theirs")]);
    fails(
        &home,
        &mut lbx_shared(&home, &["build", "--image", &image]),
        ARTIFACT,
        "error: both one 1.0 and src have the file `app.py`, with different contents\n\
        hint: only one of them can be in the zip: rename or remove the other\n",
    );
}

#[test]
fn two_wheels_with_one_path_are_a_conflict_that_names_both() {
    let Some(image) = image() else { return };
    let wheels =
        [Wheel::new("one", "1.0").file("x/y.py", b"1"), Wheel::new("two", "1.0").file("x/y.py", b"2")];
    let home = project("one\ntwo\n", &wheels);
    fails(
        &home,
        &mut lbx_shared(&home, &["build", "--image", &image]),
        ARTIFACT,
        "error: both one 1.0 and two 1.0 have the file `x/y.py`, with different contents\n\
        hint: only one of them can be in the zip: rename or remove the other\n",
    );
    // The same bytes in both are no conflict.
    let wheels =
        [Wheel::new("one", "1.0").file("x/y.py", b"1"), Wheel::new("two", "1.0").file("x/y.py", b"1")];
    let home = project("one\ntwo\n", &wheels);
    assert_eq!(run(&mut lbx_shared(&home, &["build", "--image", &image])).code, 0);
}

#[test]
fn a_file_of_one_owner_that_is_a_folder_of_another_is_a_conflict_that_names_both() {
    let Some(image) = image() else { return };
    let home = project("one\n", &[Wheel::new("one", "1.0").file("app.py/x", b"theirs")]);
    fails(
        &home,
        &mut lbx_shared(&home, &["build", "--image", &image]),
        ARTIFACT,
        "error: `app.py` is a file of src and a folder of one 1.0\n\
        hint: only one of them can be in the zip: rename or remove the other\n",
    );
}

#[test]
fn a_wheel_that_does_not_match_its_own_record_is_refused() {
    let Some(image) = image() else { return };
    let home = project("one\n", &[Wheel::new("one", "1.0").file("one.py", b"x")]);
    let wheel = home.project().join("wheels/one-1.0-py3-none-any.whl");
    let script = "import sys, zipfile\nold = zipfile.ZipFile(sys.argv[1])\nfiles = {i: old.read(i) for i in old.namelist()}\n\
                  files['one.py'] = b'y'\nnew = zipfile.ZipFile(sys.argv[1], 'w')\n[new.writestr(k, v) for k, v in files.items()]\n\
                  new.close()\n";
    lbx_testkit::command::succeed(home.command("/usr/bin/python3").args(["-c", script]).arg(&wheel));
    let ran = run(&mut lbx_shared(&home, &["build", "--image", &image]));
    assert_eq!(ran.code, ARTIFACT);
    let said = after_progress(&ran.stderr);
    assert!(said.starts_with("error: the wheel `one-1.0-py3-none-any.whl` cannot be used: "), "{said}");
    assert!(said.ends_with("\"one.py\" does not match RECORD: sha256 differs\n"), "{said}");
    nothing_left(&home);
}

#[test]
fn a_wheel_for_a_newer_c_library_than_lambda_s_is_not_taken_whatever_the_image_has() {
    let Some(image) = image() else { return };
    // The stand-in image has glibc 2.36, and python3.11 runs on 2.26.
    let wheels = [
        Wheel::new("fast", "2.0").tag("cp311-cp311-manylinux_2_28_x86_64"),
        Wheel::new("fast", "1.0").tag("cp311-cp311-manylinux_2_26_x86_64"),
    ];
    let home = project("fast\n", &wheels);
    assert_eq!(run(&mut lbx_shared(&home, &["build", "--image", &image])).code, 0);
    let report = fs_err::read_to_string(home.project().join("dist/report.json")).unwrap();
    assert!(report.contains("\"fast-1.0-cp311-cp311-manylinux_2_26_x86_64.whl\""), "{report}");
    let home = project("fast==2.0\n", &wheels);
    let ran = run(&mut lbx_shared(&home, &["build", "--image", &image]));
    assert_eq!(ran.code, REQUIREMENTS, "{}", ran.stderr);
    nothing_left(&home);
}

/// A project whose one requirement is a local package, built by this code of its own.
fn built_by(backend: &str) -> Home {
    let home = Home::new();
    home.write("src/app.py", "");
    home.write("r.txt", "--no-index\n./evil\n");
    home.write("lbx.toml", format!("{HEAD}[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n"));
    home.write(
        "evil/pyproject.toml",
        "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n",
    );
    home.write("evil/backend.py", format!("{BACKEND}{backend}"));
    home
}

/// What a build backend needs to make a wheel of any name.
const BACKEND: &str = r#"
import base64, hashlib, os, zipfile

def digest(text):
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")

def wheel(folder, name, version):
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}_{version[0]}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{path},sha256={digest(text)},{len(text)}\n" for path, text in files.items()]
    files[f"{info}/RECORD"] = "".join(record) + f"{info}/RECORD,,\n"
    path = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, path), "w") as file:
        for name, text in files.items():
            file.writestr(name, text)
    return path

def build_wheel(folder, config_settings=None, metadata_directory=None):
"#;

#[test]
fn what_build_code_says_reaches_the_terminal_without_its_control_characters() {
    let Some(image) = image() else { return };
    let home = built_by("    os.write(2, b'\\x1b[2Jred\\x1b]52;c;cm0=\\x07\\n')\n    raise SystemExit(3)\n");
    let ran = run(&mut lbx_shared(&home, &["build", "--image", &image]));
    assert_eq!(ran.code, REQUIREMENTS);
    assert!(ran.stderr.contains("\\u{1b}[2Jred"), "{}", ran.stderr);
    assert!(!ran.stderr.contains('\u{1b}') && !ran.stderr.contains('\u{7}'), "{:?}", ran.stderr);
}

#[test]
fn a_link_or_a_pipe_under_a_wheels_name_is_an_error_and_nobody_follows_it() {
    let Some(image) = image() else { return };
    for (made, found) in [
        ("os.symlink('/lbx/out/../../etc/passwd', '/lbx/out/x-1-py3-none-any.whl')", "a symbolic link"),
        ("os.mkfifo('/lbx/out/x-1-py3-none-any.whl')", "a pipe"),
    ] {
        let home = built_by(&format!("    {made}\n    return wheel(folder, 'evil', '1.0')\n"));
        let ran = run(&mut lbx_shared(&home, &["build", "--image", &image]));
        assert_eq!(ran.code, ARTIFACT, "{}", ran.stderr);
        same(
            &home.redact(after_progress(&ran.stderr)),
            &format!(
                "error: cannot take what pip left: `x-1-py3-none-any.whl` is {found}, expected a file\n\
                hint: a package that is built from source left it: look at its build\n"
            ),
        );
        nothing_left(&home);
    }
}

#[test]
fn a_second_wheel_of_one_package_is_an_error_that_names_both() {
    let Some(image) = image() else { return };
    let home = built_by("    wheel('/lbx/out', 'evil', '2.0')\n    return wheel(folder, 'evil', '1.0')\n");
    let ran = run(&mut lbx_shared(&home, &["build", "--image", &image]));
    let said = home.redact(after_progress(&ran.stderr));
    assert_eq!(ran.code, ARTIFACT, "{said}");
    same(
        &said,
        "error: there are two wheels of one package: `evil-1.0-py3-none-any.whl` and `evil-2.0-py3-none-any.whl`\n\
        hint: a package that is built from source left a wheel of another one: look at its build\n",
    );
    nothing_left(&home);
}

#[test]
fn folders_that_build_code_leaves_closed_or_deep_are_removed() {
    let Some(image) = image() else { return };
    let home = built_by(
        "    os.makedirs('/lbx/out/closed/a')\n    os.chmod('/lbx/out/closed', 0)\n    os.chdir('/lbx/out')\n    \
         for _ in range(3000):\n        os.mkdir('d')\n        os.chdir('d')\n    \
         return wheel(folder, 'evil', '1.0')\n",
    );
    let mut pull = lbx(&home, &["pull", "--quiet", &image]);
    assert_eq!(run(&mut pull).code, 0);
    // As few descriptors as most systems give: one for each level would not be enough.
    let mut build = home.command("/bin/sh");
    build.args(["-c", "ulimit -n 256 && exec \"$@\"", "sh", LBX, "build", "--image", &image]);
    let ran = run(&mut build);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    in_progress(&home.cache().join("lbx"), &[]);
}

#[test]
fn requirement_files_are_read_in_the_encodings_that_pip_reads() {
    let Some(image) = image() else { return };
    let text = "-r more.txt\r\none # ä\r\n";
    let utf16: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let latin: Vec<u8> = [b"# coding: latin-1\n-r more.txt\none # \xe4\n".as_slice()].concat();
    for bytes in [format!("\u{feff}{text}").into_bytes(), utf16, latin] {
        let home = project("", &[Wheel::new("one", "1.0"), Wheel::new("two", "1.0")]);
        home.write("r.txt", bytes);
        home.write("more.txt", "--no-index\n--find-links wheels\ntwo\n");
        let ran = run(&mut lbx_shared(&home, &["build", "--image", &image]));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let report = fs_err::read_to_string(home.project().join("dist/report.json")).unwrap();
        assert!(report.contains("\"one-1.0-py3") && report.contains("\"two-1.0-py3"), "{report}");
    }
}
