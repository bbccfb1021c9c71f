//! The ways to isolate a command, strongest first, and what each of them claims. How each does it is in `child`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A way to isolate a command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Backend {
    /// Namespaces of an unprivileged user.
    #[default]
    Namespaces,
    /// The same namespaces but for users, made by a root user who may mount, where user namespaces are denied.
    RootNamespaces,
    /// The same namespaces, made by the system's bubblewrap, which may be allowed what this program is not.
    Bwrap,
    /// A root directory and a user id of its own, made by the root user of a container: no namespaces, no mounts.
    Chroot,
    /// The system's proot, which shows other paths to the command by tracing it. What holds, a Landlock domain and the
    /// filter hold.
    Proot,
    /// The image's own loader, on the paths of the host: for wheels and for source distributions without compilers.
    /// What holds, a Landlock domain and the filter hold.
    Loader,
}

/// What there is to know about a backend before it is tried.
struct Row {
    backend: Backend,
    name: &'static str,
    /// What it promises at best.
    claims: Claims,
    /// Whether it takes a root of layers.
    stacks: bool,
    /// Whether the command has a root directory of its own.
    roots: bool,
    /// Whether a command can be given the root to change.
    lends: bool,
}

/// What is promised of a backend. Each is a boolean that tests prove by attacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Files of the host other than the inputs cannot be read.
    pub files_hidden: bool,
    /// Files of the host other than the outputs cannot be written.
    pub files_unwritable: bool,
    /// With [`Network::None`](crate::Network::None), nothing can be sent anywhere.
    pub network_off: bool,
    /// With [`Network::Served`](crate::Network::Served), nothing can be sent anywhere but to that server.
    pub network_served: bool,
    /// Processes outside cannot be seen.
    pub processes_hidden: bool,
    /// Processes outside can be neither signalled nor traced.
    pub processes_untouchable: bool,
    /// Nothing runs on when the command has ended, even when the sandbox itself was killed.
    pub nothing_survives: bool,
    /// There is no way to more privileges.
    pub no_privileges: bool,
    /// No terminal takes forged input.
    pub no_terminal: bool,
}

/// How much isolation there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// None that is worth the name.
    None,
    /// Files are safe and the network is off; something else is missing.
    Partial,
    /// All of it.
    Full,
}

/// All promises.
const ALL: Claims = Claims {
    files_hidden: true,
    files_unwritable: true,
    network_off: true,
    network_served: true,
    processes_hidden: true,
    processes_untouchable: true,
    nothing_survives: true,
    no_privileges: true,
    no_terminal: true,
};

/// Without a process id namespace other processes can be seen, or their ids guessed; and who kills the process that
/// watches over the command sets the command's children free.
const SAME_PROCESSES: Claims = Claims { processes_hidden: false, nothing_survives: false, ..ALL };

/// All of them, strongest first.
const TABLE: [Row; 6] = [
    Row {
        backend: Backend::Namespaces,
        name: "namespaces",
        claims: ALL,
        stacks: true,
        roots: true,
        lends: true,
    },
    Row {
        backend: Backend::RootNamespaces,
        name: "root-namespaces",
        claims: ALL,
        stacks: false,
        roots: true,
        lends: true,
    },
    Row { backend: Backend::Bwrap, name: "bwrap", claims: ALL, stacks: false, roots: true, lends: false },
    Row {
        backend: Backend::Chroot,
        name: "chroot",
        claims: SAME_PROCESSES,
        stacks: false,
        roots: true,
        lends: true,
    },
    Row {
        backend: Backend::Proot,
        name: "proot",
        claims: SAME_PROCESSES,
        stacks: false,
        roots: false,
        lends: false,
    },
    Row {
        backend: Backend::Loader,
        name: "loader",
        claims: SAME_PROCESSES,
        stacks: false,
        roots: false,
        lends: false,
    },
];

impl Backend {
    /// All of them, strongest first: the order in which they are tried.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.backend)
    }

    fn row(self) -> &'static Row {
        // Each has its row, which a test holds on to.
        TABLE.iter().find(|row| row.backend == self).unwrap_or(&TABLE[0])
    }

    /// The name in options and reports.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What it promises where it works, at best.
    pub fn claims(self) -> Claims {
        self.row().claims
    }

    /// Whether its directories for temporary files are in memory. Those of the others are in the scratch directory.
    pub fn mounts_memory(self) -> bool {
        matches!(self, Self::Namespaces | Self::RootNamespaces | Self::Bwrap)
    }

    /// Whether it takes a root of layers. The others take a tree.
    pub fn stacks_layers(self) -> bool {
        self.row().stacks
    }

    /// Whether the command has a root directory of its own. In the others, what the host's files are safe from is a
    /// Landlock domain alone.
    pub fn changes_root(self) -> bool {
        self.row().roots
    }
}

impl Backend {
    /// Whether a command can be given the root to change ([`Changes`](crate::Changes)).
    pub fn lends_root(self) -> bool {
        self.row().lends
    }
}

impl Claims {
    /// Each promise with its name, in words for people.
    pub fn list(&self) -> [(&'static str, bool); 9] {
        [
            ("host files cannot be read", self.files_hidden),
            ("host files cannot be written", self.files_unwritable),
            ("no network unless it is wanted", self.network_off),
            ("the network can be kept to one server", self.network_served),
            ("host processes cannot be seen", self.processes_hidden),
            ("host processes cannot be touched", self.processes_untouchable),
            ("nothing survives", self.nothing_survives),
            ("no privileges can be gained", self.no_privileges),
            ("no terminal can be typed on", self.no_terminal),
        ]
    }

    /// How much that is together.
    pub fn level(&self) -> Level {
        if self.list().iter().all(|(_, holds)| *holds) {
            Level::Full
        } else if self.files_hidden && self.files_unwritable && self.network_off {
            Level::Partial
        } else {
            Level::None
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.backend).ok_or_else(|| {
            let names = TABLE.each_ref().map(|row| row.name).join(", ");
            format!("no backend `{name}`; there are {names}")
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Partial => "partial",
            Self::Full => "full",
        })
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found =
            [Self::None, Self::Partial, Self::Full].into_iter().find(|level| level.to_string() == name);
        found.ok_or_else(|| format!("no level `{name}`; there are full, partial, none"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_others_list_them() {
        for backend in Backend::all() {
            assert_eq!(backend.name().parse(), Ok(backend));
            let written = serde_json::to_string(&backend).expect("JSON");
            assert_eq!(written, format!("\"{backend}\""), "reports and options use one name");
        }
        assert_eq!(
            "docker".parse::<Backend>().unwrap_err(),
            "no backend `docker`; there are namespaces, root-namespaces, bwrap, chroot, proot, loader"
        );
        assert_eq!("partial".parse(), Ok(Level::Partial));
        assert!("most".parse::<Level>().is_err());
    }

    #[test]
    fn the_strongest_comes_first_and_what_is_missing_lowers_the_level() {
        let levels: Vec<_> = Backend::all().map(|backend| backend.claims().level()).collect();
        assert_eq!(levels[..3], [Level::Full; 3]);
        assert_eq!(levels[3..], [Level::Partial; 3]);
        assert!(levels.is_sorted_by(|a, b| a >= b));
        let bare = Claims { files_hidden: false, ..Backend::Namespaces.claims() };
        assert_eq!(bare.level(), Level::None);
    }
}
