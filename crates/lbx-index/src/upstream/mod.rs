//! Asking: pages and files of indexes, over a client that goes only where it may, with what it may show there.
//!
//! `client` makes one request, redirects included; `retry` decides whether to make it again; `pages` and `files` know
//! what to ask for and what becomes of it.

pub(crate) mod client;
pub(crate) mod files;
pub(crate) mod pages;
mod retry;
pub(crate) mod sink;
