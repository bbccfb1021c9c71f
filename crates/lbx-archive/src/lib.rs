//! Zip bytes: a strict reader of strangers' archives and a deterministic writer of our own.
