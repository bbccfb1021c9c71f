//! Which backend is chosen, what it promises, and what is refused.

use lbx_sandbox::{Backend, Chosen, Error, Level};

use crate::kernel::without;
use crate::support::{everywhere, launcher};

#[test]
fn every_backend_that_can_run_passes_its_self_test_and_keeps_its_promises() {
    for root in everywhere() {
        let claims = launcher().test(root.backend, root.dir.path()).expect("the self-test passes");
        assert_eq!(claims, root.backend.claims(), "{}", root.backend);
        let left = fs_err::read_dir(root.dir.path()).expect("the scratch directory").flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name != "base").collect();
        assert!(left.is_empty(), "{}: {left:?}", root.backend);
    }
}

#[test]
fn the_strongest_backend_is_chosen_unless_another_one_is_wanted() {
    for root in everywhere() {
        let chosen = launcher().choose(None, Level::Partial, root.dir.path()).expect("a backend");
        assert_eq!((chosen.backend, chosen.refused.len()), (Backend::Namespaces, 0));
        let chosen = launcher().choose(Some(root.backend), Level::None, root.dir.path()).expect("a backend");
        assert_eq!(chosen.backend, root.backend);
    }
}

/// Chooses where no namespaces can be made, by whatever program.
fn choose_without_namespaces(path: &[&str], require: Level) -> Option<Result<Chosen, Error>> {
    let root = everywhere().pop()?;
    let launcher = launcher().with_path(path.iter().map(Into::into));
    let calls = [(libc::SYS_unshare, libc::EPERM), (libc::SYS_mount, libc::EPERM)];
    Some(without(&calls, move || launcher.choose(None, require, root.dir.path())))
}

#[test]
fn where_namespaces_are_denied_root_changes_its_root_and_others_trace_or_load() {
    let is_root = nix::unistd::geteuid().is_root();
    for (path, of_others) in [(&["/usr/bin"][..], Backend::Proot), (&[], Backend::Loader)] {
        let Some(chosen) = choose_without_namespaces(path, Level::Partial) else { return };
        let chosen = chosen.expect("a backend");
        assert_eq!(chosen.backend, if is_root { Backend::Chroot } else { of_others });
        assert_eq!(chosen.claims.level(), Level::Partial);
        let (backend, why) = &chosen.refused[0];
        assert_eq!(*backend, Backend::Namespaces);
        assert!(why.to_string().contains("unshare("), "{why}");
    }
}

#[test]
fn where_nothing_is_strong_enough_every_reason_is_told() {
    let Some(chosen) = choose_without_namespaces(&["/usr/bin"], Level::Full) else { return };
    let Err(Error::Setup { failure, diagnosis, others }) = chosen else { panic!("{chosen:?}") };
    assert!(failure.call.starts_with("unshare("), "{failure}");
    assert!(diagnosis.is_some_and(|diagnosis| !diagnosis.can_run()));
    let told: Vec<_> = others.iter().map(|(backend, _)| backend.name()).collect();
    assert_eq!(told, ["root-namespaces", "bwrap", "chroot", "proot", "loader"], "{others:?}");
    assert!(
        others[4].1.contains("gives partial isolation here, and full isolation is required"),
        "{others:?}"
    );
}

#[test]
fn where_only_the_systems_bubblewrap_may_make_namespaces_it_does() {
    let Some(root) = everywhere().pop() else { return };
    // It makes them with another call than this program does.
    let chosen = without(&[(libc::SYS_unshare, libc::EPERM)], move || {
        launcher().choose(None, Level::Full, root.dir.path())
    });
    assert_eq!(chosen.expect("a backend").backend, Backend::Bwrap);
}

#[test]
fn a_program_that_is_not_in_the_path_is_named() {
    let scratch = tempfile::tempdir().expect("a directory");
    let launcher = launcher().with_path([scratch.path().to_owned(), "relative".into()]);
    let error = launcher.test(Backend::Bwrap, scratch.path()).expect_err("no bubblewrap");
    assert!(error.to_string().contains("find the program `bwrap` in PATH"), "{error}");
}

#[test]
fn less_than_required_is_refused_by_name() {
    for root in everywhere().iter().filter(|root| root.backend == Backend::Chroot) {
        let refused = launcher().choose(Some(root.backend), Level::Full, root.dir.path());
        let error = refused.expect_err("not all of it");
        assert_eq!(
            error.to_string(),
            "the backend `chroot` gives partial isolation here, and full isolation is required"
        );
        assert!(matches!(error, Error::TooWeak { level: Level::Partial, .. }));
    }
}

#[test]
fn without_root_there_is_no_chroot_and_the_call_is_named() {
    if nix::unistd::geteuid().is_root() {
        return;
    }
    let scratch = tempfile::tempdir().expect("a directory");
    let error = launcher().test(Backend::Chroot, scratch.path()).expect_err("no root");
    assert!(error.to_string().contains("chroot as the user"), "{error}");
}
