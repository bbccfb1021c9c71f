//! The stand-in images, as `cargo xtask test` serves them: where they are, and what to do when they are not.
//!
//! A test that needs one is skipped loudly when there is none, so that `cargo test` alone is of use. Where
//! `LBX_MUST_RUN` names `standin`, as in CI, the skip is a failure.

/// The variable that holds the address of the registry with the stand-in images, `127.0.0.1:PORT`.
const REGISTRY: &str = "LBX_TEST_REGISTRY";

/// The reference of the stand-in image of a runtime such as `python3.11`; none, with a loud word, when no
/// registry serves it.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests are told about their surroundings this way"
)]
pub fn reference(runtime: &str) -> Option<String> {
    let Ok(registry) = std::env::var(REGISTRY) else {
        assert!(!must_run("standin"), "{REGISTRY} is not set, and LBX_MUST_RUN forbids skipping");
        eprintln!("SKIP: {REGISTRY} is not set; run `cargo xtask test`");
        return None;
    };
    let version = runtime.trim_start_matches("python");
    Some(format!("{registry}/lambda/python:{version}"))
}

/// Whether `LBX_MUST_RUN`, a comma-separated list, forbids skipping tests of this kind.
#[expect(clippy::disallowed_methods, reason = "tests are told about their surroundings this way")]
pub fn must_run(kind: &str) -> bool {
    std::env::var("LBX_MUST_RUN").is_ok_and(|list| list.split(',').any(|one| one == kind))
}
