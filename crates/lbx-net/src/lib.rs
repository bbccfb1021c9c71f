//! Whom to connect to, through which proxy, and whom to trust.
//!
//! What is here is the same for every server that lbx speaks to, whatever it says to it. A [`Guard`] judges where a
//! server may send its clients, [`Proxies`] knows the way there, and [`Trust`] whose certificates count. Nothing here
//! speaks a protocol, and nothing reads the environment: settings come from the caller.

mod error;
mod guard;
mod proxy;
mod trust;

pub use self::error::{CertificateProblem, Error};
pub use self::guard::{Guard, authority, bare_host};
pub use self::proxy::{Proxies, ProxyOptions, ProxyRoute, check_proxies};
pub use self::trust::{Trust, certificate_problem, speaks_no_tls, speaks_tls};
