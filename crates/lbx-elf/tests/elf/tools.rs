//! Compilers and binutils, and files made with them.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

#[expect(clippy::disallowed_methods, reason = "a test has no other way to be told")]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Says that something is not tested, and fails if it must be.
pub(crate) fn skip(why: &str) {
    let must_run = environment("LBX_MUST_RUN").is_some_and(|list| list.split(',').any(|name| name == "elf"));
    assert!(!must_run, "must run, but {why}");
    eprintln!("SKIPPED: {why}");
}

/// Runs a program. `None` if it is not installed.
pub(crate) fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Option<Output> {
    match Command::new(program).args(arguments).env("LC_ALL", "C").output() {
        // Somebody else's folder on the path may have it.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => None,
        output => Some(output.unwrap()),
    }
}

/// Whether all of these are installed; if not, says so.
pub(crate) fn have(programs: &[&str]) -> bool {
    for program in programs {
        if run(program, ["--version"]).is_none() {
            skip(&format!("{program} is not installed"));
            return false;
        }
    }
    true
}

/// What a program prints, which must succeed and have nothing to complain about.
pub(crate) fn output(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments.iter().copied()).unwrap_or_else(|| panic!("no {program}"));
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{program} {arguments:?}: {complaints}");
    String::from_utf8(output.stdout).unwrap()
}

/// What readelf says of a file.
pub(crate) fn readelf(option: &str, path: &Path) -> String {
    output("readelf", &["-W", option, path.to_str().unwrap()])
}

/// A directory to compile in.
pub(crate) struct Workshop(TempDir);

impl Workshop {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs_err::write(&path, content).unwrap();
        path
    }

    /// Compiles a source file that was written before. Fails if the compiler does.
    pub(crate) fn compile(&self, compiler: &str, source: &str, name: &str, flags: &[&str]) -> PathBuf {
        self.try_compile(compiler, source, name, flags).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The same, for flags that not every compiler has.
    pub(crate) fn try_compile(
        &self,
        compiler: &str,
        source: &str,
        name: &str,
        flags: &[&str],
    ) -> Result<PathBuf, String> {
        let path = self.path(name);
        let output = Command::new(compiler)
            .current_dir(self.0.path())
            .args([source, "-o", name])
            .args(flags)
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        if output.status.success() { Ok(path) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
    }
}

/// A library in C that needs something of libc and of libm.
pub(crate) const LIBRARY: &str = r#"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static __thread int counter = 40;
static double table[64] = { 1.5 };
int seven(void) { return 7; }
int count(void) { return ++counter; }
double root(double x) { return sqrt(x) + pow(x, 0.5) + table[0]; }
int text(char *to, size_t size, double x) { return snprintf(to, size, "%.3f", x); }
void *copy(const void *from, size_t size) { void *to = malloc(size); return to ? memcpy(to, from, size) : to; }
extern int perhaps(void) __attribute__((weak));
int maybe(void) { return perhaps ? perhaps() : -1; }
"#;

/// A library in C++ that throws and catches.
pub(crate) const LIBRARY_CPP: &str = r#"
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
struct Base { virtual ~Base() {} virtual int value() { return 1; } };
struct Derived : Base { int value() override { return 42; } };
static std::map<std::string, int> registry = {{"a", 1}, {"b", 2}};
extern "C" int caught(int x) {
    try { if (x > 0) throw std::runtime_error(std::string(static_cast<size_t>(x), 'x')); }
    catch (const std::exception &error) { return static_cast<int>(std::string(error.what()).size()); }
    return 0;
}
extern "C" int dynamic() { Base *base = new Derived; int v = dynamic_cast<Derived *>(base)->value(); delete base; return v + registry["b"]; }
"#;

/// A program in C that says what it was given.
pub(crate) const PROGRAM: &str = r#"
#include <stdio.h>
int zero[1000];
int main(int argc, char **argv) { printf("%d %s\n", argc + zero[argc], argv[argc - 1]); return 3; }
"#;
