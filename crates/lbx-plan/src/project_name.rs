//! What a folder says that its project is called, without running anything of it.

use serde::Deserialize;

#[derive(Deserialize)]
struct Pyproject {
    project: Option<Named>,
    tool: Option<Tool>,
}

#[derive(Deserialize)]
struct Tool {
    poetry: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: Option<String>,
}

/// The name in the text of a `pyproject.toml`: that of `[project]`, or Poetry's own.
pub fn project_name(text: &str) -> Option<String> {
    let Pyproject { project, tool } = toml::from_str(text).ok()?;
    let named = |named: Option<Named>| named.and_then(|named| named.name);
    named(project).or_else(|| named(tool?.poetry))
}

/// The name in the text of a `setup.cfg`: that of `[metadata]`.
pub fn setup_name(text: &str) -> Option<String> {
    let mut here = false;
    for line in text.lines() {
        if line.starts_with('[') {
            here = line.trim() == "[metadata]";
        } else if let Some((key, value)) = line.split_once(['=', ':'])
            && here
            && key.trim() == "name"
        {
            return Some(value.trim().to_owned()).filter(|name| !name.is_empty());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_called_what_its_files_say() {
        let name = |text: &str| project_name(text);
        assert_eq!(
            name("[project]\nname = \"one\"\n[tool.poetry]\nname = \"two\"\n").as_deref(),
            Some("one")
        );
        assert_eq!(name("[tool.poetry]\nname = \"two\"\n").as_deref(), Some("two"));
        assert_eq!(name("[project]\ndynamic = [\"name\"]\n"), None);
        assert_eq!(name("[project]\nname = 1\n"), None);
        assert_eq!(name("[build-system]\nrequires = []\n"), None);
        let setup = "[options]\nname = wrong\n\n[metadata]\nversion = 1\nname=three \n";
        assert_eq!(setup_name(setup).as_deref(), Some("three"));
        assert_eq!(setup_name("[metadata]\nname =\n  x\n"), None);
    }
}
