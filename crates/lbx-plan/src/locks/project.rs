//! `pyproject.toml`: what a project asks for, as lines of a requirement file.

use std::str::FromStr;

use pep508_rs::{Requirement, VerbatimUrl};
use toml::Table;

use super::environment::one_line;
use super::{Environment, Text, normalized};
use crate::requirements::RequirementsError;

/// The dependencies of the project itself (PEP 621), a line each.
pub fn requirements(project: Text<'_>) -> Result<String, RequirementsError> {
    let table: Table = project.toml()?;
    let said = table.get("project").and_then(|project| project.as_table());
    let has_list = said.is_some_and(|said| said.get("dependencies").is_some_and(toml::Value::is_array));
    if !has_list {
        let is_dynamic = said
            .and_then(|said| said.get("dynamic")?.as_array())
            .is_some_and(|dynamic| dynamic.iter().any(|one| one.as_str() == Some("dependencies")));
        let tool = table.get("tool").and_then(toml::Value::as_table);
        let poetry = tool.is_some_and(|tool| tool.contains_key("poetry"));
        return Err(if is_dynamic {
            project.error(
                "its dependencies are `dynamic`: only a build of the project knows them",
                Some("name the requirement file that they come from, or a lock"),
            )
        } else if poetry {
            project.error(
                "its dependencies are written in Poetry's own way",
                Some("name `poetry.lock`, or move them to `[project] dependencies`"),
            )
        } else {
            project.error("it has no `dependencies` in `[project]`", None)
        });
    }
    let lines = dependencies(&table);
    for line in &lines {
        Requirement::<VerbatimUrl>::from_str(line)
            .map_err(|error| project.error(format!("`{line}`: {}", one_line(&error.message)), None))?;
    }
    Ok(lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect())
}

/// What `[project] dependencies` lists.
pub(super) fn dependencies(table: &Table) -> Vec<String> {
    let list = table.get("project").and_then(|project| project.get("dependencies")?.as_array());
    // A line break in one is white space; in a requirement file it would be another line.
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    list.into_iter().flatten().filter_map(|one| one.as_str().map(words)).collect()
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
