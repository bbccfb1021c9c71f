//! Whether a lock has what requirements ask for.

use std::fmt;
use std::str::FromStr;

use pep440_rs::Version;
use pep508_rs::{Requirement, VerbatimUrl, VersionOrUrl};

use super::{Environment, Locked, Package, Source, fingerprint, normalized};
use crate::hidden::Hidden;
use crate::requirements::{LineKind, from_project, scan};

/// What a lock has not got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It was made from other lines than these.
    Changed,
    /// A line that it does not meet, and what it has for it.
    Line {
        /// The line.
        line: Hidden,
        /// The version that is locked, if there is one.
        has: Option<String>,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed => f.write_str("it was made from other requirements"),
            Self::Line { line, has: None } => write!(f, "it has nothing for `{line}`"),
            Self::Line { line, has: Some(version) } => write!(f, "it has {version} for `{line}`"),
        }
    }
}

/// Whether the lock has all that these lines ask for, which are those of a set.
pub fn covers(lines: &[Hidden], locked: &Locked, environment: &Environment) -> Result<(), Missing> {
    if let Some(made_from) = &locked.made_from {
        return if *made_from == fingerprint(lines) { Ok(()) } else { Err(Missing::Changed) };
    }
    let mut constraints = 0_usize;
    for line in lines {
        match line.expose() {
            "[end]" => constraints = constraints.saturating_sub(1),
            text if text.starts_with("[constraints ") => constraints += 1,
            text => one(line, text, locked, environment, constraints > 0)?,
        }
    }
    Ok(())
}

fn one(
    line: &Hidden,
    text: &str,
    locked: &Locked,
    environment: &Environment,
    is_constraint: bool,
) -> Result<(), Missing> {
    let missing = |package: Option<&Package>| Missing::Line {
        line: line.clone(),
        has: package.and_then(|package| package.version.clone()),
    };
    let find = |name: &str| locked.packages.iter().find(|package| package.name == name);
    let kind = scan(text).into_iter().next().map(|line| line.kind);
    // What is meant by a path or a bare address has no name here.
    let is_there = match kind {
        Some(LineKind::LocalPath(target)) => locked.packages.iter().any(
            |package| matches!(&package.source, Source::Path { path, .. } if *path == from_project(&target)),
        ),
        Some(LineKind::Requirement | LineKind::Url(_) | LineKind::Git(_)) => {
            let spec = text.split(" --").next().unwrap_or_default();
            let Ok(requirement) = Requirement::<VerbatimUrl>::from_str(spec) else {
                return Err(missing(None));
            };
            if !environment.tree_holds(&requirement.marker, &[]) {
                return Ok(());
            }
            let found = find(&normalized(requirement.name.as_ref()));
            let Some(found) = found else {
                return if is_constraint { Ok(()) } else { Err(missing(None)) };
            };
            if !meets(found, requirement.version_or_url.as_ref()) {
                return Err(missing(Some(found)));
            }
            true
        }
        _ => true,
    };
    if is_there { Ok(()) } else { Err(missing(None)) }
}

fn meets(package: &Package, wanted: Option<&VersionOrUrl<VerbatimUrl>>) -> bool {
    let version = package.version.as_deref().and_then(|version| Version::from_str(version).ok());
    match wanted {
        None => true,
        Some(VersionOrUrl::VersionSpecifier(specifiers)) => {
            // One without a version is built from where the lock says, and is what it is.
            version.is_none_or(|version| specifiers.contains(&version))
        }
        Some(VersionOrUrl::Url(url)) => {
            let address = url.to_string();
            let address = address.trim_start_matches("git+").split('#').next().unwrap_or_default();
            match &package.source {
                Source::Archive(file) => {
                    file.url.as_ref().is_some_and(|url| url.expose().split('#').next() == Some(address))
                }
                Source::Git { url, .. } => {
                    let same = url.to_string();
                    Hidden::new(address).to_string().starts_with(same.trim_start_matches("git+"))
                }
                Source::Files(_) | Source::Path { .. } => false,
            }
        }
    }
}
