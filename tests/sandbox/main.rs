//! Black-box tests of the sandbox: each guarantee by name, what must work and what must not.
//!
//! The root is a tree around one static busybox, made twice: as layers and as a merged tree. What the
//! registry, pip or the zip do is tested elsewhere.

mod attacks;
mod changes;
mod choice;
mod claims;
mod diagnosis;
mod emulator;
mod group;
mod guarantees;
mod hostile;
mod kernel;
mod lifetime;
mod limits;
mod machine;
mod served;
mod support;
mod views;
