//! Pull and unpack against a real registry, TLS and proxies, broken registries, hostile layers and SIGKILL.

mod disk;
mod faults;
mod hostile;
mod kill;
mod network;
mod properties;
mod pull;
mod support;
mod whole;
