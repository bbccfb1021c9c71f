//! Indexes that are right, wrong, late and hostile on one side, and clients on the other: raw ones, and real pips.

mod credentials;
mod fetch;
mod hostile;
mod pip;
mod serve;
mod support;
mod upstream;
