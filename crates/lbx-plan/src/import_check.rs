//! Whether handlers are imported after a build: the value of `import` in `[check]` of `lbx.toml`.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Whether handlers are imported after a build.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
#[schemars(schema_with = "schema")]
pub enum ImportCheck {
    /// In builds that need the image anyway: `"auto"`.
    #[default]
    Auto,
    /// In all builds, for which the image is fetched if need be: `true`.
    Always,
    /// In none: `false`.
    Never,
}

/// The word for [`ImportCheck::Auto`].
const AUTO: &str = "auto";

fn schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "enum": [AUTO, false, true] })
}

impl<'de> Deserialize<'de> for ImportCheck {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SwitchOrWord)
    }
}

struct SwitchOrWord;

impl Visitor<'_> for SwitchOrWord {
    type Value = ImportCheck;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`true`, `false` or \"{AUTO}\"")
    }

    fn visit_bool<E: de::Error>(self, switch: bool) -> Result<Self::Value, E> {
        Ok(if switch { ImportCheck::Always } else { ImportCheck::Never })
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
        let wrong = || E::invalid_value(de::Unexpected::Str(word), &self);
        if word == AUTO { Ok(ImportCheck::Auto) } else { Err(wrong()) }
    }
}
