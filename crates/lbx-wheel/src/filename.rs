//! Wheel file names (PEP 427; the packaging.python.org "binary distribution format" specification).

use std::fmt;
use std::str::FromStr;

use crate::WheelError;

/// `{name}-{version}(-{build})?-{python}-{abi}-{platform}.whl`, taken apart. The parts are as written; compare
/// names with [`normalize_name`](crate::normalize_name) and versions with [`same_version`](crate::same_version).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WheelFilename {
    /// The distribution's name, escaped: `-` is written `_`.
    pub name: String,
    /// The version, escaped the same way.
    pub version: String,
    /// The build tag; starts with a digit.
    pub build: Option<String>,
    /// The Python tags: `py2.py3` is two.
    pub python: Vec<String>,
    /// The ABI tags.
    pub abi: Vec<String>,
    /// The platform tags.
    pub platform: Vec<String>,
}

impl FromStr for WheelFilename {
    type Err = WheelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|what| WheelError::Filename { name: text.to_owned(), what })
    }
}

fn parse(text: &str) -> Result<WheelFilename, &'static str> {
    let stem = text.strip_suffix(".whl").ok_or("it does not end in .whl")?;
    let parts: Vec<&str> = stem.split('-').collect();
    let (name, version, build, tags) = match parts[..] {
        [name, version, ref tags @ ..] if tags.len() == 3 => (name, version, None, tags),
        [name, version, build, ref tags @ ..] if tags.len() == 3 => (name, version, Some(build), tags),
        _ => return Err("expected 5 or 6 parts separated by `-`"),
    };
    let word = |text: &str, more: &[char]| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._".contains(c) || more.contains(&c))
    };
    if !word(name, &[]) || !name.contains(|c: char| c.is_ascii_alphanumeric()) {
        return Err("the name has other characters than letters, digits, `.` and `_`");
    }
    if !word(version, &['+', '!']) || !version.contains(|c: char| c.is_ascii_digit()) {
        return Err("the version has characters that no version has");
    }
    if build.is_some_and(|build| !build.starts_with(|c: char| c.is_ascii_digit()) || !word(build, &[])) {
        return Err("the build tag does not start with a digit");
    }
    let set = |tags: &str| -> Result<Vec<String>, &'static str> {
        let tags: Vec<String> = tags.split('.').map(str::to_owned).collect();
        if tags.iter().all(|tag| word(tag, &[])) { Ok(tags) } else { Err("a tag is empty or malformed") }
    };
    Ok(WheelFilename {
        name: name.to_owned(),
        version: version.to_owned(),
        build: build.map(str::to_owned),
        python: set(tags[0])?,
        abi: set(tags[1])?,
        platform: set(tags[2])?,
    })
}

impl WheelFilename {
    /// The three tag sets as in the file name.
    pub fn tags(&self) -> String {
        format!("{}-{}-{}", self.python.join("."), self.abi.join("."), self.platform.join("."))
    }
}

impl fmt::Display for WheelFilename {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.name, self.version)?;
        if let Some(build) = &self.build {
            write!(f, "-{build}")?;
        }
        write!(f, "-{}.whl", self.tags())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_names_parse_and_print_back() {
        for text in [
            "six-1.17.0-py2.py3-none-any.whl",
            "numpy-2.2.6-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            "torch-2.3.0+cu121-cp311-cp311-linux_x86_64.whl",
            "foo_bar-1!2.0.post1-1build2-py3-none-any.whl",
            "zope.interface-6.0-cp311-cp311-manylinux1_x86_64.whl",
        ] {
            let name: WheelFilename = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
        }
        let name: WheelFilename = "foo_bar-1!2.0.post1-1build2-py2.py3-none-any.whl".parse().unwrap();
        assert_eq!(name.build.as_deref(), Some("1build2"));
        assert_eq!(name.python, ["py2", "py3"]);
    }

    #[test]
    fn what_is_not_a_wheel_name_is_refused() {
        for text in [
            "six-1.17.0.tar.gz",
            "six-1.17.0-py3-none-any.zip",
            "six-1.17.0-py3-none.whl",
            "six-1.17.0-x1-py3-none-any.whl",
            "a-b-1-1-py3-none-any.whl",
            "-1.0-py3-none-any.whl",
            "a--py3-none-any.whl",
            "a-1.0-py3..py2-none-any.whl",
            "a/b-1.0-py3-none-any.whl",
            "../a-1.0-py3-none-any.whl",
            "ä-1.0-py3-none-any.whl",
            "..-1.0-py3-none-any.whl",
        ] {
            assert!(matches!(text.parse::<WheelFilename>(), Err(WheelError::Filename { .. })), "{text}");
        }
    }
}
