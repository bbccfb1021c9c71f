//! Tests of the ELF reader and of stripping: against binutils and the real loader, with what real compilers
//! make, and with files that nobody would make.
//!
//! They need a compiler, binutils and `python3`. What is not there is skipped with a line on stderr, and with
//! `elf` in `LBX_MUST_RUN` that is a failure.

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod refusing;
#[cfg(test)]
mod stripping;
#[cfg(test)]
mod tools;
