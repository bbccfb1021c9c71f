//! What each backend claims, claim by claim, in every backend that claims it: files, credentials, terminals. Processes,
//! the network and privileges are in `attacks`, what runs on in `lifetime`.

use std::os::unix::fs::PermissionsExt;

use lbx_sandbox::{Backend, Network};
use tempfile::TempDir;

use crate::attacks::{armed, attack_on, works_outside};
use crate::support::run;

/// A folder of the host that everybody may change, with a file that everybody may read and write.
fn victim() -> TempDir {
    let folder = TempDir::with_prefix("lbx-victim-").expect("a directory");
    fs_err::write(folder.path().join("file"), "of the host").expect("a file");
    for (path, mode) in [(folder.path().join("file"), 0o666), (folder.path().to_owned(), 0o777)] {
        fs_err::set_permissions(path, PermissionsExt::from_mode(mode)).expect("our own");
    }
    folder
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn host_files_cannot_be_read() {
    let victim = victim();
    let file = victim.path().join("file");
    assert!(works_outside(&["read_host_file", text(&file)]), "outside it works");
    for root in armed().iter().filter(|root| root.backend.claims().files_hidden) {
        for path in [text(&file), "/etc/shadow", "/etc/machine-id", "/var/lib/dpkg/status"] {
            let output = attack_on(root, &["read_host_file", path], Network::None);
            assert_eq!(output.code(), 1, "{} {path}: {output:?}", root.backend);
        }
    }
}

#[test]
fn host_files_cannot_be_written_made_moved_or_removed() {
    let outside = victim();
    assert!(works_outside(&["change_host_folder", text(outside.path())]), "outside it works");
    for root in armed().iter().filter(|root| root.backend.claims().files_unwritable) {
        let victim = victim();
        let output = attack_on(root, &["change_host_folder", text(victim.path())], Network::None);
        assert_eq!(output.code(), 1, "{} {output:?}", root.backend);
        let names: Vec<_> = fs_err::read_dir(victim.path()).expect("still there").flatten().collect();
        assert_eq!(names.len(), 1, "{} {names:?}", root.backend);
        let contents = fs_err::read_to_string(victim.path().join("file")).expect("still there");
        assert_eq!(contents, "of the host", "{}", root.backend);
    }
}

/// No Landlock domain is asked about modes and times, and builds do not do without. SECURITY.md says so.
#[test]
fn modes_and_times_of_host_files_can_be_changed_where_paths_are_the_hosts_and_nothing_else() {
    let outside = victim();
    assert!(works_outside(&["change_host_mode", text(outside.path())]), "outside it works");
    for root in armed() {
        let victim = victim();
        let output = attack_on(&root, &["change_host_mode", text(victim.path())], Network::None);
        // proot shows other paths, until somebody tricks it: it is no border.
        let changed = (root.backend == Backend::Loader).then_some("chmod\nutimensat\n");
        let found = Some(output.stdout.as_str()).filter(|_| output.code() == 0);
        assert_eq!(found, changed, "{}", root.backend);
    }
}

#[test]
fn what_lbx_was_started_with_cannot_be_read() {
    let own = std::process::id().to_string();
    assert!(works_outside(&["read_secrets_of", &own]), "outside it works");
    for root in armed() {
        for pid in [own.as_str(), "1"] {
            let output = attack_on(&root, &["read_secrets_of", pid], Network::Host);
            assert_eq!(output.code(), 1, "{} {output:?}", root.backend);
        }
    }
}

#[test]
fn no_variable_of_the_caller_is_inside() {
    /// What backends add that show other paths, or none, of the host.
    const ADDED: [&str; 4] = ["LD_LIBRARY_PATH", "TMPDIR", "PROOT_TMP_DIR", "PROOT_LOADER"];
    for root in armed() {
        let mut spec = root.shell("");
        spec.argv = vec!["/bin/env".into()];
        spec.env = vec![("OWN".into(), "1".into())];
        let said = run(&spec).stdout;
        let names = said.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
        let foreign: Vec<_> = names.filter(|name| *name != "OWN" && !ADDED.contains(name)).collect();
        assert!(said.contains("OWN=1\n") && foreign.is_empty(), "{} {said}", root.backend);
    }
}

#[test]
fn no_descriptor_of_the_caller_is_inside() {
    // One that the caller forgot to mark: descriptors of a C library are like that.
    let leak = fs_err::File::open("/etc/hostname").expect("a file");
    let raw = nix::fcntl::fcntl(&leak, nix::fcntl::FcntlArg::F_DUPFD(78)).expect("a descriptor");
    assert!(works_outside(&["inherited_descriptors"]), "outside it arrives");
    for root in armed() {
        let output = attack_on(&root, &["inherited_descriptors"], Network::None);
        assert_eq!((output.code(), output.stdout.as_str()), (1, "0\n"), "{}", root.backend);
    }
    nix::unistd::close(raw).expect("closed");
}

#[test]
fn no_terminal_is_the_commands() {
    for root in armed() {
        let output = attack_on(&root, &["controlling_terminal"], Network::None);
        assert_eq!(output.code(), 1, "{} {output:?}", root.backend);
    }
}
