//! Support for tests: real servers on loopback, hermetic directories, broken inputs.
