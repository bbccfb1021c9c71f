//! Pull and unpack against a real registry, broken registries, hostile layers and SIGKILL.

mod disk;
mod faults;
mod hostile;
mod kill;
mod properties;
mod pull;
mod support;
