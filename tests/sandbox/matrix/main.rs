//! Every example built on hosts that lack something, in every backend, and in real containers: which backend is chosen,
//! how much isolation that is, and that the zips are the same bytes.
//!
//! | module | about |
//! |---|---|
//! | `rows` | the table: what is taken away, and what is expected then |
//! | `restrictions` | whether each of them takes away what it says |
//! | `builds` | one build of one example, and what came of it |
//! | `containers` | builds in containers of podman and runc |
//!
//! What pip asks for is served from loopback. At most two builds run at once.

mod builds;
mod containers;
mod restrictions;
mod rows;

use std::sync::Mutex;

use lbx_testkit::restrict;

use crate::builds::{EXAMPLES, Site, build};
use crate::rows::{Expected, FORCED, ROWS, Row, Seat};

/// How many rows each kind of user has. A row that gets lost changes a number here.
const ROWS_OF_ROOT: usize = 32;
const ROWS_OF_A_USER: usize = 26;

/// Becomes a program with less; see [`restrict::wrap`].
#[test]
#[ignore = "run by the builds under restrictions"]
fn helper_restricted() {
    restrict::become_planned_program();
}

/// What this process's user is expected to get from a row; nothing, where the row is not for it.
fn expected(row: &Row) -> Option<Expected> {
    match row.seat() {
        Seat::Both(expected) => Some(expected),
        Seat::Each { root, user } => Some(if builds::is_root() { root } else { user }),
        Seat::Root(expected) => builds::is_root().then_some(expected),
        Seat::User(expected) => (!builds::is_root()).then_some(expected),
    }
}

#[test]
fn every_example_is_built_under_every_row_as_expected() {
    let Some(site) = Site::get() else { return };
    let rows: Vec<(&Row, Expected)> = ROWS.iter().filter_map(|row| Some((row, expected(row)?))).collect();
    let wanted = if builds::is_root() { ROWS_OF_ROOT } else { ROWS_OF_A_USER };
    assert_eq!(rows.len(), wanted, "rows for this user");
    let (queue, wrong) = (Mutex::new(rows.iter()), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let next = queue.lock().expect("no row panicked").next();
            let Some((row, expected)) = next else { return };
            for example in EXAMPLES {
                if let Err(difference) = build(site, example, row).is(site, example, expected) {
                    let words = format!("{} × {example}: {difference}", row.name);
                    wrong.lock().expect("no row panicked").push(words);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let wrong = wrong.into_inner().expect("no row panicked");
    assert!(
        wrong.is_empty(),
        "{} of {} builds:\n{}",
        wrong.len(),
        rows.len() * EXAMPLES.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_same_project_gives_the_same_bytes_in_every_backend() {
    let Some(site) = Site::get() else { return };
    let mut wrong = Vec::new();
    for row in FORCED {
        let expected = expected(row).expect("every user may ask for every backend");
        for example in EXAMPLES {
            if let Err(difference) = build(site, example, row).is(site, example, &expected) {
                wrong.push(format!("{} × {example}: {difference}", row.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_backend_is_forced_once() {
    let names: Vec<&str> = FORCED.iter().map(|row| row.options[1]).collect();
    let known: Vec<&str> = lbx_sandbox::Backend::all().map(lbx_sandbox::Backend::name).collect();
    assert_eq!(names, known);
}
