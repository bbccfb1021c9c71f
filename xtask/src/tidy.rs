//! The rules of ARCHITECTURE.md that a machine can check, as functions that list what breaks them.
//!
//! `cargo xtask tidy` runs them all, and so do this crate's tests, so that a broken invariant is a failed
//! test with the invariant's name.

use std::path::{Path, PathBuf};

use crate::{Result, workspace};

/// One rule: its name, and what finds the places that break it.
struct Rule {
    name: &'static str,
    check: fn() -> Result<Vec<String>>,
}

const RULES: [Rule; 7] = [
    Rule { name: "dependencies go down the floors only", check: floors },
    Rule { name: "a crate does not depend on what it never contains", check: banned_dependencies },
    Rule { name: "a crate's sources do not speak of what it never contains", check: banned_words },
    Rule { name: "unsafe code is in one file", check: unsafe_in_one_file },
    Rule { name: "every file opens with what it is for", check: module_docs },
    Rule { name: "no file is longer than 800 lines", check: long_files },
    Rule { name: "the schemas in docs are what the types say", check: schemas },
];

/// The floor of every crate that ships, and of those that do not.
const FLOORS: [(&str, u8); 13] = [
    ("lbx-archive", 0),
    ("lbx-elf", 0),
    ("lbx-lock", 0),
    ("lbx-net", 0),
    ("lbx-plan", 0),
    ("lbx-sandbox", 0),
    ("lbx-image", 1),
    ("lbx-index", 1),
    ("lbx-wheel", 1),
    ("lbx-build", 2),
    ("lbx", 3),
    // Tests and tasks stand beside the house; the test kit makes filters with the sandbox's own compiler.
    ("lbx-testkit", 1),
    ("xtask", 9),
];

/// What a crate never depends on.
const BANNED_DEPENDENCIES: [(&str, &[&str]); 11] = [
    ("lbx-plan", &["tokio", "fs-err", "nix", "rustix", "libc", "tempfile"]),
    ("lbx-archive", &["tokio", "fs-err", "nix", "rustix", "libc", "walkdir"]),
    ("lbx-elf", &["tokio", "fs-err", "nix", "rustix", "libc", "tempfile"]),
    ("lbx-sandbox", &["tokio", "oci-client", "reqwest", "rustls"]),
    ("lbx-lock", &["tokio", "nix", "libc"]),
    ("lbx-net", &["clap", "fs-err", "httparse", "hyper", "indicatif", "oci-client", "reqwest"]),
    ("lbx-image", &["caps", "clap", "indicatif"]),
    ("lbx-index", &["caps", "clap", "indicatif", "nix"]),
    ("lbx-wheel", &["caps", "clap", "indicatif", "tokio"]),
    ("lbx-build", &["clap", "indicatif"]),
    ("lbx", &["nix", "oci-client", "zip", "tar", "flate2"]),
];

/// What a crate's sources, tests aside, never say.
const BANNED_WORDS: [(&str, &[&str]); 11] = [
    ("lbx-plan", &["std::fs", "fs_err", "std::env::", "std::time", "std::process", "std::net"]),
    ("lbx-archive", &["read_dir", "std::env::", "std::time", "std::process", "std::net"]),
    ("lbx-elf", &["std::fs", "std::io", "std::env", "std::time", "std::process", "std::net", "println!"]),
    ("lbx-sandbox", &["tokio", "ToSocketAddrs", "UdpSocket", "HTTP/", "std::env::var"]),
    ("lbx-lock", &["read_dir", "std::env", "std::time", "std::process", "std::net"]),
    ("lbx-net", &["std::fs", "std::env", "std::process", "println!"]),
    ("lbx-image", &["::mount", "unshare", "CloneFlags", "std::env::var", "println!"]),
    ("lbx-index", &["::mount", "unshare", "CloneFlags", "std::env", "println!"]),
    ("lbx-wheel", &["::mount", "unshare", "std::env::var", "std::process", "println!"]),
    ("lbx-build", &["std::env::var", "println!", "std::env::current_dir"]),
    ("lbx", &[" nix::", "(nix::", "oci_client::", " zip::", "(zip::"]),
];

/// The one file that may hold `unsafe`.
const UNSAFE_FILE: &str = "crates/lbx-sandbox/src/syscalls.rs";
/// The most lines that a file may have.
const LONGEST: usize = 800;

/// Runs every rule, and names what breaks one.
pub(crate) fn run() -> Result<()> {
    let mut broken = 0;
    for rule in &RULES {
        let places = (rule.check)()?;
        println!("{} {}", if places.is_empty() { "ok  " } else { "FAIL" }, rule.name);
        for place in &places {
            println!("       {place}");
        }
        broken += usize::from(!places.is_empty());
    }
    if broken > 0 { Err(format!("{broken} of {} rules are broken", RULES.len()).into()) } else { Ok(()) }
}

fn manifest(name: &str) -> Result<Option<toml::Table>> {
    let folder = if name == "xtask" {
        workspace::root().join("xtask")
    } else {
        workspace::root().join("crates").join(name)
    };
    let path = folder.join("Cargo.toml");
    if !path.is_file() {
        return Ok(None);
    }
    Ok(Some(fs_err::read_to_string(path)?.parse()?))
}

/// The names of a crate's dependencies. Those of its tests are not asked.
fn dependencies(name: &str) -> Result<Vec<String>> {
    let manifest = manifest(name)?.unwrap_or_default();
    let table = manifest.get("dependencies").and_then(toml::Value::as_table);
    Ok(table.map(|table| table.keys().cloned().collect()).unwrap_or_default())
}

fn floor(name: &str) -> Option<u8> {
    FLOORS.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, floor)| *floor)
}

fn floors() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for entry in fs_err::read_dir(workspace::root().join("crates"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(own) = floor(&name) else {
            broken.push(format!("{name} has no floor"));
            continue;
        };
        for dependency in dependencies(&name)?.iter().filter(|dependency| dependency.starts_with("lbx")) {
            let below = floor(dependency).is_some_and(|other| other < own) && dependency != "lbx-testkit";
            if !below {
                broken.push(format!("{name} depends on {dependency}"));
            }
        }
    }
    Ok(broken)
}

fn banned_dependencies() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for (name, banned) in BANNED_DEPENDENCIES {
        for dependency in
            dependencies(name)?.iter().filter(|dependency| banned.contains(&dependency.as_str()))
        {
            broken.push(format!("{name} depends on {dependency}"));
        }
    }
    Ok(broken)
}

fn banned_words() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for (name, banned) in BANNED_WORDS {
        for path in sources(&format!("crates/{name}/src"))? {
            let text = fs_err::read_to_string(workspace::root().join(&path))?;
            for (number, line) in code(&text) {
                for word in banned.iter().filter(|word| line.contains(**word)) {
                    broken.push(format!("{}:{number}: {word}", path.display()));
                }
            }
        }
    }
    Ok(broken)
}

/// The lines of a file that are code: no comments, and nothing after the unit tests begin, which are last
/// in every file.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .take_while(|(_, line)| *line != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn unsafe_in_one_file() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for path in sources("crates")?.into_iter().chain(sources("xtask")?) {
        let text = fs_err::read_to_string(workspace::root().join(&path))?;
        let found =
            code(&text).find(|(_, line)| line.contains("unsafe ") || line.contains("expect(unsafe_code"));
        if let Some((number, _)) = found
            && path != Path::new(UNSAFE_FILE)
            && path != Path::new("xtask/src/tidy.rs")
        {
            broken.push(format!("{}:{number}", path.display()));
        }
    }
    Ok(broken)
}

fn module_docs() -> Result<Vec<String>> {
    every_source(|text| (!text.lines().next().unwrap_or_default().starts_with("//!")).then(String::new))
}

fn long_files() -> Result<Vec<String>> {
    every_source(|text| {
        let lines = text.lines().count();
        (lines > LONGEST).then(|| format!(": {lines} lines"))
    })
}

fn every_source(check: impl Fn(&str) -> Option<String>) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for folder in ["crates", "tests", "xtask"] {
        for path in sources(folder)? {
            let text = fs_err::read_to_string(workspace::root().join(&path))?;
            if let Some(what) = check(&text) {
                broken.push(format!("{}{what}", path.display()));
            }
        }
    }
    Ok(broken)
}

fn schemas() -> Result<Vec<String>> {
    let schemas = [
        ("docs/lbx.schema.json", lbx_plan::json_schema(), "schema"),
        ("docs/report.schema.json", lbx_build::Report::json_schema(), "schema --report"),
    ];
    let mut stale = Vec::new();
    for (path, text, command) in schemas {
        if fs_err::read_to_string(workspace::root().join(path))? != text {
            stale.push(format!("run `cargo run -p lbx -- {command} > {path}`"));
        }
    }
    Ok(stale)
}

/// Every Rust file below a folder of the checkout, relative to the checkout, sorted.
fn sources(folder: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(workspace::root().join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(check: fn() -> Result<Vec<String>>) {
        let broken = check().unwrap();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    #[test]
    fn dependencies_go_down_the_floors_only() {
        holds(floors);
    }

    #[test]
    fn no_crate_depends_on_what_it_never_contains() {
        holds(banned_dependencies);
    }

    #[test]
    fn no_crate_speaks_of_what_it_never_contains() {
        holds(banned_words);
    }

    #[test]
    fn unsafe_code_is_in_one_file() {
        holds(unsafe_in_one_file);
    }

    #[test]
    fn every_file_opens_with_what_it_is_for() {
        holds(module_docs);
    }

    #[test]
    fn no_file_is_longer_than_800_lines() {
        holds(long_files);
    }

    #[test]
    fn the_schemas_in_the_documentation_are_what_the_types_say() {
        holds(schemas);
    }
}
