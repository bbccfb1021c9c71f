//! The interpreters that are found on PATH, and how they run the compiler program.
//!
//! Without any, their tests are skipped with a line on stderr, and with `wheels` in `LBX_MUST_RUN` that is a failure.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lbx_wheel::bytecode::{
    COMPILER, COMPILER_ENVIRONMENT, COMPILER_OPTIONS, Frame, Frames, Limits, PythonVersion,
};
use serde_json::{Value, json};

/// What a history is made with; see there.
const HISTORY: &str = include_str!("history.py");

#[expect(clippy::disallowed_methods, reason = "a test has no other way to be told")]
fn must_run() -> bool {
    std::env::var("LBX_MUST_RUN").is_ok_and(|list| list.split(',').any(|name| name == "wheels"))
}

/// An interpreter of a version that bytecode is known of.
pub(crate) struct Interpreter {
    pub(crate) path: PathBuf,
    pub(crate) version: PythonVersion,
    /// `cpython-311`.
    pub(crate) tag: String,
}

/// One interpreter of each version.
pub(crate) fn interpreters() -> Vec<Interpreter> {
    let names = ["3".to_owned()].into_iter().chain((8..=14).map(|minor| format!("3.{minor}")));
    let mut found: Vec<Interpreter> = Vec::new();
    for name in names {
        let Some(interpreter) = interpreter(&format!("python{name}")) else { continue };
        if found.iter().all(|other| other.version != interpreter.version) {
            found.push(interpreter);
        }
    }
    if found.is_empty() {
        assert!(!must_run(), "must run, but there is no CPython 3.8 to 3.14");
        eprintln!("SKIPPED: there is no CPython 3.8 to 3.14");
    }
    found
}

fn interpreter(name: &str) -> Option<Interpreter> {
    const ABOUT: &str = "import sys, json; print(json.dumps([sys.executable, sys.implementation.name, \
        sys.version_info[0], sys.version_info[1], sys.implementation.cache_tag]))";
    let output = Command::new(name).args(["-I", "-c", ABOUT]).output().ok()?;
    let about: Value = serde_json::from_slice(&output.stdout).ok()?;
    let number = |at: usize| u8::try_from(about[at].as_u64().unwrap()).unwrap();
    let version = PythonVersion(number(2), number(3));
    let known = about[1] == "cpython" && version.0 == 3 && (8..=14).contains(&version.1);
    let tag = about[4].as_str().unwrap().to_owned();
    known.then(|| Interpreter { path: about[0].as_str().unwrap().into(), version, tag })
}

impl Interpreter {
    /// Its options and its environment as the compiler program needs them.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(COMPILER_OPTIONS).env_clear().envs(COMPILER_ENVIRONMENT);
        command
    }

    /// The folder of its standard library.
    pub(crate) fn library(&self) -> PathBuf {
        let code = "import os; print(os.path.dirname(os.__file__), end='')";
        let output = self.command().args(["-c", code]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().into()
    }

    /// Runs the compiler program with a job, in a process with a history, or without.
    pub(crate) fn compile(&self, scratch: &Path, history: &[&str], job: &Value) -> Output {
        fs_err::create_dir_all(scratch).unwrap();
        let write = |name: &str, text: &str| {
            let path = scratch.join(name);
            fs_err::write(&path, text).unwrap();
            path
        };
        let (compiler, job) = (write("compile.py", COMPILER), write("job.json", &job.to_string()));
        let mut command = self.command();
        if !history.is_empty() {
            command.arg(write("history.py", HISTORY));
        }
        command.arg(compiler).args(history).arg(job).output().unwrap()
    }
}

/// A member of a job, with the paths that it has in a Lambda function.
pub(crate) fn member(name: &str, tag: &str) -> Value {
    let (folder, file) =
        name.rsplit_once('/').map_or((String::new(), name), |(folder, file)| (format!("{folder}/"), file));
    let cache = format!("{folder}__pycache__/{}.{tag}.pyc", file.trim_end_matches(".py"));
    json!({"member": name, "file": format!("/var/task/{name}"), "cache": cache})
}

/// A job for one folder, that writes to `out` in the scratch folder.
pub(crate) fn tree(root: &Path, scratch: &Path, names: &[String], tag: &str, processes: u32) -> Value {
    let members: Vec<Value> = names.iter().map(|name| member(name, tag)).collect();
    let tree = json!({"root": root, "out": scratch.join("out"), "members": members});
    json!({"trees": [tree], "processes": processes})
}

/// What a job wrote, which must have come to its end without a word.
pub(crate) fn frames(output: &Output, out: &Path) -> Vec<Frame> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // CPython 3.8 says this itself, about a source that is nested too deep.
    let words = String::from_utf8_lossy(&output.stderr).replace("s_push: parser stack overflow\n", "");
    assert_eq!(words, "");
    let file = std::io::BufReader::new(fs_err::File::open(out).unwrap());
    Frames::new(file, Limits::default()).collect::<Result<_, _>>().unwrap()
}

/// The sources below a folder, sorted, without what nobody imports in a function.
pub(crate) fn sources(root: &Path) -> Vec<String> {
    const LEFT_OUT: [&str; 9] = [
        "__pycache__",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "test",
        "tests",
        "turtledemo",
    ];
    let mut names = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(root.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && !LEFT_OUT.iter().any(|name| OsStr::new(name) == entry.file_name()) {
                folders.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "py") {
                names.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    names.sort();
    names
}
