//! What a build came to, in a few lines: sizes, the largest packages, what rules have left out, what was done already, and how
//! long it took.

use std::cmp::Reverse;

use lbx_build::{ArtifactReport, Measured, Report, Reuse};

use super::{bytes, count, printable};

/// How many artifacts have lines of their own.
const SHOWN: usize = 5;
/// How many packages, and how many rules, are named of each.
const NAMED: usize = 3;

/// The lines.
pub(crate) fn lines(report: &Report) -> Vec<String> {
    let mut lines = table(&report.stable.artifacts);
    lines.extend(measured(&report.measured));
    lines
}

fn table(artifacts: &[ArtifactReport]) -> Vec<String> {
    let mut shown: Vec<&ArtifactReport> = artifacts.iter().collect();
    let others = if shown.len() > SHOWN {
        shown.sort_by_key(|artifact| (Reverse(artifact.unpacked_size), &artifact.name));
        shown.split_off(SHOWN)
    } else {
        Vec::new()
    };
    let mut rows = vec![Row::new("zipped".to_owned(), "unpacked".to_owned(), String::new())];
    for artifact in shown {
        let sizes = (bytes(artifact.size), bytes(artifact.unpacked_size));
        rows.push(Row::new(sizes.0, sizes.1, printable(&artifact.name)));
        rows.extend(details(artifact).into_iter().map(|text| Row::new(String::new(), String::new(), text)));
    }
    if !others.is_empty() {
        let sum = |size: fn(&ArtifactReport) -> u64| bytes(others.iter().map(|one| size(one)).sum());
        let (zipped, unpacked) = (sum(|one| one.size), sum(|one| one.unpacked_size));
        rows.push(Row::new(zipped, unpacked, format!("in {} more", others.len())));
    }
    let width = |cell: fn(&Row) -> &str| rows.iter().map(|row| cell(row).len()).max().unwrap_or_default();
    let (zipped, unpacked) = (width(|row| &row.zipped), width(|row| &row.unpacked));
    let text = |row: &Row| format!("  {:>zipped$}  {:>unpacked$}  {}", row.zipped, row.unpacked, row.text);
    rows.iter().map(|row| text(row).trim_end().to_owned()).collect()
}

struct Row {
    zipped: String,
    unpacked: String,
    text: String,
}

impl Row {
    fn new(zipped: String, unpacked: String, text: String) -> Self {
        Self { zipped, unpacked, text }
    }
}

/// The largest of what is in an artifact, where there is more than one thing, and of what is not.
fn details(artifact: &ArtifactReport) -> Vec<String> {
    let own = ("own files".to_owned(), artifact.own.size);
    let wheels = artifact.wheels.iter().map(|wheel| (printable(&wheel.name), wheel.kept.size));
    let inside = largest(wheels.chain([own]).collect());
    let rules = artifact.left_out_by_rule.iter().map(|(rule, sum)| (rule.name().to_owned(), sum.size));
    let outside = largest(rules.collect());
    let mut lines = Vec::new();
    if !artifact.wheels.is_empty() {
        lines.push(format!("  largest: {inside}"));
    }
    if !outside.is_empty() {
        lines.push(format!("  left out: {outside}"));
    }
    lines
}

/// The largest of them with their sizes, and what the others come to.
fn largest(mut all: Vec<(String, u64)>) -> String {
    all.retain(|(_, size)| *size > 0);
    all.sort_by_key(|(name, size)| (Reverse(*size), name.clone()));
    let others = all.split_off(all.len().min(NAMED));
    let mut texts: Vec<String> = all.iter().map(|(name, size)| format!("{name} {}", bytes(*size))).collect();
    if !others.is_empty() {
        let size = others.iter().map(|(_, size)| size).sum();
        texts.push(format!("{} more {}", others.len(), bytes(size)));
    }
    texts.join(", ")
}

fn measured(measured: &Measured) -> Vec<String> {
    let seconds = measured.seconds;
    let stages = [
        ("prepare", seconds.prepare),
        ("image", seconds.image),
        ("resolve", seconds.resolve),
        ("package", seconds.package),
        ("check", seconds.check),
    ];
    // What is nothing beside the whole explains nothing.
    let stages = stages.iter().filter(|(_, time)| *time >= 0.01 && *time * 50.0 >= seconds.total);
    let stages: Vec<String> = stages.map(|(stage, time)| format!("{stage} {time:.2}")).collect();
    let stages = if stages.is_empty() { String::new() } else { format!(": {}", stages.join(", ")) };
    let cache = measured.cache;
    let reused: Vec<String> = [("wheel", cache.wheels), ("part", cache.parts), ("own file", cache.files)]
        .into_iter()
        .filter(|(_, reuse)| reuse.all() > 0)
        .map(|(noun, reuse): (_, Reuse)| format!("{} of {}", reuse.reused, count(reuse.all(), noun)))
        .collect();
    let mut lines = vec![format!("took {:.2} s{stages}", seconds.total)];
    if !reused.is_empty() {
        lines.push(format!("reused {}", reused.join(", ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lbx_build::{CacheReport, Seconds, Stable, Sum, WheelReport};
    use lbx_plan::Kind;
    use lbx_plan::prune::Rule;

    use super::*;

    fn wheel(name: &str, size: u64) -> WheelReport {
        let (version, sha256) = ("1".to_owned(), String::new());
        let kept = Sum { files: 1, size };
        let file = String::new();
        WheelReport { name: name.to_owned(), version, file, sha256, kept, packed_size: size / 2 }
    }

    fn artifact(name: &str, size: u64) -> ArtifactReport {
        ArtifactReport {
            name: name.to_owned(),
            kind: Kind::Function,
            file: format!("{name}.zip"),
            size,
            sha256: String::new(),
            code_sha256: String::new(),
            files: 3,
            unpacked_size: 3 * size,
            own: Sum { files: 1, size: 10 },
            own_packed_size: 5,
            handler: None,
            layers: Vec::new(),
            wheels: Vec::new(),
            left_out: Vec::new(),
            left_out_by_rule: BTreeMap::new(),
            runtime_provided: None,
            findings: Vec::new(),
        }
    }

    fn report(artifacts: Vec<ArtifactReport>) -> Report {
        let runtime = "python3.11".to_owned();
        let stable = Stable {
            lbx: "1",
            runtime,
            arch: "x86_64",
            image: None,
            compressor: "none",
            dependencies: Vec::new(),
            artifacts,
        };
        let seconds =
            Seconds { prepare: 0.001, resolve: 0.104, package: 0.2, total: 0.31, ..Seconds::default() };
        let wheels = Reuse { reused: 22, made: 1 };
        let cache = CacheReport { wheels, parts: Reuse { reused: 1, made: 0 }, files: Reuse::default() };
        Report { version: 1, stable, measured: Measured { sandbox: None, seconds, cache } }
    }

    #[test]
    fn an_artifact_has_its_sizes_what_is_largest_in_it_and_what_is_left_out() {
        let mut api = artifact("api", 5000);
        api.wheels = ["a", "b", "c\u{1b}[2J", "d"]
            .into_iter()
            .zip([7, 9000, 400, 3])
            .map(|(name, size)| wheel(name, size))
            .collect();
        let sum = |size| Sum { files: 1, size };
        api.left_out_by_rule = BTreeMap::from([(Rule::Tests, sum(12_000)), (Rule::Docs, sum(0))]);
        let expected = [
            "  zipped  unpacked",
            "  5.0 kB   15.0 kB  api",
            "                      largest: b 9.0 kB, c\\u{1b}[2J 400 B, own files 10 B, 2 more 10 B",
            "                      left out: tests 12.0 kB",
            "took 0.31 s: resolve 0.10, package 0.20",
            "reused 22 of 23 wheels, 1 of 1 part",
        ];
        assert_eq!(lines(&report(vec![api])), expected);
    }

    #[test]
    fn many_artifacts_are_the_largest_ones_and_a_sum() {
        let all = (1..=300).map(|number| artifact(&format!("f{number:03}"), number * 1000)).collect();
        let lines = lines(&report(all));
        assert_eq!(lines.len(), 9, "{lines:#?}");
        assert_eq!(lines[1], "  300.0 kB  900.0 kB  f300");
        assert_eq!(lines[6], "   43.7 MB  131.0 MB  in 295 more");
    }
}
