//! The sandbox's child for tests that look at an image from inside. Does nothing else.

fn main() -> std::process::ExitCode {
    lbx_sandbox::init_if_child();
    std::process::ExitCode::from(64)
}
