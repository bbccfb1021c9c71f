//! Black-box tests of the `lbx` binary: what it prints, how it exits, what it leaves behind.
//!
//! | module | about |
//! |---|---|
//! | `examples` | each project of `examples/`: its zips, its report, its handlers imported in the sandbox |
//! | `bytecode` | modules compiled by the image, beside sources and in their place |
//! | `cache` | `lbx cache`: how much there is, what goes, what is damaged |
//! | `checks` | what is checked before a zip is published, what is left to the runtime, what is stripped |
//! | `commands` | `pull`, `--help`, `--quiet`, `--message-format json` |
//! | `diff` | `lbx diff`: zips of ours, of others, and what is none |
//! | `doctor` | `lbx doctor`, what it fixes, and how sandbox errors end |
//! | `explain` | `lbx explain`: packages, files and folders |
//! | `configuration` | what is wrong with lbx.toml and the files that it names |
//! | `requirements` | what pip refuses, and what is wrong with wheels |
//! | `limits` | builds that use up what they may use |
//! | `images` | what is wrong with a registry or an image |
//! | `imports` | handlers imported after a build, as the runtime does it |
//! | `inspect` | `lbx check`: zips and folders of anybody |
//! | `architectures` | building for another CPU, and for two at once |
//! | `sources` | what has to be built: source distributions, local projects |
//! | `git` | repositories: over HTTP and ssh, pinned, with submodules, offline |
//! | `locks` | what `lbx lock` writes, and what builds make of locks |
//! | `vendor` | what `lbx vendor` writes, and builds from it without a network |
//! | `incremental` | building again: what is not done again, and what is |
//! | `keys` | by what things are kept: which input makes another, and what makes none |
//! | `indexes` | package indexes: logins, options, addresses, what is refused |
//! | `prune` | what is left out, and that real packages work without it |
//! | `report` | `report.json`: its schema, its sums, what was measured |
//! | `html` | `lbx build --html`: the page, in a browser |
//! | `host` | what is wrong with the host: disk, directories, namespaces |
//! | `session` | `run` and `shell`: exit codes, streams, signals, the terminal |
//! | `survival` | what is kept, after kills, of many builds at once, and on a full disk |
//! | `interrupts` | signals, at every stage |
//! | `terminal` | what is drawn on a terminal, and what is left on it |
//! | `tree` | `--dir`: the tree of a zip, and what is not touched for it |
//!
//! `support` runs the binary, `lambda` runs handlers as Lambda does.

mod architectures;
mod bytecode;
mod cache;
mod checks;
mod commands;
mod configuration;
mod diff;
mod doctor;
mod examples;
mod explain;
mod git;
mod host;
mod html;
mod images;
mod imports;
mod incremental;
mod indexes;
mod inspect;
mod interrupts;
mod keys;
mod lambda;
mod limits;
mod locks;
mod offline;
mod packages;
mod prune;
mod report;
mod requirements;
mod session;
mod sources;
mod support;
mod survival;
mod terminal;
mod tree;
mod vendor;
