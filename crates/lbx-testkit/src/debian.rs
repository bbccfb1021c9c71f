//! Debian packages that do what a test wants of them, and a mirror that has them: a proxy that answers for a host that
//! does not exist.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::images::{Tar, header, seal, sha256};
use crate::stub::{Reply, Stub};

/// The host that a mirror answers for.
pub const HOST: &str = "mirror.test";

/// The file that makes apt ask a mirror, and nobody else, with its path.
pub const SOURCES: (&str, &str) = (
    "etc/apt/sources.list.d/standin.sources",
    "Types: deb\nURIs: http://mirror.test/debs\nSuites: ./\nTrusted: yes\n",
);

/// A package under construction.
#[derive(Debug, Clone)]
pub struct Package {
    name: String,
    version: String,
    directories: BTreeSet<String>,
    data: Vec<u8>,
    scripts: Vec<(String, String)>,
}

impl Package {
    /// A package without files.
    pub fn new(name: &str, version: &str) -> Self {
        let (name, version) = (name.to_owned(), version.to_owned());
        Self { name, version, directories: BTreeSet::new(), data: Vec::new(), scripts: Vec::new() }
    }

    /// A file with its owner and group.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, (user, group): (u32, u32), data: &[u8]) -> Self {
        for (end, _) in path.match_indices('/') {
            let directory = format!("./{}/", &path[..end]);
            if self.directories.insert(directory.clone()) {
                self.data.extend_from_slice(&header(b'5', directory.as_bytes(), b"", 0o755, 0));
            }
        }
        let mut head = header(b'0', format!("./{path}").as_bytes(), b"", mode, data.len() as u64);
        head[108..116].copy_from_slice(format!("{user:07o}\0").as_bytes());
        head[116..124].copy_from_slice(format!("{group:07o}\0").as_bytes());
        seal(&mut head);
        self.data.extend_from_slice(&head);
        self.data.extend_from_slice(data);
        self.data.resize(self.data.len().next_multiple_of(512), 0);
        self
    }

    /// A script of the maintainer, such as `postinst`.
    #[must_use]
    pub fn script(mut self, name: &str, text: &str) -> Self {
        self.scripts.push((name.to_owned(), format!("#!/bin/sh\nset -e\n{text}\n")));
        self
    }

    /// Writes the package into a folder.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let Self { name, version, .. } = self;
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\n\
             Description: for a test\n"
        );
        let mut files = Tar::new().file("./control", 0o644, control.as_bytes());
        for (script, text) in &self.scripts {
            files = files.file(format!("./{script}"), 0o755, text.as_bytes());
        }
        let data = [self.data.as_slice(), &[0; 1024]].concat();
        let members =
            [("debian-binary", b"2.0\n".to_vec()), ("control.tar", files.finish()), ("data.tar", data)];
        let mut archive = b"!<arch>\n".to_vec();
        for (member, bytes) in members {
            let size = bytes.len();
            archive.extend_from_slice(
                format!("{member:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, "100644").as_bytes(),
            );
            archive.extend_from_slice(&bytes);
            archive.resize(archive.len().next_multiple_of(2), b'\n');
        }
        let path = folder.join(format!("{name}_{version}_all.deb"));
        fs_err::write(&path, archive).expect("a file");
        path
    }
}

/// Serves all packages of a folder to whoever takes this for a proxy.
pub fn serve(folder: &Path) -> Stub {
    let packages = index(folder);
    let release = format!(
        "Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {} {} Packages\n",
        &sha256(packages.as_bytes())["sha256:".len()..],
        packages.len()
    );
    let folder = folder.to_owned();
    Stub::start(move |request| {
        let Some(path) = request.path.strip_prefix(&format!("http://{HOST}/debs/")) else {
            return Reply::new(404, b"");
        };
        match path.trim_start_matches("./") {
            "Packages" => Reply::new(200, packages.as_bytes()),
            "Release" => Reply::new(200, release.as_bytes()),
            name => fs_err::read(folder.join(decoded(name)))
                .map_or_else(|_| Reply::new(404, b""), |bytes| Reply::new(200, &bytes)),
        }
    })
}

/// The name of a file as it is in a folder: the colon of an epoch is `%3a` there, and `%253a` in an address.
fn decoded(name: &str) -> String {
    let mut parts = name.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at(2);
        decoded.push(char::from(u8::from_str_radix(digits, 16).expect("hexadecimal digits")));
        decoded.push_str(rest);
    }
    decoded
}

/// What apt wants to know of them.
fn index(folder: &Path) -> String {
    let mut index = String::new();
    let mut all: Vec<_> =
        fs_err::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()).collect();
    all.sort();
    for path in all.iter().filter(|path| path.extension().is_some_and(|extension| extension == "deb")) {
        let said = Command::new("dpkg-deb").arg("--field").arg(path).output().expect("dpkg-deb");
        assert!(said.status.success(), "{said:?}");
        let bytes = fs_err::read(path).expect("a package");
        let name = path.file_name().expect("a name").to_string_lossy();
        let digest = sha256(&bytes);
        write!(
            index,
            "{}Filename: ./{name}\nSize: {}\nSHA256: {}\n\n",
            String::from_utf8_lossy(&said.stdout),
            bytes.len(),
            &digest["sha256:".len()..]
        )
        .expect("memory takes every byte");
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dpkg_reads_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let package = Package::new("demo", "1.0").file("usr/include/demo.h", 0o640, (33, 44), b"x\n");
        let path = package.script("postinst", "true").write(folder.path());
        let run = |arguments: &[&str]| {
            let output = Command::new("dpkg-deb").args(arguments).arg(&path).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let listed = run(&["--contents"]);
        assert!(
            listed.contains("\n-rw-r----- 33/44 ") && listed.trim_end().ends_with("./usr/include/demo.h"),
            "{listed}"
        );
        assert_eq!(decoded("demo_1%253a2.0%2bx.deb"), "demo_1%3a2.0+x.deb");
        assert_eq!(run(&["--info"]).matches("postinst").count(), 1);
        assert!(index(folder.path()).contains("\nFilename: ./demo_1.0_all.deb\nSize: "));
    }
}
