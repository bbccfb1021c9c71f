//! Lambda's limits on sizes and layers. Source: the quotas of its documentation.

use super::{Check, Finding, Severity, Subject, largest};
use crate::limits::bytes;

/// The most bytes of a zip that Lambda takes from its caller; larger ones have to be in S3.
const ZIPPED: u64 = 52_428_800;
/// The most bytes of a function with all its layers, once unpacked.
const UNZIPPED: u64 = 262_144_000;
/// The most layers of a function.
const LAYERS: usize = 5;
/// How many contributors are named.
const NAMED: usize = 5;

pub(super) fn check(subject: &Subject<'_>, layers: &[&Subject<'_>]) -> Vec<Finding> {
    // A layer has those beside it that a function has, and is judged by its own size.
    let layers = if subject.is_layer { &[][..] } else { layers };
    let mut found = Vec::new();
    if layers.len() > LAYERS {
        let message = format!("{} layers, and Lambda takes {LAYERS}", layers.len());
        found.push(Finding::new(Severity::Error, Check::Limits, message));
    }
    if let Some(size) = subject.zip_size.filter(|size| *size > ZIPPED) {
        let message =
            format!("the zip has {}, and Lambda takes {} without S3", exactly(size), exactly(ZIPPED));
        let hint = format!("upload it to S3 first, or make it smaller: {}", advice(subject));
        found.push(Finding::new(Severity::Warning, Check::Limits, message).with_hint(hint));
    }
    let own = subject.size();
    let total = own + layers.iter().map(|layer| layer.size()).sum::<u64>();
    // A layer is judged alone only where it is too large for any function.
    if total > UNZIPPED {
        let with_layers = if layers.is_empty() {
            String::new()
        } else {
            let named = layers.iter().map(|layer| format!("{} {}", layer.name, bytes(layer.size())));
            format!(" with its layers ({})", named.collect::<Vec<_>>().join(", "))
        };
        let message =
            format!("{} unpacked{with_layers}, and Lambda takes {}", exactly(total), exactly(UNZIPPED));
        found.push(Finding::new(Severity::Error, Check::Limits, message).with_hint(advice(subject)));
    }
    found
}

/// Bytes as Lambda counts them, and for people.
fn exactly(size: u64) -> String {
    format!("{size} bytes ({})", bytes(size))
}

/// What is large, and what can be left out by a word.
fn advice(subject: &Subject<'_>) -> String {
    let owners = largest(subject.files.iter().map(|file| (file.owner, file.size)));
    let named = |(name, size): &(&str, u64)| format!("{name} {}", bytes(*size));
    let mut text =
        format!("largest: {}", owners.iter().take(NAMED).map(named).collect::<Vec<_>>().join(", "));
    let sets = subject.files.iter().filter_map(|file| Some((file.offered?.name(), file.size)));
    let sets = largest(sets);
    if !sets.is_empty() {
        let saved = sets.iter().map(|(name, size)| format!("\"{name}\" saves {}", bytes(*size)));
        text = format!("{text}; in `[prune] sets`, {}", saved.collect::<Vec<_>>().join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use lbx_plan::prune::Set;

    use super::super::File;
    use super::*;

    fn file<'f>(path: &'f str, owner: &'f str, size: u64, offered: Option<Set>) -> File<'f> {
        File { path, owner, own: false, size, mode: None, offered, facts: None }
    }

    fn subject(name: &'static str, zip_size: u64, files: Vec<File<'static>>) -> Subject<'static> {
        Subject { name, zip_size: Some(zip_size), is_layer: false, files, names: Vec::new() }
    }

    #[test]
    fn an_artifact_at_the_limits_is_fine() {
        let fits = subject("f", ZIPPED, vec![file("a", "a 1", UNZIPPED - 1, None)]);
        let layer = subject("l", 1, vec![file("b", "b 1", 1, None)]);
        assert_eq!(check(&fits, &[&layer]), []);
    }

    #[test]
    fn all_that_is_too_large_is_said_together_with_what_is_largest_and_what_rules_save() {
        let files = vec![
            file("a", "a 1", 200_000_000, None),
            file("b/tests/x", "b 2", 60_000_000, Some(Set::Tests)),
            file("c", "c 3", 2_000_000, None),
        ];
        let large = subject("f", ZIPPED + 1, files);
        let layer = subject("l", 1, vec![file("d", "d 1", 300_000, None)]);
        let layers = [&layer; 6];
        let found = check(&large, &layers);
        let messages: Vec<&str> = found.iter().map(|one| one.message.as_str()).collect();
        assert_eq!(messages[0], "6 layers, and Lambda takes 5");
        assert!(messages[1].starts_with("the zip has 52428801 bytes"), "{messages:?}");
        assert!(messages[2].contains("263800000 bytes") && messages[2].contains("262144000"), "{messages:?}");
        let hint = found[2].hint.as_ref().unwrap();
        assert!(hint.starts_with("largest: a 1 200.0 MB, b 2 60.0 MB"), "{hint}");
        assert!(hint.ends_with("\"tests\" saves 60.0 MB"), "{hint}");
    }
}
