//! The runtimes that lbx knows, as data: one file each under `images/`, compiled in.
//!
//! Facts that the cloud changes (deprecation dates, image names) live in those files, so that a new
//! runtime is a new file and a line in the table below.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, IntoDeserializer, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The CPU that a function runs on, in Lambda's words.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// 64-bit x86.
    #[default]
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    Arm64,
}

impl Architecture {
    /// The name in image registries: `amd64` or `arm64`.
    pub fn oci(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The name in Lambda's interface and in `lbx.toml`: `x86_64` or `arm64`.
    pub fn lambda(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }

    /// The name that the kernel and wheel tags use: `x86_64` or `aarch64`.
    pub fn machine(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// The architecture with that name in any of the three vocabularies.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "x86_64" | "amd64" => Some(Self::X86_64),
            "arm64" | "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }
}

/// One CPU or several, each once, in the order in which they are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Architectures(Vec<Architecture>);

impl Architectures {
    /// These; the usual one when there are none.
    pub fn new(all: impl IntoIterator<Item = Architecture>) -> Self {
        let mut each = Vec::new();
        for one in all {
            if !each.contains(&one) {
                each.push(one);
            }
        }
        if each.is_empty() { Self::default() } else { Self(each) }
    }

    /// The first one.
    pub fn first(&self) -> Architecture {
        self.0.first().copied().unwrap_or_default()
    }

    /// All of them.
    pub fn all(&self) -> &[Architecture] {
        &self.0
    }
}

impl Default for Architectures {
    fn default() -> Self {
        Self(vec![Architecture::default()])
    }
}

impl<'de> Deserialize<'de> for Architectures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMore)
    }
}

/// Reads a name or a list of names, and says of each what is wrong with it.
struct OneOrMore;

impl<'de> Visitor<'de> for OneOrMore {
    type Value = Architectures;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`x86_64`, `arm64`, or a list of both")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Architecture::deserialize(name.into_deserializer()).map(|one| Architectures(vec![one]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = names.next_element::<Architecture>()? {
            all.push(one);
        }
        if all.is_empty() {
            return Err(de::Error::invalid_length(0, &self));
        }
        Ok(Architectures::new(all))
    }
}

impl JsonSchema for Architectures {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Architectures".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = generator.subschema_for::<Architecture>();
        let many = generator.subschema_for::<Vec<Architecture>>();
        schemars::json_schema!({ "anyOf": [one, many] })
    }
}

/// What there is to know about one Lambda runtime.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    /// The identifier in Lambda's interface, such as `python3.11`.
    pub runtime: String,
    /// The Python version, such as `3.11`.
    pub python: String,
    /// The image that Lambda publishes for it.
    pub image: String,
    /// The image of it that has compilers and headers, for what has to be built from source.
    pub build_image: String,
    /// Where that image keeps its interpreter.
    pub interpreter: String,
    /// The operating system under it, for people.
    pub os: String,
    /// The version of the C library under it, which is the highest manylinux level it can load.
    pub glibc: String,
    /// The day from which Lambda gives no more support, as an ISO date.
    pub deprecated: String,
    /// The day from which functions can no longer be updated, as an ISO date.
    pub block_update: String,
    /// Names of the libraries that every image of it has.
    pub libraries: Vec<String>,
    /// The highest versions of symbols that its compiler's libraries have.
    pub symbols: SymbolVersions,
}

/// The highest versions of symbols that a system's compiler libraries have, without the family's name.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct SymbolVersions {
    /// `GLIBCXX_`, of libstdc++.
    pub glibcxx: String,
    /// `CXXABI_`, of libstdc++.
    pub cxxabi: String,
    /// `GCC_`, of libgcc.
    pub gcc: String,
}

/// The text of every file under `images/`, oldest runtime first.
const FILES: [&str; 6] = [
    include_str!("../../../images/python3.9.toml"),
    include_str!("../../../images/python3.10.toml"),
    include_str!("../../../images/python3.11.toml"),
    include_str!("../../../images/python3.12.toml"),
    include_str!("../../../images/python3.13.toml"),
    include_str!("../../../images/python3.14.toml"),
];

impl Runtime {
    /// The runtime that is taken when nobody names one.
    pub const DEFAULT: &str = "python3.13";

    /// Every runtime, oldest first.
    pub fn all() -> Vec<Runtime> {
        // A file that does not parse is found by the test below, and left out rather than fatal.
        FILES.iter().filter_map(|text| toml::from_str(text).ok()).collect()
    }

    /// The runtime with that identifier.
    pub fn find(name: &str) -> Option<Runtime> {
        Self::all().into_iter().find(|runtime| runtime.runtime == name)
    }

    /// The Python version as numbers, such as `(3, 11)`.
    pub fn python_version(&self) -> (u32, u32) {
        version(&self.python)
    }

    /// The C library's version as numbers, such as `(2, 26)`.
    pub fn glibc_version(&self) -> (u32, u32) {
        version(&self.glibc)
    }
}

/// `"2.26"` as `(2, 26)`; what is no number is zero, and no file has such a thing (tested).
fn version(text: &str) -> (u32, u32) {
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    (major.parse().unwrap_or(0), minor.parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runtime_file_parses_and_is_whole() {
        let runtimes = Runtime::all();
        assert_eq!(runtimes.len(), FILES.len());
        for runtime in runtimes {
            assert_eq!(runtime.runtime, format!("python{}", runtime.python));
            assert!(runtime.image.ends_with(&format!(":{}", runtime.python)), "{}", runtime.image);
            assert!(runtime.build_image.contains(&format!("build-python{}:", runtime.python)));
            assert!(runtime.interpreter.ends_with(&runtime.runtime), "{}", runtime.interpreter);
            assert!(runtime.python_version() >= (3, 9) && runtime.glibc_version() >= (2, 26));
            assert!(runtime.deprecated < runtime.block_update, "{}", runtime.runtime);
            assert!(runtime.libraries.iter().any(|library| library == "libc.so.6"), "{}", runtime.runtime);
        }
        assert!(Runtime::find(Runtime::DEFAULT).is_some());
    }

    #[test]
    fn architectures_are_known_by_all_their_names() {
        for arch in [Architecture::X86_64, Architecture::Arm64] {
            for name in [arch.oci(), arch.lambda(), arch.machine()] {
                assert_eq!(Architecture::parse(name), Some(arch));
            }
        }
        assert_eq!(Architecture::parse("riscv64"), None);
    }
}
