//! Runs one command in an image's root under Linux namespaces, as an unprivileged user.
