//! `lbx explain`: why something is in a zip or is not, and how large it is.

use lbx_build::{Destination, Explained, Explanation, Explanations, Fate, Files, Size, bytes};
use lbx_plan::Plan;
use lbx_plan::prune::Rule;
use serde_json::json;

use super::{cache_dir, project};
use crate::arguments::{Arguments, Explain, What};
use crate::environment::Environment;
use crate::exit;
use crate::failure::Failure;
use crate::render::{Output, count, printable};

/// Looks for it in the zips of the last build, and says what is to be said.
pub(crate) fn run(arguments: &Arguments, explain: &Explain, environment: &Environment) -> u8 {
    let output = Output::new(arguments);
    match try_run(&output, explain, environment) {
        Ok(()) => exit::SUCCESS,
        Err(failure) => output.failure(&failure),
    }
}

fn try_run(output: &Output, explain: &Explain, environment: &Environment) -> Result<(), Failure> {
    let place = &explain.place;
    let what = What { names: explain.within.clone(), layer: false, requirements: Vec::new() };
    let project = project::of(output, &what, place, explain.output.as_deref(), environment)?;
    let architectures = project::architectures(&project, place);
    let several = architectures.len() > 1;
    let mut all = Explanations::default();
    let mut names = Vec::new();
    for arch in architectures {
        let overrides = project::overrides(place, &explain.within, Some(arch));
        let plan = Plan::new(&project.config, &project.files, &overrides).map_err(lbx_build::Error::from)?;
        let destination = match (&explain.output, &explain.out_dir) {
            (Some(file), _) => Destination::File(environment.current_dir.join(file)),
            (None, Some(folder)) => Destination::Folder(environment.current_dir.join(folder)),
            (None, None) => Destination::Folder(project.root.join("dist")),
        };
        let destination = match destination {
            Destination::Folder(folder) if several => Destination::Folder(folder.join(arch.lambda())),
            other => other,
        };
        names.extend(plan.artifacts.iter().map(|artifact| artifact.name.clone()));
        let asked = explain.what.as_str();
        let Explanations { mut found, packages } =
            lbx_build::explain(&project, &plan, &destination, &cache_dir(environment)?, asked)?;
        if several {
            for one in &mut found {
                one.artifact = format!("{} for {}", one.artifact, arch.lambda());
            }
        }
        all.found.extend(found);
        all.packages.extend(packages);
    }
    if all.found.is_empty() {
        return Err(nothing(&explain.what, &names, &all));
    }
    output.json(&json!({"reason": "explained", "asked": explain.what, "found": all.found}));
    for line in all.found.iter().flat_map(lines) {
        output.result(&printable(&line));
    }
    Ok(())
}

fn nothing(asked: &str, names: &[String], all: &Explanations) -> Failure {
    let message = format!("{} has no package and no file `{asked}`", names.join(", "));
    let meant = lbx_plan::nearest(asked, all.packages.iter().map(String::as_str));
    let hint = meant.map_or_else(
        || "paths are those of the zip, such as pkg/module.py, or of the project".to_owned(),
        |name| format!("did you mean `{name}`?"),
    );
    Failure::new(exit::USAGE, message, Some(hint))
}

fn lines(explanation: &Explanation) -> Vec<String> {
    let Explanation { artifact, what } = explanation;
    match what {
        Explained::Package { name, version, required_by, files } => {
            let mut lines = vec![format!("{name} {version} in {artifact}: {}", size(files.kept))];
            lines.extend((!required_by.is_empty()).then(|| format!("  for {}", required_by.join(", "))));
            lines.extend(of_files(files));
            lines
        }
        Explained::Folder { path, owners, files } => {
            let mut lines = vec![format!("{path}/ in {artifact}: {}", size(files.kept))];
            lines.push(format!("  of {}", owners.join(", ")));
            lines.extend(of_files(files));
            lines
        }
        Explained::File { path, owner, size, fate } => {
            let is_in = if matches!(fate, Fate::LeftOut { .. }) { "is not in" } else { "is in" };
            let packed = if size.packed > 0 && is_in == "is in" {
                format!(", {} in the zip", bytes(size.packed))
            } else {
                String::new()
            };
            let mut lines =
                vec![format!("{path} {is_in} {artifact}: of {owner}, {}{packed}", bytes(size.unpacked))];
            lines.extend(of_fate(fate));
            lines
        }
    }
}

fn size(size: Size) -> String {
    let Size { files, unpacked, packed } = size;
    format!("{}, {}, {} in the zip", count(files, "file"), bytes(unpacked), bytes(packed))
}

fn of_files(files: &Files) -> Vec<String> {
    let mut lines = Vec::new();
    if !files.largest.is_empty() {
        let largest: Vec<String> =
            files.largest.iter().map(|(path, size)| format!("{path} {}", bytes(*size))).collect();
        lines.push(format!("  largest: {}", largest.join(", ")));
    }
    for (rule, size) in &files.left_out {
        let (number, because) = (count(size.files, "file"), rule.data().why);
        lines.push(format!("  left out by `{rule}`: {number}, {}: {because}", bytes(size.unpacked)));
    }
    for (set, size) in &files.offered {
        let (number, set) = (count(size.files, "file"), set.name());
        lines.push(format!(
            "  `[prune] sets = [\"{set}\"]` would leave out {number}, {}",
            bytes(size.unpacked)
        ));
    }
    lines
}

fn of_fate(fate: &Fate) -> Vec<String> {
    match fate {
        Fate::LeftOut { rule, pattern: Some(pattern) } => {
            vec![format!("  left out by `{rule}`: your own `exclude` has `{pattern}`")]
        }
        Fate::LeftOut { rule, pattern: None } => of_rule(*rule),
        Fate::Bytecode { module } => vec![format!("  compiled from {module}")],
        Fate::Kept { spared, offered } => {
            let spared =
                spared.iter().map(|(rule, why)| format!("  `{rule}` is about it, and spares it: {why}"));
            let offered = offered
                .iter()
                .map(|set| format!("  `[prune] sets = [\"{}\"]` would leave it out", set.name()));
            spared.chain(offered).collect()
        }
    }
}

fn of_rule(rule: Rule) -> Vec<String> {
    let data = rule.data();
    vec![
        format!("  left out by `{rule}`, because {}", data.why),
        format!("  it takes {}", data.matches),
        "  to keep it: a pattern in `[prune] keep`".to_owned(),
    ]
}
