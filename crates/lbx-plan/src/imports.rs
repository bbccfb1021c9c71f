//! Whether handlers are imported to see whether they can be: the values that `import` of `[check]` takes.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::switch::Switch;

/// Whether the handlers of functions are imported after a build.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
#[schemars(schema_with = "schema")]
pub enum Imports {
    /// Where the build has opened the image for something else: `"auto"`.
    #[default]
    Auto,
    /// Always, and the image is opened for it: `true`.
    Always,
    /// Never: `false`.
    Never,
}

/// The word for [`Imports::Auto`].
const AUTO: &str = "auto";

fn schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    Switch::schema(AUTO)
}

impl<'de> Deserialize<'de> for Imports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Switch::read(deserializer, AUTO)? {
            Switch::Is(true) => Self::Always,
            Switch::Is(false) => Self::Never,
            Switch::Word => Self::Auto,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn imports(check: &str) -> Result<Imports, String> {
        let text = format!("[project]\nruntime = \"python3.11\"\n{check}");
        let config = Config::parse("lbx.toml", &text).map_err(|error| error.to_string())?;
        Ok(config.check.import)
    }

    #[test]
    fn it_is_a_switch_or_left_to_the_build() {
        assert_eq!(imports(""), Ok(Imports::Auto));
        assert_eq!(imports("[check]\n"), Ok(Imports::Auto));
        assert_eq!(imports("[check]\nimport = \"auto\"\n"), Ok(Imports::Auto));
        assert_eq!(imports("[check]\nimport = true\n"), Ok(Imports::Always));
        assert_eq!(imports("[check]\nimport = false\n"), Ok(Imports::Never));
        let wrong = imports("[check]\nimport = \"yes\"\n").unwrap_err();
        assert!(wrong.contains("expected `true`, `false` or \"auto\""), "{wrong}");
    }
}
