//! What goes wrong with system packages.

use lbx_sandbox::Backend;

/// System packages that are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    /// The package manager of the image fails.
    #[error("cannot install {packages} in {image} ({how})")]
    Failed {
        /// The packages that were wanted.
        packages: String,
        /// The image.
        image: String,
        /// How it ended.
        how: String,
        /// What to do about the limit that it met, if it met one.
        met: Option<String>,
        /// What it said, in full.
        output: String,
        /// Why it was refused what it asked for last, if it was.
        refused: Option<String>,
    },
    /// There is no package manager.
    #[error("cannot install {packages}: {image} has no package manager")]
    NoManager {
        /// The packages that were wanted.
        packages: String,
        /// The image.
        image: String,
    },
    /// They were not installed before.
    #[error("cannot install {packages} in {image}: it was not done before, and the network is off")]
    Offline {
        /// The packages that were wanted.
        packages: String,
        /// The image.
        image: String,
    },
    /// The way to isolate commands here gives no root that can be changed.
    #[error(
        "cannot install {packages}: the sandbox of this host ({backend}) has no root that can be changed"
    )]
    RootNotLent {
        /// The packages that were wanted.
        packages: String,
        /// The way.
        backend: Backend,
    },
}

impl PackagesError {
    /// What the user can do.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Failed { met: Some(met), .. } => Some(met.clone()),
            Self::Failed { output, refused, .. } => match (unknown(output), refused) {
                (Some(name), _) => Some(format!(
                    "the image's own repositories have no `{name}`: names are those of its distribution, such as \
                     libxml2-devel on Amazon Linux and libxml2-dev on Debian"
                )),
                (None, Some(refused)) => Some(refused.clone()),
                (None, None) => None,
            },
            Self::NoManager { .. } => Some(
                "name an image that has one with `build-image`; apt-get, dnf, microdnf and yum will do"
                    .to_owned(),
            ),
            Self::Offline { .. } => {
                Some("build once with a network, or take an image that has them as `build-image`".to_owned())
            }
            Self::RootNotLent { .. } => Some(
                "`lbx doctor` says what is missing; an image that has them as `build-image` needs nothing"
                    .to_owned(),
            ),
        }
    }
}

/// The package that the manager does not know, from its own words: apt's, dnf's, microdnf's and yum's.
fn unknown(output: &str) -> Option<&str> {
    output.lines().find_map(|line| {
        let rest = [
            "E: Unable to locate package ",
            "No match for argument: ",
            "No package matches '",
            "No package ",
        ]
        .into_iter()
        .find_map(|words| Some(line.split_once(words)?.1))?;
        let name = rest.trim_end_matches(" available.").trim_end_matches('\'').trim();
        (!name.is_empty() && !name.contains(' ')).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_that_is_unknown_is_named() {
        for said in [
            "Reading...\nE: Unable to locate package libfoo\n",
            "Updating\nNo match for argument: libfoo\nError: Unable to find a match: libfoo\n",
            "error: No package matches 'libfoo'\n",
            "No package libfoo available.\nError: Nothing to do\n",
        ] {
            assert_eq!(unknown(said), Some("libfoo"), "{said}");
        }
        assert_eq!(unknown("No package is here\n"), None);
    }
}
