//! Whether artifacts have bytecode: the value of `bytecode` in `lbx.toml`.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

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
    schemars::json_schema!({ "enum": [false, true, ONLY] })
}

impl<'de> Deserialize<'de> for Bytecode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SwitchOrWord)
    }
}

struct SwitchOrWord;

impl Visitor<'_> for SwitchOrWord {
    type Value = Bytecode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`true`, `false` or \"{ONLY}\"")
    }

    fn visit_bool<E: de::Error>(self, switch: bool) -> Result<Self::Value, E> {
        Ok(if switch { Bytecode::With } else { Bytecode::Without })
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
        if word == ONLY {
            Ok(Bytecode::Only)
        } else {
            Err(E::invalid_value(de::Unexpected::Str(word), &self))
        }
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
