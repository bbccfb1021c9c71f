//! Programs of another CPU: which emulator of the host runs them, and whether the kernel will have it do so in a sandbox.
//!
//! Since Linux 6.7 a user namespace has a registry of its own (binfmt_misc) for who runs what. So nobody has to register
//! anything on the host, and nothing of it is seen there.

use std::path::PathBuf;

use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::child;
use crate::error::{Error, Failure};
use crate::launch::Launcher;
use crate::wire::Probe;

/// A CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Machine {
    /// Intel's and AMD's, with 64 bits.
    X86_64,
    /// Arm's, with 64 bits.
    Aarch64,
}

/// A program of the host that runs programs of another CPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emulator {
    pub(crate) machine: Machine,
    pub(crate) program: PathBuf,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum NoEmulation {
    /// The host has no such program.
    #[error("there is no {0} on the PATH")]
    NoProgram(&'static str),
    /// It needs libraries of the host, which are not in the image.
    #[error("{} needs libraries, which an image has not got", .0.display())]
    NotStatic(PathBuf),
    /// It lies where the registry's form has no room for it.
    #[error("{} is too long a path", .0.display())]
    TooLong(PathBuf),
    /// The kernel does not let it be registered.
    #[error("the kernel lets no sandbox have an emulator of its own: {0}")]
    Refused(Failure),
    /// The way to isolate commands has no registry of its own.
    #[error("the backend {0} cannot give a sandbox an emulator of its own")]
    Backend(Backend),
    /// It could not be tried.
    #[error(transparent)]
    Launch(Box<Error>),
}

/// The longest path that a registration has room for. Bytes.
const LONGEST: usize = 1024;

impl Machine {
    /// Every name that a program which emulates it has, the usual one first.
    fn emulators(self) -> [&'static str; 2] {
        match self {
            Self::X86_64 => ["qemu-x86_64-static", "qemu-x86_64"],
            Self::Aarch64 => ["qemu-aarch64-static", "qemu-aarch64"],
        }
    }

    /// Its number in the header of a program.
    fn number(self) -> u16 {
        match self {
            Self::X86_64 => 0x3e,
            Self::Aarch64 => 0xb7,
        }
    }
}

impl Emulator {
    /// What is written to the kernel's registry: 64-bit little-endian programs and libraries for Linux, of this machine.
    /// The kernel opens the emulator at once (`F`), because the command has another root.
    pub(crate) fn registration(&self) -> Vec<u8> {
        let [low, high] = self.machine.number().to_le_bytes();
        let magic = [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, low, high];
        let mut mask = [0xff_u8; 20];
        // The ABI does not matter, and a program may be one that is loaded anywhere.
        (mask[7], mask[16]) = (0, 0xfe);
        let escaped = |bytes: &[u8]| {
            let digits: Vec<String> = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            digits.concat()
        };
        // Every field ends with the first character, which is in no path that anybody has.
        let (magic, mask) = (escaped(&magic), escaped(&mask));
        let program = self.program.to_string_lossy();
        format!("\x1flbx\x1fM\x1f\x1f{magic}\x1f{mask}\x1f{program}\x1fF").into_bytes()
    }
}

impl Launcher {
    /// An emulator that commands of this backend can be given ([`Spec::emulator`](crate::Spec::emulator)). Whether the
    /// kernel lets them have it is tried, in a process that is thrown away.
    pub fn emulator(&self, machine: Machine, backend: Backend) -> Result<Emulator, NoEmulation> {
        let program = self.find_emulator(machine)?;
        if backend != Backend::Namespaces {
            return Err(NoEmulation::Backend(backend));
        }
        let emulator = Emulator { machine, program };
        let tried = self.probe(Probe::Emulator(emulator.clone()));
        match tried.map_err(|error| NoEmulation::Launch(Box::new(error)))? {
            (None, _) => Ok(emulator),
            (Some(failure), _) => Err(NoEmulation::Refused(failure)),
        }
    }

    fn find_emulator(&self, machine: Machine) -> Result<PathBuf, NoEmulation> {
        let names = machine.emulators();
        // What is relative leads into the project, which may be a stranger's.
        let folders = || self.path().iter().filter(|folder| folder.is_absolute());
        let candidates = names.iter().flat_map(|name| folders().map(move |folder| folder.join(name)));
        let is_program = |path: &PathBuf| path.is_file() && access(path.as_path(), AccessFlags::X_OK).is_ok();
        let mut wrong = None;
        for path in candidates.filter(is_program) {
            // What the kernel opens is the file and not a link to it.
            let Ok(path) = fs_err::canonicalize(path) else { continue };
            if path.as_os_str().len() > LONGEST {
                wrong = wrong.or(Some(NoEmulation::TooLong(path)));
            } else if fs_err::read(&path).is_ok_and(|bytes| child::is_static(&bytes)) {
                return Ok(path);
            } else {
                wrong = wrong.or(Some(NoEmulation::NotStatic(path)));
            }
        }
        Err(wrong.unwrap_or(NoEmulation::NoProgram(names[0])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_is_for_programs_of_the_machine_alone() {
        let emulator = Emulator { machine: Machine::Aarch64, program: "/opt/a:b/qemu".into() };
        let text = String::from_utf8(emulator.registration()).expect("UTF-8");
        let fields: Vec<&str> = text.split('\x1f').collect();
        let magic = r"\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
        let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
        assert_eq!(fields, ["", "lbx", "M", "", magic, mask, "/opt/a:b/qemu", "F"]);
    }

    #[test]
    fn an_emulator_that_needs_libraries_is_none() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a directory");
        let launcher = Launcher::current_exe().with_path([folder.path().to_owned()]);
        let find = || launcher.find_emulator(Machine::Aarch64);
        assert!(matches!(find(), Err(NoEmulation::NoProgram("qemu-aarch64-static"))));
        let path = folder.path().join("qemu-aarch64");
        fs_err::copy("/proc/self/exe", &path).expect("a program with libraries");
        fs_err::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("mode");
        assert!(matches!(find(), Err(NoEmulation::NotStatic(_))));
        // The same folder, by a way from the current one.
        let way =
            format!("{}{}", "../".repeat(40), folder.path().display().to_string().trim_start_matches('/'));
        let launcher = Launcher::current_exe().with_path([way.into()]);
        assert!(matches!(launcher.find_emulator(Machine::Aarch64), Err(NoEmulation::NoProgram(_))));
    }
}
