//! Whether a wheel's tags fit a target: PEP 425 for interpreters, PEP 600 for platforms. What pip would have chosen
//! is not asked; this is the check after it.

use crate::{TagMismatch, WheelFilename};

/// Where a wheel is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The minor version of CPython 3.
    pub python_minor: u8,
    /// The newest glibc that a manylinux tag may ask for.
    pub glibc: (u16, u16),
    /// The machine as in platform tags: `x86_64` or `aarch64`.
    pub arch: String,
}

impl WheelFilename {
    /// Whether one of the wheel's tags fits `target`.
    ///
    /// Accepted are pure wheels for this Python or an older one, `cp3X` with its own ABI, `abi3` of this or an older
    /// version, and platforms `any`, `linux_<arch>` and manylinux up to the target's glibc. musllinux never fits.
    pub fn allowed_on(&self, target: &Target) -> Result<(), TagMismatch> {
        let mismatch = |reason| {
            Err(TagMismatch {
                tags: self.tags(),
                python_minor: target.python_minor,
                glibc: target.glibc,
                arch: target.arch.clone(),
                reason,
            })
        };
        let minor = target.python_minor;
        if !self.python.iter().any(|python| runs(python, minor)) {
            return mismatch("the interpreter does not fit");
        }
        let any_only = self.platform.iter().all(|platform| platform == "any");
        let abi_fits =
            self.python.iter().any(|python| self.abi.iter().any(|abi| links(python, abi, minor, any_only)));
        if !abi_fits {
            return mismatch("the ABI does not fit");
        }
        if !self.platform.iter().any(|platform| loads(platform, target)) {
            return mismatch("the platform does not fit");
        }
        Ok(())
    }
}

/// The minor version in `cp311` or `py311`; `None` for other interpreters. `py3` is 0.
fn minor_of<'t>(python: &'t str, interpreter: &str) -> Option<(&'t str, u8)> {
    let version = python.strip_prefix(interpreter)?.strip_prefix('3')?;
    if version.is_empty() { Some((python, 0)) } else { version.parse().ok().map(|minor| (python, minor)) }
}

/// Whether the Python tag is for CPython 3.`minor` or something that it understands.
fn runs(python: &str, minor: u8) -> bool {
    let of = |interpreter| minor_of(python, interpreter).is_some_and(|(_, found)| found <= minor);
    of("py") || of("cp")
}

/// Whether this Python and ABI tag belong together on CPython 3.`minor`.
fn links(python: &str, abi: &str, minor: u8, any_only: bool) -> bool {
    let generic = minor_of(python, "py").is_some_and(|(_, found)| found <= minor);
    let Some((_, found)) = minor_of(python, "cp") else { return generic && abi == "none" };
    match abi {
        // The stable ABI began with 3.2.
        "abi3" => (2..=minor).contains(&found),
        // `cp3` stands for no ABI; with code in it, a version must be this one.
        "none" => found == minor || (found == 0 && any_only),
        _ => found == minor && abi == python,
    }
}

/// Whether the platform tag fits the target's machine and glibc.
fn loads(platform: &str, target: &Target) -> bool {
    if platform == "any" {
        return true;
    }
    let Some(tag) = platform.strip_suffix(target.arch.as_str()).and_then(|tag| tag.strip_suffix('_')) else {
        return false;
    };
    // The older three are PEP 513, 571 and 599; the first two exist for x86 only.
    let old_x86 = target.arch == "x86_64";
    match tag {
        "linux" => true,
        "manylinux1" => old_x86 && target.glibc >= (2, 5),
        "manylinux2010" => old_x86 && target.glibc >= (2, 12),
        "manylinux2014" => target.glibc >= (2, 17),
        _ => manylinux(tag).is_some_and(|needs| needs <= target.glibc && needs.0 == target.glibc.0),
    }
}

/// The glibc that `manylinux_X_Y` asks for.
fn manylinux(tag: &str) -> Option<(u16, u16)> {
    let (major, minor) = tag.strip_prefix("manylinux_")?.split_once('_')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(tags: &str, minor: u8, glibc: (u16, u16), arch: &str) -> bool {
        let name: WheelFilename = format!("a-1-{tags}.whl").parse().unwrap();
        name.allowed_on(&Target { python_minor: minor, glibc, arch: arch.into() }).is_ok()
    }

    #[test]
    fn what_lambda_can_load_is_allowed() {
        for tags in [
            "py3-none-any",
            "py2.py3-none-any",
            "py311-none-any",
            "py38-none-any",
            "cp311-none-any",
            "cp311-cp311-linux_x86_64",
            "cp311-cp311-manylinux1_x86_64",
            "cp311-cp311-manylinux2010_x86_64",
            "cp311-cp311-manylinux2014_x86_64",
            "cp311-cp311-manylinux_2_24_x86_64",
            "cp311-cp311-manylinux_2_26_x86_64",
            "cp311-cp311-manylinux_2_28_x86_64.manylinux_2_17_x86_64",
            "cp37-abi3-manylinux2014_x86_64",
            "cp311-abi3-manylinux2014_x86_64",
            "py3-none-manylinux2014_x86_64",
            "cp311-none-manylinux2014_x86_64",
            "py3-none-musllinux_1_1_x86_64.manylinux2014_x86_64",
        ] {
            assert!(fits(tags, 11, (2, 26), "x86_64"), "{tags}");
        }
        assert!(fits("cp312-cp312-manylinux_2_34_x86_64", 12, (2, 34), "x86_64"));
        assert!(fits("cp312-cp312-manylinux2014_aarch64", 12, (2, 34), "aarch64"));
    }

    #[test]
    fn what_lambda_cannot_load_is_refused() {
        for tags in [
            "py2-none-any",
            "py312-none-any",
            "cp310-cp310-manylinux2014_x86_64",
            "cp312-cp312-manylinux2014_x86_64",
            "cp312-abi3-manylinux2014_x86_64",
            "cp311-cp311t-manylinux2014_x86_64",
            "cp311-cp310-manylinux2014_x86_64",
            "cp310-none-any",
            "py3-abi3-manylinux2014_x86_64",
            "pp39-pypy39_pp73-manylinux2014_x86_64",
            "cp311-cp311-manylinux_2_28_x86_64",
            "cp311-cp311-manylinux_3_1_x86_64",
            "cp311-cp311-manylinux_2_x_x86_64",
            "cp311-cp311-musllinux_1_1_x86_64",
            "cp311-cp311-manylinux2014_aarch64",
            "cp311-cp311-manylinux2014_i686",
            "cp311-cp311-win_amd64",
            "cp311-cp311-macosx_11_0_x86_64",
        ] {
            assert!(!fits(tags, 11, (2, 26), "x86_64"), "{tags}");
        }
        assert!(!fits("cp311-cp311-manylinux1_aarch64", 11, (2, 26), "aarch64"));
    }

    #[test]
    fn the_refusal_says_which_part_does_not_fit() {
        let name: WheelFilename = "a-1-cp311-cp311-musllinux_1_1_x86_64.whl".parse().unwrap();
        let target = Target { python_minor: 11, glibc: (2, 26), arch: "x86_64".into() };
        assert_eq!(
            name.allowed_on(&target).unwrap_err().to_string(),
            "no tag of cp311-cp311-musllinux_1_1_x86_64 fits Python 3.11 on x86_64 with glibc 2.26: \
             the platform does not fit"
        );
    }
}
