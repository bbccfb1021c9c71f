//! A machine of a test's own, in an emulator: another kernel than the host's, older and with nobody else on it. It
//! holds this program, what this program needs, and nothing else.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::attacks::{ATTACKS_VARIABLE, program};
use crate::support::skip;

/// What emulates a whole machine, slowly, on any CPU and for any user (package qemu-system-x86).
const EMULATOR: &str = "/usr/bin/qemu-system-x86_64";
/// Names its kernel, which `cargo xtask test` fetches.
const KERNEL_VARIABLE: &str = "LBX_TEST_KERNEL";
/// Where the attacks are in there.
const ATTACKS: &str = "/attacks";
/// What becomes another user in there. The one of busybox cannot.
const SETPRIV: &str = "/usr/bin/setpriv";

/// The first process in there.
const INIT: &str = r"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin ATTACKS PROGRAM SETPRIV
mount -t proc proc /proc && mount -t sysfs none /sys && mount -t devtmpfs none /dev && mkdir /dev/shm || exit
mount -t tmpfs -o mode=1777 tmpfs /tmp && mount -t tmpfs -o mode=1777 tmpfs /dev/shm && ip link set lo up || exit
(
SCRIPT
)
echo o > /proc/sysrq-trigger
sleep 1000
";

/// Runs a shell script as root in there, and returns all that was said. `$SETPRIV` becomes other users, `$PROGRAM` is
/// this program. Nothing, where there is no such machine.
pub(crate) fn run(script: &str) -> Option<String> {
    let (Some(kernel), true) = (kernel(), Path::new(EMULATOR).exists()) else {
        skip("there is no kernel, or nothing to run it in (package qemu-system-x86)");
        return None;
    };
    let files = InitialFiles::new(script)?;
    let ran = Command::new(EMULATOR)
        .args(["-accel", "tcg", "-smp", "2", "-m", "1024", "-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-serial", "stdio", "-append", "console=ttyS0 quiet panic=-1"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(files.archive())
        .stdin(Stdio::null())
        .output()
        .expect("the emulator starts");
    let said = String::from_utf8_lossy(&ran.stdout).replace('\r', "");
    Some(said + &String::from_utf8_lossy(&ran.stderr))
}

#[expect(clippy::disallowed_methods, reason = "set by `cargo xtask test`, read where it is needed")]
fn kernel() -> Option<PathBuf> {
    std::env::var_os(KERNEL_VARIABLE).map(PathBuf::from)
}

/// All files that there are in there.
struct InitialFiles(tempfile::TempDir);

impl InitialFiles {
    fn new(script: &str) -> Option<Self> {
        let attacks = program()?;
        let files = Self(tempfile::TempDir::with_prefix("lbx-machine-").expect("a directory"));
        for folder in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs_err::create_dir_all(files.place(folder)).expect("a directory");
        }
        let own = std::env::current_exe().expect("this program");
        for program in [&own, Path::new(env!("CARGO_BIN_EXE_sandbox-launcher")), Path::new(SETPRIV)] {
            files.add(program);
        }
        files.copy(Path::new("/bin/busybox"), Path::new("/bin/busybox"));
        for applet in ["sh", "mount", "mkdir", "chown", "sleep", "ip"] {
            symlink("busybox", files.place("bin").join(applet)).expect("a link");
        }
        files.copy(&attacks.join("attack"), &Path::new(ATTACKS).join("attack"));
        fs_err::write(files.place("etc/hostname"), "machine\n").expect("a file");
        let init = INIT
            .replace("ATTACKS", &format!("{ATTACKS_VARIABLE}={ATTACKS}"))
            .replace("PROGRAM", &format!("PROGRAM={}", own.display()))
            .replace("SETPRIV", &format!("SETPRIV={SETPRIV}"))
            .replace("SCRIPT", script);
        fs_err::write(files.place("init"), init).expect("a script");
        Some(files)
    }

    fn place(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.path().join("root").join(path.strip_prefix("/").unwrap_or(path))
    }

    fn copy(&self, from: &Path, to: &Path) {
        let to = self.place(to);
        fs_err::create_dir_all(to.parent().expect("a folder")).expect("a directory");
        fs_err::copy(from, to).expect("a file");
    }

    /// A program, at its own place, with its loader and its libraries.
    fn add(&self, program: &Path) {
        let listed = Command::new("ldd").arg(program).output().expect("the C library's tool");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let libraries = listed.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
        for file in libraries.chain([program]) {
            self.copy(file, file);
        }
    }

    /// As the kernel unpacks them: all root's, and open to others whatever the umask is here.
    fn archive(&self) -> PathBuf {
        let script = "chmod -R a+rX . && chmod a+x init bin/busybox
            find . | busybox cpio -o -H newc -R 0:0 > ../files";
        let packed = Command::new("sh").args(["-ec", script]).current_dir(self.place("")).output();
        let packed = packed.expect("a shell");
        assert!(packed.status.success(), "{packed:?}");
        self.0.path().join("files")
    }
}
