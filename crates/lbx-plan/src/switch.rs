//! Values of `lbx.toml` that are `true`, `false`, or one word.

use std::fmt;

use serde::Deserializer;
use serde::de::{self, Visitor};

/// What such a value says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    /// On or off.
    Is(bool),
    /// The word.
    Word,
}

impl Switch {
    /// Reads one whose word is `word`.
    pub(crate) fn read<'de, D: Deserializer<'de>>(
        deserializer: D,
        word: &'static str,
    ) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SwitchOr(word))
    }

    /// What editors are told of one.
    pub(crate) fn schema(word: &'static str) -> schemars::Schema {
        schemars::json_schema!({ "enum": [false, true, word] })
    }
}

struct SwitchOr(&'static str);

impl Visitor<'_> for SwitchOr {
    type Value = Switch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`true`, `false` or \"{}\"", self.0)
    }

    fn visit_bool<E: de::Error>(self, switch: bool) -> Result<Self::Value, E> {
        Ok(Switch::Is(switch))
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
        if word == self.0 {
            Ok(Switch::Word)
        } else {
            Err(E::invalid_value(de::Unexpected::Str(word), &self))
        }
    }
}
