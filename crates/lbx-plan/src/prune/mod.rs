//! What an artifact leaves out, by rule: a verdict per file, and never a change to a file.
//!
//! The rules are a table ([`RULES`]): what each takes, why, and which packages it spares. Those of the first set drop only
//! what the runtime never reads, and always hold. Package metadata stays (`METADATA`, `entry_points.txt`,
//! `top_level.txt`, licences), because `importlib.metadata` reads it. The others are sets that the user asks for
//! ([`Set`]); they leave alone what may be imported.
//!
//! The way through here: [`Choices`] is what the configuration says, [`Policy`] is that and what is known of the
//! artifact's packages, and [`verdict`] is a function of a path and a policy.
//!
//! ```
//! use lbx_plan::prune::{Choices, Distribution, Origin, Policy, Rule, Set, Verdict, verdict};
//!
//! let mut policy = Policy::new(&Choices { sets: [Set::Tests].into(), ..Choices::default() });
//! policy.prepare(Distribution { name: "a", requires: &[] }, ["a/__init__.py", "a/tests/test_b.py"]);
//! let origin = Origin::Wheel { distribution: "a", script: false };
//! assert_eq!(verdict("a/tests/test_b.py", origin, &policy), Verdict::Drop(Rule::Tests));
//! assert_eq!(verdict("a/__init__.py", origin, &policy), Verdict::Keep(None));
//! ```

mod botocore;
mod choices;
mod globs;
mod matching;
mod policy;
mod provided;
mod rules;
mod shape;
mod tools;

pub use self::botocore::{ALWAYS_NEEDED, Unknown, check_services, unknown_services};
pub use self::choices::{Choices, RuntimeProvided, accepted};
pub use self::globs::{GlobError, Globs};
pub use self::policy::{Policy, Reason, SparedBy, Verdict, verdict};
pub use self::provided::{CLOSURE, Decision, Installed, Member, Provided, provided};
pub use self::rules::{RULES, Rule, RuleData, Set, Spare, markdown};
pub use self::shape::Distribution;
pub use self::tools::{PACKAGING_TOOLS, Requirer, imported_modules, requires, unrequired_tools};

/// How lbx's own unfinished files begin, which a killed build leaves in its output folder.
pub const UNFINISHED: &str = ".lbx-";

/// Where a file comes from, as far as the rules care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A wheel, by its normalised distribution name.
    Wheel {
        /// Such as `setuptools`.
        distribution: &'a str,
        /// Whether the wheel installs the file as a command-line script.
        script: bool,
    },
    /// The user's own code.
    Source,
}

/// Names of files and folders in a source folder that are never code: matched at any depth.
const TOOL_NAMES: [&str; 19] = [
    ".aws-sam",
    ".DS_Store",
    ".git",
    ".gitattributes",
    ".gitignore",
    ".gitmodules",
    ".hg",
    ".idea",
    ".mypy_cache",
    ".nox",
    ".pytest_cache",
    ".ruff_cache",
    ".serverless",
    ".svn",
    ".tox",
    ".venv",
    ".vscode",
    "node_modules",
    "lbx.toml",
];

/// Whether a whole folder of a source tree is a tool's, so that it need not be read at all.
pub fn is_tool_folder(name: &str) -> bool {
    TOOL_NAMES.contains(&name)
}

fn is_tool_file(path: &str) -> bool {
    path.split('/').any(|part| TOOL_NAMES.contains(&part) || part.starts_with(UNFINISHED)) || is_lock(path)
}

/// Locks that lbx itself writes and reads (PEP 751).
fn is_lock(path: &str) -> bool {
    crate::locks::Format::of(path) == Some(crate::locks::Format::Pylock)
}
