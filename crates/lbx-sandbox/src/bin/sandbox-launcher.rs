//! The sandbox child of tests, whose own `main` belongs to the test harness. Does nothing else.

fn main() -> std::process::ExitCode {
    lbx_sandbox::init_if_child();
    std::process::ExitCode::from(64)
}
