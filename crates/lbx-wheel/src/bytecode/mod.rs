//! Bytecode for the sources of wheels: compiled by the interpreter that will run it, the same bytes each time.
//!
//! A `.pyc` that CPython writes is not reproducible: marshal marks the objects that have more than one reference at
//! that moment, and that depends on what else the process has compiled. So compiling is done by [`COMPILER`], a program
//! for the interpreter, which the caller runs in a sandbox, and what comes out of it is read with [`Frames`] and
//! rewritten with [`normalize`], outside. Both take the bytes for a stranger's.
//!
//! Modules: `frames` (what the program writes), `marshal` (the form that depends on nothing but the values).

mod frames;
mod marshal;

pub use frames::{Compiled, Frame, FrameError, Frames, Limits};
pub use marshal::{MarshalError, PythonVersion, normalize};

/// The program that compiles: one file, for CPython 3.8 to 3.14. Its head says how it is called, what it is given and
/// what it writes.
///
/// It has to be run with [`COMPILER_OPTIONS`], in an environment with [`COMPILER_ENVIRONMENT`] and without any other
/// variable of Python's, and refuses to run otherwise.
pub const COMPILER: &str = include_str!("compile.py");

/// The interpreter's options for [`COMPILER`]: no site-packages, nothing written beside the standard library, UTF-8.
pub const COMPILER_OPTIONS: [&str; 5] = ["-s", "-S", "-B", "-X", "utf8"];

/// The environment variable that [`COMPILER`] needs: names and values.
pub const COMPILER_ENVIRONMENT: [(&str, &str); 1] = [("PYTHONHASHSEED", "0")];
