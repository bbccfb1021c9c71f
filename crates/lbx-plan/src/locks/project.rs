//! `pyproject.toml`: what a project asks for, as lines of a requirement file.

use std::str::FromStr;

use pep508_rs::{Requirement, VerbatimUrl};
use toml::Table;

use super::environment::one_line;
use super::{Environment, Text, normalized};
use crate::requirements::RequirementsError;

/// What the project needs, and what the extras and groups that are wanted of it need, a line each.
pub fn requirements(project: Text<'_>) -> Result<String, RequirementsError> {
    let table: Table = project.toml()?;
    let selection = project.selection();
    let said = table.get("project").and_then(|project| project.as_table());
    let has_list = said.is_some_and(|said| said.get("dependencies").is_some_and(toml::Value::is_array));
    // Groups need no project.
    if !has_list && (said.is_some() || selection.groups.is_empty()) {
        return Err(no_list(&project, &table));
    }
    let mut lines = dependencies(&table);
    for extra in &selection.extras {
        lines.extend(of_extra(&project, said, extra)?);
    }
    for group in &selection.groups {
        lines.extend(of_group(&project, &table, group, &mut Vec::new())?);
    }
    for line in &lines {
        Requirement::<VerbatimUrl>::from_str(line)
            .map_err(|error| project.error(format!("`{line}`: {}", one_line(&error.message)), None))?;
    }
    Ok(lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect())
}

fn no_list(project: &Text<'_>, table: &Table) -> RequirementsError {
    let said = table.get("project").and_then(|project| project.as_table());
    let is_dynamic = said
        .and_then(|said| said.get("dynamic")?.as_array())
        .is_some_and(|dynamic| dynamic.iter().any(|one| one.as_str() == Some("dependencies")));
    let tool = table.get("tool").and_then(toml::Value::as_table);
    if is_dynamic {
        project.error(
            "its dependencies are `dynamic`: only a build of the project knows them",
            Some("name the requirement file that they come from, or a lock"),
        )
    } else if tool.is_some_and(|tool| tool.contains_key("poetry")) {
        project.error(
            "its dependencies are written in Poetry's own way",
            Some("name `poetry.lock`, or move them to `[project] dependencies`"),
        )
    } else {
        project.error("it has no `dependencies` in `[project]`", None)
    }
}

fn of_extra(project: &Text<'_>, said: Option<&Table>, extra: &str) -> Result<Vec<String>, RequirementsError> {
    let all = said.and_then(|said| said.get("optional-dependencies")?.as_table());
    let found = all.into_iter().flatten().find(|(name, _)| normalized(name) == extra);
    let known = || all.into_iter().flatten().map(|(name, _)| name.clone());
    let (_, list) = found.ok_or_else(|| project.none("extra", extra, known()))?;
    Ok(strings(list))
}

/// A group (PEP 735), which may include others; `within` are those that include it.
fn of_group(
    project: &Text<'_>,
    table: &Table,
    group: &str,
    within: &mut Vec<String>,
) -> Result<Vec<String>, RequirementsError> {
    let all = table.get("dependency-groups").and_then(toml::Value::as_table);
    let found = all.into_iter().flatten().find(|(name, _)| normalized(name) == group);
    let known = || all.into_iter().flatten().map(|(name, _)| name.clone());
    let (_, list) = found.ok_or_else(|| project.none("group", group, known()))?;
    if within.iter().any(|outer| outer == group) {
        return Err(project.error(format!("the group `{group}` includes itself"), None));
    }
    within.push(group.to_owned());
    let mut lines = Vec::new();
    for one in list.as_array().into_iter().flatten() {
        match one.get("include-group").and_then(toml::Value::as_str) {
            Some(inner) => lines.extend(of_group(project, table, &normalized(inner), within)?),
            None => lines.extend(one.as_str().map(words)),
        }
    }
    within.pop();
    Ok(lines)
}

fn strings(list: &toml::Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(words)).collect()
}

/// A line break in a requirement is white space; in a requirement file it would be another line.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What `[project] dependencies` lists.
pub(super) fn dependencies(table: &Table) -> Vec<String> {
    let list = table.get("project").and_then(|project| project.get("dependencies"));
    list.map(strings).unwrap_or_default()
}

/// The name and extras that a requirement asks for, if it holds for the target.
pub(super) fn asked(
    requirement: &str,
    environment: &Environment,
) -> Result<Option<(String, Vec<String>)>, String> {
    let parsed = Requirement::<VerbatimUrl>::from_str(requirement)
        .map_err(|error| format!("`{requirement}`: {}", one_line(&error.message)))?;
    let extras = parsed.extras.iter().map(ToString::to_string).collect();
    let holds = environment.tree_holds(&parsed.marker, &[]);
    Ok(holds.then(|| (normalized(parsed.name.as_ref()), extras)))
}
