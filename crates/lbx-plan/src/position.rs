//! Values that remember where in the configuration they were written.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Deserializer};

/// A value and the bytes of the file it was read from.
///
/// Equality looks at the value alone: where something was written does not change what it means.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Byte offset of its first byte in the file; zero for values that no file holds.
    pub offset: usize,
}

impl<T> At<T> {
    /// A value that was not read from a file.
    pub fn nowhere(value: T) -> Self {
        Self { value, offset: 0 }
    }
}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_spanned::Spanned::<T>::deserialize(deserializer)?;
        let offset = spanned.span().start;
        Ok(Self { value: spanned.into_inner(), offset })
    }
}

impl<T: schemars::JsonSchema> schemars::JsonSchema for At<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        T::json_schema(generator)
    }
}

/// A place in a text file, as editors count: lines and columns from one, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The file's name as the user knows it.
    pub file: String,
    /// Line, from one.
    pub line: usize,
    /// Column in characters, from one; zero where only the line is known.
    pub column: usize,
}

impl Position {
    /// The place of byte `offset` in `text`.
    pub fn of(file: &str, text: &str, offset: usize) -> Self {
        let mut end = offset.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &text[..end];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        Self { file: file.to_owned(), line, column }
    }

    /// The place of a whole line.
    pub fn line(file: &str, line: usize) -> Self {
        Self { file: file.to_owned(), line, column: 0 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => write!(formatter, "{}", self.file),
            (line, 0) => write!(formatter, "{}:{line}", self.file),
            (line, column) => write!(formatter, "{}:{line}:{column}", self.file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_lines_and_characters_from_one() {
        let text = "ä = 1\nkey = 2\n";
        assert_eq!(Position::of("f", text, 0).to_string(), "f:1:1");
        assert_eq!(Position::of("f", text, text.find('1').unwrap()).to_string(), "f:1:5");
        assert_eq!(Position::of("f", text, text.find("key").unwrap()).to_string(), "f:2:1");
        assert_eq!(Position::of("f", text, 999).to_string(), "f:3:1");
    }
}
