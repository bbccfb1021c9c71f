//! Support for tests: real servers on loopback, hermetic directories, broken inputs.
//!
//! Everything here panics with a message when it can't do its work: a test that lacks its tools has failed.

pub mod command;
pub mod debian;
pub mod git;
pub mod images;
pub mod index;
pub mod process;
pub mod proxy;
pub mod pypiserver;
pub mod registry;
pub mod restrict;
pub mod stall;
pub mod standin;
pub mod stub;
pub mod terminal;
pub mod tls;
pub mod wheels;
