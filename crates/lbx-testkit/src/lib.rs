//! Support for tests: real servers on loopback, hermetic directories, broken inputs.
//!
//! Everything here panics with a message when it can't do its work: a test that lacks its tools has failed.

pub mod images;
pub mod registry;
pub mod standin;
