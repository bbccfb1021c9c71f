//! The exit codes of `lbx`: part of its interface, documented in README.md, and never reused.

/// Everything went well.
pub(crate) const SUCCESS: u8 = 0;
/// Something that has no code of its own, such as a full disk or a file that cannot be read.
pub(crate) const SYSTEM: u8 = 1;
/// The command line makes no sense. clap exits with it, too.
pub(crate) const USAGE: u8 = 2;
/// The configuration or a file that it names is at fault.
pub(crate) const PROJECT: u8 = 3;
/// The image or its registry is at fault.
pub(crate) const IMAGE: u8 = 4;
/// This host does not allow a sandbox.
pub(crate) const SANDBOX: u8 = 5;
/// The requirements do not resolve or do not build.
pub(crate) const REQUIREMENTS: u8 = 6;
/// The artifact cannot be put together: a conflict, or a wheel that cannot be used.
pub(crate) const ARTIFACT: u8 = 7;
/// The artifact is whole, and will not work in Lambda, or must not be published.
pub(crate) const CHECKS: u8 = 8;
/// What `lbx diff` has compared differs.
pub(crate) const DIFFERENT: u8 = 9;
/// What `lbx run` was given is no program; as shells have it.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// What `lbx run` was given is not there; as shells have it.
pub(crate) const NOT_FOUND: u8 = 127;
/// A signal ended a command, or lbx itself: this and its number; as shells have it.
pub(crate) const SIGNALLED: u8 = 128;
/// SIGINT stopped it.
pub(crate) const INTERRUPTED: u8 = SIGNALLED + 2;
