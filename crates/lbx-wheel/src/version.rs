//! Whether two spellings mean one version (PEP 440). Ordering is pip's business.

use std::fmt::Write;

/// Whether `left` and `right` are the same version: equal under PEP 440, or, if one of them is not such a version,
/// equal but for letter case and for `-`, which file names write as `_`.
pub fn same_version(left: &str, right: &str) -> bool {
    match (canonical(left), canonical(right)) {
        (Some(left), Some(right)) => left == right,
        _ => left.replace('-', "_").eq_ignore_ascii_case(&right.replace('-', "_")),
    }
}

/// Names of pre-releases, and the short ones that they stand for; a name comes before its own beginnings.
const PRE: &[(&str, &str)] = &[
    ("alpha", "a"),
    ("a", "a"),
    ("beta", "b"),
    ("b", "b"),
    ("preview", "rc"),
    ("pre", "rc"),
    ("rc", "rc"),
    ("c", "rc"),
];

/// One spelling per version: without leading and trailing zeros, separators and long names.
fn canonical(version: &str) -> Option<String> {
    let lower = version.trim().to_ascii_lowercase();
    let (public, local) = match lower.split_once('+') {
        Some((_, "")) => return None,
        Some((public, local)) => (public, Some(local)),
        None => (lower.as_str(), None),
    };
    let public = public.strip_prefix('v').unwrap_or(public);
    let (epoch, rest) = match public.split_once('!') {
        Some((epoch, rest)) => (number(epoch)?, rest),
        None => ("0", public),
    };
    let mut scan = Scan { rest };
    let release = scan.release()?;
    let mut canonical = format!("{epoch}!{release}");
    if let Some((name, count)) = scan.part(PRE) {
        write!(canonical, "{name}{count}").ok()?;
    }
    if let Some(count) = scan.implicit_post() {
        write!(canonical, ".post{count}").ok()?;
    } else if let Some((_, count)) = scan.part(&[("post", ""), ("rev", ""), ("r", "")]) {
        write!(canonical, ".post{count}").ok()?;
    }
    if let Some((_, count)) = scan.part(&[("dev", "")]) {
        write!(canonical, ".dev{count}").ok()?;
    }
    if !scan.rest.is_empty() {
        return None;
    }
    if let Some(local) = local {
        canonical += &canonical_local(local)?;
    }
    Some(canonical)
}

/// `+` and the local segments, separated by dots.
fn canonical_local(local: &str) -> Option<String> {
    let mut canonical = String::new();
    for segment in local.split(['.', '-', '_']) {
        if segment.is_empty() || !segment.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        canonical.push(if canonical.is_empty() { '+' } else { '.' });
        canonical.push_str(number(segment).unwrap_or(segment));
    }
    Some(canonical)
}

/// The digits without leading zeros, if there is nothing but digits.
fn number(text: &str) -> Option<&str> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let trimmed = text.trim_start_matches('0');
    Some(if trimmed.is_empty() { "0" } else { trimmed })
}

struct Scan<'v> {
    rest: &'v str,
}

impl<'v> Scan<'v> {
    fn digits(&mut self) -> Option<&'v str> {
        let end = self.rest.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let found = number(digits)?;
        self.rest = rest;
        Some(found)
    }

    /// `1.2.0` as `1.2`.
    fn release(&mut self) -> Option<String> {
        let mut parts = vec![self.digits()?];
        while let Some(rest) = self.rest.strip_prefix('.') {
            let mut ahead = Scan { rest };
            let Some(part) = ahead.digits() else { break };
            parts.push(part);
            self.rest = ahead.rest;
        }
        while parts.len() > 1 && parts.last() == Some(&"0") {
            parts.pop();
        }
        Some(parts.join("."))
    }

    /// A separator, one of the names, a separator, a number; all but the name may be missing.
    fn part(&mut self, names: &[(&str, &'static str)]) -> Option<(&'static str, &'v str)> {
        let separator = ['.', '-', '_'];
        let start = self.rest.strip_prefix(separator).unwrap_or(self.rest);
        let (rest, name) =
            names.iter().find_map(|(long, short)| start.strip_prefix(long).map(|rest| (rest, *short)))?;
        let mut ahead = Scan { rest: rest.strip_prefix(separator).unwrap_or(rest) };
        let count = ahead.digits();
        self.rest = if count.is_some() { ahead.rest } else { rest };
        Some((name, count.unwrap_or("0")))
    }

    /// `1.0-1` is `1.0.post1`; in a file name it is `1.0_1`.
    fn implicit_post(&mut self) -> Option<&'v str> {
        let mut ahead = Scan { rest: self.rest.strip_prefix(['-', '_'])? };
        let count = ahead.digits()?;
        self.rest = ahead.rest;
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::same_version;

    #[test]
    fn spellings_of_one_version_are_the_same() {
        for (left, right) in [
            ("1.0", "1.0.0"),
            ("1.0", "v1"),
            ("1.0", "0!1.0"),
            ("1.0rc1", "1.0.RC-1"),
            ("1.0a0", "1.0alpha"),
            ("1.0b2", "1.0-beta.2"),
            ("1.0rc1", "1.0c1"),
            ("1.0rc1", "1.0preview1"),
            ("1.0.post1", "1.0-1"),
            ("1.0.post1", "1.0_post1"),
            ("1.0.post1", "1.0r1"),
            ("1.0.dev3", "1.0dev03"),
            ("1.0+ubuntu.1", "1.0+Ubuntu_01"),
            ("2.9.0.post0", "2.9.post"),
            ("2004d", "2004D"),
            ("not-a-version", "not_a_version"),
        ] {
            assert!(same_version(left, right), "{left} {right}");
        }
    }

    #[test]
    fn different_versions_differ() {
        for (left, right) in [
            ("1.0", "1.1"),
            ("1.0", "10"),
            ("1.0", "1.0.post0"),
            ("1.0", "1.0.dev0"),
            ("1.0a1", "1.0b1"),
            ("1.0", "1!1.0"),
            ("1.0", "1.0+a"),
            ("1.0+a", "1.0+b"),
            ("1.0", "1.0x"),
            ("x", "y"),
        ] {
            assert!(!same_version(left, right), "{left} {right}");
        }
    }
}
