//! What a machine's administrator can change so that a sandbox is allowed, as files and commands. Changes nothing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The longest name of a file, with some room.
const MAX_NAME: usize = 200;

/// A change to the machine that takes a denial away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Remedy {
    /// Another value for a setting of the kernel.
    Sysctl {
        /// Its name, with dots.
        name: String,
        /// The value.
        value: u64,
    },
    /// A profile that gives the program its capabilities in user namespaces back.
    AppArmorProfile,
}

/// How a change is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// What it does, and what else it allows, for who has to decide.
    pub why: String,
    /// A file to write, and its content. Root's, with mode 0644.
    pub file: (PathBuf, String),
    /// The command that makes the file take effect.
    pub command: Vec<String>,
}

impl Remedy {
    /// How to make this change for a program, which is named by its full path.
    pub fn steps(&self, program: &Path) -> Steps {
        match self {
            Self::Sysctl { name, value } => sysctl(
                name,
                *value,
                format!("sets {name} to {value}, now and at every boot, for all programs of all users"),
            ),
            Self::AppArmorProfile => program.to_str().and_then(profile).unwrap_or_else(|| {
                let name = "kernel.apparmor_restrict_unprivileged_userns";
                let why =
                    "no profile can name this program's path, so this lifts the restriction for all programs";
                sysctl(name, 0, why.to_owned())
            }),
        }
    }
}

fn sysctl(name: &str, value: u64, why: String) -> Steps {
    let file = format!("/etc/sysctl.d/90-lbx-{}.conf", name.replace(['.', '_'], "-"));
    let content = format!(
        "# Written by `lbx doctor --fix`: lbx isolates builds in user namespaces.\n{name} = {value}\n"
    );
    // This file alone: applying all of them could undo what somebody has set by hand.
    let command = vec!["sysctl".to_owned(), "-p".to_owned(), file.clone()];
    Steps { why, file: (file.into(), content), command }
}

/// A profile that only gives the program a name and user namespaces, as Ubuntu has them for programs like this one.
fn profile(program: &str) -> Option<Steps> {
    let (name, attachment) = (file_name(program)?, quoted(program)?);
    let content = format!(
        "# Written by `lbx doctor --fix`. This profile allows everything, and exists to let the program have its\n\
         # capabilities in the user namespaces that it makes.\n\
         abi <abi/4.0>,\n\
         include <tunables/global>\n\
         \n\
         profile {name} {attachment} flags=(unconfined) {{\n\
         \x20 userns,\n\
         \n\
         \x20 include if exists <local/{name}>\n\
         }}\n"
    );
    let file = format!("/etc/apparmor.d/{name}");
    let why =
        format!("lets the program at {program} use user namespaces; so can whoever may write to that path");
    let command = vec!["apparmor_parser".to_owned(), "-r".to_owned(), file.clone()];
    Some(Steps { why, file: (file.into(), content), command })
}

/// A file and profile name of its own for each path, in characters that mean nothing to anybody.
fn file_name(program: &str) -> Option<String> {
    let mut name = "lbx".to_owned();
    for byte in program.bytes() {
        match byte {
            b'/' => name.push('.'),
            b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => name.push(char::from(byte)),
            // Writing to a string does not fail.
            other => drop(write!(name, "_{other:02x}")),
        }
    }
    (name.len() <= MAX_NAME).then_some(name)
}

/// A path as a profile has it, or `None` when no profile can: AppArmor takes an escaped question mark for a
/// repetition, and there is no way to write what is no printable character.
fn quoted(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.contains(|c: char| c == '?' || c.is_control()) {
        return None;
    }
    let escaped = path.chars().flat_map(|c| {
        let escape = matches!(c, '*' | '[' | ']' | '{' | '}' | '^' | '\\' | '"').then_some('\\');
        escape.into_iter().chain([c])
    });
    Some(format!("\"{}\"", escaped.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_written_to_a_file_of_its_own_and_only_that_is_loaded() {
        let remedy = Remedy::Sysctl { name: "user.max_user_namespaces".to_owned(), value: 15_000 };
        let steps = remedy.steps(Path::new("/usr/bin/lbx"));
        let file = "/etc/sysctl.d/90-lbx-user-max-user-namespaces.conf";
        assert_eq!(steps.file.0, Path::new(file));
        assert!(steps.file.1.ends_with("\nuser.max_user_namespaces = 15000\n"), "{}", steps.file.1);
        assert_eq!(steps.command, ["sysctl", "-p", file]);
    }

    #[test]
    fn a_profile_is_what_ubuntu_has_for_such_programs() {
        let steps = Remedy::AppArmorProfile.steps(Path::new("/home/me/.cargo/bin/lbx"));
        let name = "lbx.home.me._2ecargo.bin.lbx";
        assert_eq!(steps.file.0, Path::new("/etc/apparmor.d").join(name));
        let rules: Vec<&str> = steps.file.1.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            rules,
            [
                "abi <abi/4.0>,",
                "include <tunables/global>",
                "",
                "profile lbx.home.me._2ecargo.bin.lbx \"/home/me/.cargo/bin/lbx\" flags=(unconfined) {",
                "  userns,",
                "",
                "  include if exists <local/lbx.home.me._2ecargo.bin.lbx>",
                "}",
            ]
        );
        assert_eq!(steps.command, ["apparmor_parser", "-r", "/etc/apparmor.d/lbx.home.me._2ecargo.bin.lbx"]);
    }

    #[test]
    fn what_means_something_in_a_profile_is_escaped() {
        assert_eq!(quoted("/opt/my tools/@{HOME},é/lbx").unwrap(), r#""/opt/my tools/@\{HOME\},é/lbx""#);
        assert_eq!(quoted(r#"/a*[b]^\"/lbx"#).unwrap(), r#""/a\*\[b\]\^\\\"/lbx""#);
        assert_ne!(file_name("/a/b"), file_name("/a.b"));
        assert_ne!(file_name("/a_2eb"), file_name("/a.b"));
    }

    #[test]
    fn where_no_profile_can_name_the_path_the_setting_is_what_is_left() {
        for path in ["/what?/lbx", "/new\nline/lbx", "relative", &"/long".repeat(60)] {
            let steps = Remedy::AppArmorProfile.steps(Path::new(path));
            assert_eq!(steps.command[0], "sysctl", "{path}");
            assert!(steps.file.1.ends_with("kernel.apparmor_restrict_unprivileged_userns = 0\n"));
            assert!(steps.why.contains("all programs"));
        }
    }
}
