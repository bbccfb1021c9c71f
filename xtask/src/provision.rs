//! What the tasks need from the host, as Debian packages: who needs what, what is missing, and
//! installing it when that is possible.

use std::process::Command;

use crate::{Result, process};

/// What assembling a stand-in image takes; pip is asked for where it is missed, because many have
/// one that isn't Debian's.
pub(crate) const IMAGE: &[&str] = &["apt", "ca-certificates", "debian-archive-keyring", "dpkg", "gpgv"];

/// What the demo takes besides: something to pull the image from.
pub(crate) const DEMO: &[&str] = &["docker-registry"];

/// What the tests use besides.
pub(crate) const TEST: &[&str] = &[
    "apparmor",
    "binutils",
    "bubblewrap",
    "busybox-static",
    "chromium",
    "g++",
    "gcc",
    "git",
    "git-lfs",
    "libarchive-tools",
    "openssh-client",
    "openssh-server",
    "openssl",
    "patchelf",
    "podman",
    "proot",
    "python3",
    "python3-venv",
    "qemu-system-x86",
    "qemu-user-static",
    "runc",
    "strace",
    "unzip",
    "util-linux",
    "zip",
];

/// What the bench compares with; a peer that isn't there is skipped by name.
pub(crate) const BENCH: &[&str] = &[
    "bubblewrap",
    "openssl",
    "p7zip-full",
    "podman",
    "proot",
    "runc",
    "tar",
    "umoci",
    "unzip",
    "util-linux",
    "zip",
];

/// What to provide for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The task that is to be run
    #[arg(long = "for", value_enum, value_name = "TASK", default_value = "test")]
    task: Task,
}

/// Tasks that need something installed, each with all that the one before it needs.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Task {
    Image,
    Demo,
    Test,
    Bench,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let groups = [IMAGE, DEMO, TEST, BENCH];
    let wanted = groups.iter().take(arguments.task as usize + 1);
    ensure(&wanted.copied().flatten().copied().collect::<Vec<_>>())
}

/// Makes sure that the packages are installed: by installing them as root, else by saying how.
pub(crate) fn ensure(packages: &[&str]) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(format!(
            "Debian packages are missing; install them with\n  sudo apt-get install -y --no-install-recommends {}",
            missing.join(" ")
        )
        .into());
    }
    eprintln!("installing {}", missing.join(" "));
    process::output(apt_get().arg("update"))?;
    process::output(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&missing))?;
    Ok(())
}

/// Those of the packages that aren't installed.
pub(crate) fn missing<'package>(packages: &[&'package str]) -> Vec<&'package str> {
    let installed = |name: &str| {
        let query = ["--show", "--showformat", "${db:Status-Status}", name];
        process::text(Command::new("dpkg-query").args(query)).is_ok_and(|status| status == "installed")
    };
    packages.iter().copied().filter(|name| !installed(name)).collect()
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.args(["--quiet=2", "-o", "Dpkg::Use-Pty=0"]).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_does_not_exist_is_missing() {
        assert_eq!(missing(&["no-such-package-here"]), ["no-such-package-here"]);
    }
}
