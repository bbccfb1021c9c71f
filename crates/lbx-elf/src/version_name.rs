//! The order of symbol versions: GLIBC_2.17 is older than GLIBC_2.34, and neither is older than GLIBCXX_3.4.

use std::cmp::Ordering;
use std::fmt;

/// A symbol version that has a place among others of its family, such as `GLIBC_2.34`.
///
/// Two of different families have no order: comparing them gives `None`, so that `<` and `>` are both false.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VersionName {
    /// What comes before the underscore: `GLIBC`.
    pub family: String,
    /// The numbers after it: `[2, 34]`. Never empty.
    pub numbers: Vec<u32>,
}

impl VersionName {
    /// Reads a version's name. `None` if it has no order: a private version (`GLIBC_PRIVATE`), the name of a
    /// feature (`CXXABI_FLOAT128`), or a family within a family (`CXXABI_TM_1`, `OPENSSL_1_1_0`).
    pub fn parse(name: &str) -> Option<Self> {
        let (family, numbers) = name.split_once('_')?;
        let is_word = family.starts_with(|first: char| first.is_ascii_alphabetic())
            && family.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_word {
            return None;
        }
        let numbers: Option<Vec<u32>> = numbers.split('.').map(number).collect();
        Some(Self { family: family.to_owned(), numbers: numbers? })
    }
}

/// A decimal number without sign and leading zeros, so that one version has one name.
fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

impl PartialOrd for VersionName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.family == other.family).then(|| self.numbers.cmp(&other.numbers))
    }
}

impl fmt::Display for VersionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.family)?;
        for (at, number) in self.numbers.iter().enumerate() {
            write!(formatter, "{}{number}", if at == 0 { '_' } else { '.' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(name: &str) -> VersionName {
        VersionName::parse(name).unwrap_or_else(|| panic!("{name} has no order"))
    }

    #[test]
    fn versions_of_a_family_are_ordered_by_number() {
        let glibc = ["GLIBC_2.0", "GLIBC_2.2", "GLIBC_2.2.5", "GLIBC_2.3", "GLIBC_2.17", "GLIBC_2.34"];
        let others = [
            ["GLIBCXX_3.4", "GLIBCXX_3.4.9", "GLIBCXX_3.4.29"],
            ["CXXABI_1.3", "CXXABI_1.3.9", "CXXABI_1.3.13"],
            ["GCC_3.0", "GCC_4.7.0", "GCC_12.0.0"],
            ["GFORTRAN_1.4", "GFORTRAN_8", "GFORTRAN_10"],
        ];
        for family in [&glibc[..]].into_iter().chain(others.iter().map(|family| &family[..])) {
            for (at, one) in family.iter().enumerate() {
                for (other_at, other) in family.iter().enumerate() {
                    assert_eq!(version(one).partial_cmp(&version(other)), Some(at.cmp(&other_at)));
                }
            }
        }
    }

    #[test]
    fn versions_of_two_families_have_no_order() {
        let (one, other) = (version("GLIBC_2.17"), version("GLIBCXX_3.4"));
        assert_eq!(one.partial_cmp(&other), None);
        assert_eq!([one < other, one > other, one == other], [false; 3]);
    }

    #[test]
    fn names_that_are_not_numbers_have_no_order() {
        let names = [
            "CXXABI_TM_1",
            "CXXABI_FLOAT128",
            "CXXABI_LDBL_1.3",
            "GLIBC_PRIVATE",
            "GLIBC_ABI_DT_RELR",
            "OPENSSL_1_1_0",
            "OPENSSL_1_1_0d",
            "GLIBC_",
            "GLIBC_2.",
            "GLIBC_.2",
            "GLIBC_2..3",
            "GLIBC_+2",
            "GLIBC_2.017",
            "GLIBC_99999999999",
            "GLIBC",
            "_2.17",
            "2_17",
            "",
        ];
        for name in names {
            assert_eq!(VersionName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_version_is_shown_as_it_was_read() {
        for name in ["GLIBC_2.2.5", "GFORTRAN_8", "LIBXML2_2.4.30"] {
            assert_eq!(version(name).to_string(), name);
        }
    }
}
