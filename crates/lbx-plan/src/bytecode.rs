//! Whether artifacts have bytecode: the value of `bytecode` in `lbx.toml`.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::switch::Switch;

/// Whether an artifact has the bytecode of its modules.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
#[schemars(schema_with = "schema")]
pub enum Bytecode {
    /// It has sources alone, and each start of a function compiles what it imports.
    #[default]
    Without,
    /// It has both: `true`.
    With,
    /// It has bytecode in place of the sources that compile: `"only"`.
    Only,
}

/// The word for [`Bytecode::Only`].
const ONLY: &str = "only";

fn schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    Switch::schema(ONLY)
}

impl<'de> Deserialize<'de> for Bytecode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Switch::read(deserializer, ONLY)? {
            Switch::Is(true) => Self::With,
            Switch::Is(false) => Self::Without,
            Switch::Word => Self::Only,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Overrides, Plan, RequirementFiles};

    fn plan(project: &str, function: &str) -> Result<Vec<Bytecode>, String> {
        let text = format!(
            "[project]\nruntime='python3.11'\n{project}\n[functions.a]\nsource='a'\n{function}\n[layers.b]\nsource='b'\n"
        );
        let config = Config::parse("lbx.toml", &text).map_err(|error| error.to_string())?;
        let plan = Plan::new(&config, &RequirementFiles::default(), &Overrides::default()).unwrap();
        Ok(plan.artifacts.iter().map(|artifact| artifact.bytecode).collect())
    }

    #[test]
    fn an_artifact_says_it_in_place_of_the_project() {
        use Bytecode::{Only, With, Without};
        assert_eq!(plan("", "").unwrap(), [Without, Without]);
        assert_eq!(plan("bytecode = true", "").unwrap(), [With, With]);
        assert_eq!(plan("bytecode = true", "bytecode = 'only'").unwrap(), [Only, With]);
        assert_eq!(plan("bytecode = 'only'", "bytecode = false").unwrap(), [Without, Only]);
    }

    #[test]
    fn anything_else_is_an_error_with_its_place() {
        let expected = "lbx.toml:3:12: invalid value: string \"yes\", expected `true`, `false` or \"only\"";
        assert_eq!(plan("bytecode = 'yes'", "").unwrap_err(), expected);
        assert!(plan("bytecode = 1", "").unwrap_err().starts_with("lbx.toml:3:12: invalid type: integer"));
    }
}
