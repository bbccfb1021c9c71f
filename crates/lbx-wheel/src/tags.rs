//! Whether a wheel's tags fit a target: PEP 425 for interpreters, PEP 600 for platforms; and which of several wheels
//! fits best, as pip chooses.

use std::cmp::Reverse;

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

/// How well a wheel fits: the smallest is the best.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// The place of its best tag among those of the target.
    tag: usize,
    /// Of two wheels with one tag, the one with the higher build tag is taken.
    build: Reverse<(u64, String)>,
}

impl Target {
    /// All tags that fit, the most particular first, as pip and the `packaging` library order them.
    pub fn tags(&self) -> Vec<String> {
        let (minor, platforms) = (self.python_minor, self.platforms());
        let own = format!("cp3{minor}");
        let mut tags = Vec::new();
        let mut each = |python: &str, abi: &str| {
            tags.extend(platforms.iter().map(|platform| format!("{python}-{abi}-{platform}")));
        };
        each(&own, &own);
        each(&own, "abi3");
        each(&own, "none");
        // The stable ABI began with 3.2.
        for older in (2..minor).rev() {
            each(&format!("cp3{older}"), "abi3");
        }
        let generic: Vec<String> = [format!("py3{minor}"), "py3".to_owned()]
            .into_iter()
            .chain((0..minor).rev().map(|older| format!("py3{older}")))
            .collect();
        for python in &generic {
            each(python, "none");
        }
        tags.push(format!("{own}-none-any"));
        tags.extend(generic.iter().map(|python| format!("{python}-none-any")));
        tags
    }

    /// Platforms, the newest glibc first, each followed by the older name for it (PEP 600).
    fn platforms(&self) -> Vec<String> {
        let arch = &self.arch;
        let (major, newest) = self.glibc;
        let oldest = if arch == "x86_64" { 5 } else { 17 };
        let mut platforms = Vec::new();
        for minor in (oldest..=newest).rev() {
            platforms.push(format!("manylinux_{major}_{minor}_{arch}"));
            let older = match minor {
                17 => "manylinux2014",
                12 => "manylinux2010",
                5 => "manylinux1",
                _ => continue,
            };
            platforms.push(format!("{older}_{arch}"));
        }
        platforms.push(format!("linux_{arch}"));
        platforms
    }

    /// Which of these wheels of one version is the one that pip would take, by its place in the list.
    pub fn best(&self, wheels: &[WheelFilename]) -> Option<usize> {
        let tags = self.tags();
        let ranked = wheels.iter().enumerate().filter_map(|(index, one)| Some((one.rank(&tags)?, index)));
        ranked.min().map(|(_, index)| index)
    }
}

impl WheelFilename {
    /// How well the wheel fits a target with these tags, if it does at all.
    fn rank(&self, tags: &[String]) -> Option<Rank> {
        let has = |tag: &&str| -> bool {
            let mut parts = tag.splitn(3, '-');
            let mut one_of =
                |all: &[String]| parts.next().is_some_and(|part| all.iter().any(|one| one == part));
            one_of(&self.python) && one_of(&self.abi) && one_of(&self.platform)
        };
        let tag = tags.iter().position(|tag| has(&tag.as_str()))?;
        let build = self.build.as_deref().unwrap_or_default();
        let digits = build.len() - build.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, rest) = build.split_at(digits);
        Some(Rank { tag, build: Reverse((number.parse().unwrap_or(0), rest.to_owned())) })
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
    fn tags_are_in_the_order_of_the_packaging_library() {
        use sha2::{Digest, Sha256};
        let text = include_str!("../../../tests/fixtures/tags/tags.json");
        let expected: std::collections::BTreeMap<String, (usize, String)> =
            serde_json::from_str(text).unwrap();
        assert_eq!(expected.len(), 24);
        for (name, expected) in expected {
            let mut parts = name.splitn(3, '-');
            let mut next = || parts.next().unwrap();
            let target = Target {
                python_minor: next().parse().unwrap(),
                glibc: (2, next().parse().unwrap()),
                arch: next().into(),
            };
            let tags = target.tags();
            assert_eq!((tags.len(), hex::encode(Sha256::digest(tags.join("\n")))), expected, "{name}");
            for tag in tags {
                let wheel: WheelFilename = format!("a-1-{tag}.whl").parse().unwrap();
                assert!(wheel.allowed_on(&target).is_ok(), "{tag}");
            }
        }
    }

    #[test]
    fn the_best_wheel_is_the_one_that_pip_takes() {
        let target = Target { python_minor: 11, glibc: (2, 26), arch: "x86_64".into() };
        let best = |names: &[&str]| {
            let wheels: Vec<WheelFilename> = names.iter().map(|name| name.parse().unwrap()).collect();
            target.best(&wheels).map(|index| names[index].to_owned())
        };
        for (names, expected) in [
            (&["a-1-py3-none-any.whl", "a-1-cp311-cp311-manylinux2014_x86_64.whl"][..], Some(1)),
            (
                &["a-1-cp311-cp311-manylinux1_x86_64.whl", "a-1-cp311-cp311-manylinux_2_17_x86_64.whl"],
                Some(1),
            ),
            (&["a-1-cp37-abi3-manylinux2014_x86_64.whl", "a-1-cp39-abi3-manylinux2014_x86_64.whl"], Some(1)),
            (&["a-1-1-py3-none-any.whl", "a-1-10-py3-none-any.whl", "a-1-py3-none-any.whl"], Some(1)),
            (
                &["a-1-cp311-cp311-manylinux_2_28_x86_64.whl", "a-1-cp311-cp311-musllinux_1_1_x86_64.whl"],
                None,
            ),
            (&[], None),
        ] {
            assert_eq!(best(names), expected.map(|index| names[index].to_owned()), "{names:?}");
        }
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
