//! The types of `lbx.toml`, their parser and their JSON schema.
//!
//! This is what the user typed, checked for form only. What it means is [`crate::Plan`]'s business,
//! and whether the files it names exist is for the caller to find out.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bytecode::Bytecode;
use crate::catalog::Architectures;
use crate::imports::Imports;
use crate::position::{At, Position};
use crate::prune::{RuntimeProvided, Set};

/// A whole `lbx.toml`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
#[schemars(title = "lbx.toml")]
pub struct Config {
    /// What holds for the whole project.
    pub project: Project,
    /// What holds for every function.
    #[serde(default)]
    pub defaults: Defaults,
    /// The functions to build, by name; each becomes `dist/NAME.zip`.
    #[serde(default)]
    pub functions: BTreeMap<At<String>, Function>,
    /// The layers to build, by name; each becomes `dist/NAME.zip`.
    #[serde(default)]
    pub layers: BTreeMap<At<String>, Layer>,
    /// What all of them leave out.
    #[serde(default)]
    pub prune: Prune,
    /// What is made of what is wrong with artifacts.
    #[serde(default)]
    pub check: Check,
    /// How single packages are built, by name.
    #[serde(default)]
    pub build: BTreeMap<At<String>, Build>,
    /// The package indexes, in place of those that `pip.conf` and `PIP_*` name; the first one is pip's `index-url`, the
    /// others are its `extra-index-url`.
    #[serde(default)]
    pub index: Vec<Index>,
    /// The file that this was read from, and its text, for positions in messages.
    #[serde(skip)]
    pub origin: Origin,
}

/// Where a configuration came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    /// The file's name as the user knows it; empty when there is no file.
    pub file: String,
    /// The file's text.
    pub text: String,
}

/// `[project]`: what holds for the whole project.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Project {
    /// The Lambda runtime, such as `python3.11`.
    pub runtime: At<String>,
    /// The CPU that the functions run on, or several: then each has a folder of its own for what is built.
    #[serde(default)]
    pub arch: Architectures,
    /// The image to build in, in place of the runtime's own.
    pub image: Option<At<String>>,
    /// The image to build source distributions, local projects and repositories in, in place of `image`: one with
    /// compilers.
    pub build_image: Option<At<String>>,
    /// System packages, such as `libxml2-devel`, that are there where sources are built: the image's own package manager
    /// installs them, and they are in no artifact.
    #[serde(default)]
    pub system_packages: Vec<At<String>>,
    /// What it means that several package indexes have a project.
    #[serde(default)]
    pub index_strategy: IndexStrategy,
    /// How hard files are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// Whether functions and layers have the bytecode of their modules, compiled by the image's Python: `true`, or
    /// `"only"` for bytecode in place of sources.
    #[serde(default)]
    pub bytecode: Bytecode,
}

/// How hard files are compressed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Files of wheels stay as their wheels have them, and own files are compressed as most tools do it.
    #[default]
    Fast,
    /// Every file is compressed as hard as deflate allows, where that makes it smaller. What comes of a wheel is kept.
    Max,
}

/// What it means that several package indexes have a project.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum IndexStrategy {
    /// The best version of any of them is taken, as pip does it. Whoever can publish in one of them can publish a
    /// better version of anything.
    #[default]
    BestMatch,
    /// The first one that has the project is the only one that is asked for it.
    FirstMatch,
}

/// `[build.NAME]`: how the package NAME is built, when it is built from source.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Build {
    /// The image to build it in, in place of the project's `build-image`.
    pub image: Option<At<String>>,
    /// System packages that are there where it is built, in place of the project's `system-packages`.
    pub system_packages: Option<Vec<At<String>>>,
}

/// `[[index]]`: one package index.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Index {
    /// Its address, as pip's `index-url` has it, without user and password.
    pub url: At<String>,
    /// The name of the environment variable that has the user's name.
    pub username_env: Option<At<String>>,
    /// The name of the environment variable that has the password or token.
    pub password_env: Option<At<String>>,
}

/// `[defaults]`: what holds for every function, before what the function itself says.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// Requirement files installed into every function, relative to the project.
    #[serde(default)]
    pub requirements: Vec<At<String>>,
    /// Folders whose contents, and files which themselves, go to the root of every function's zip.
    #[serde(default)]
    pub include: Vec<At<String>>,
}

/// `[functions.NAME]`: one function.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// The folder whose contents go to the root of the zip, relative to the project.
    pub source: At<String>,
    /// The function's handler, `module.function`.
    pub handler: Option<At<String>>,
    /// Requirement files of this function alone.
    #[serde(default)]
    pub requirements: Vec<At<String>>,
    /// Folders and files of this function alone that go to the root of its zip.
    #[serde(default)]
    pub include: Vec<At<String>>,
    /// Names of the layers that this function runs with, in order.
    #[serde(default)]
    pub layers: Vec<At<String>>,
    /// Whether it has bytecode, in place of what the project says.
    pub bytecode: Option<Bytecode>,
    /// What it leaves out, key by key in place of what the project says.
    #[serde(default)]
    pub prune: Prune,
}

/// `[layers.NAME]`: one layer, of requirements, of local code, or of both.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Requirement files whose packages land under `python/`.
    #[serde(default)]
    pub requirements: Vec<At<String>>,
    /// The folder whose contents land under `python/`; a folder that is laid out as a layer already
    /// (`python/`, and perhaps `bin/` and `lib/`, and nothing else) is taken as it is.
    pub source: Option<At<String>>,
    /// Whether it has bytecode, in place of what the project says.
    pub bytecode: Option<Bytecode>,
    /// What it leaves out, key by key in place of what the project says.
    #[serde(default)]
    pub prune: Prune,
}

/// `[prune]`, `[functions.NAME.prune]` and `[layers.NAME.prune]`: what is left out, beside what is always left out.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Prune {
    /// Sets of rules: `tests`, `docs`, `typing`, `sources`, `locales`, `examples`.
    pub sets: Option<Vec<At<Set>>>,
    /// `drop` leaves the AWS SDK to the runtime, if its versions meet all requirements.
    pub runtime_provided: Option<RuntimeProvided>,
    /// The AWS services whose descriptions stay, by the names that `boto3.client` takes; `"*"` means all.
    pub botocore: Option<Vec<At<String>>>,
    /// Whether symbols are taken out of machine code.
    pub strip: Option<bool>,
    /// Patterns, as in `.gitignore`, of files that are left out.
    pub exclude: Option<Vec<At<String>>>,
    /// Patterns, as in `.gitignore`, of files that are kept whatever leaves them out.
    pub keep: Option<Vec<At<String>>>,
}

/// `[check]`: what is made of what is wrong with artifacts.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Check {
    /// Patterns, as in `.gitignore`, of files that are as they are meant to be, whatever is found in them.
    #[serde(default)]
    pub accept: Vec<At<String>>,
    /// Whether the handlers of functions are imported as the runtime does it: `true`, `false`, or `"auto"` where the build
    /// has opened the image for something else.
    #[serde(default)]
    pub import: Imports,
}

/// A configuration that cannot be read: where, what, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{position}: {message}")]
pub struct ConfigError {
    /// The place at fault.
    pub position: Position,
    /// What is wrong there.
    pub message: String,
    /// What the user can do, where there is something to say.
    pub hint: Option<String>,
}

impl Config {
    /// Reads the text of a configuration; `file` is its name in messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let mut config: Config = toml::from_str(text).map_err(|error| from_toml(file, text, &error))?;
        config.origin = Origin { file: file.to_owned(), text: text.to_owned() };
        config.index.iter().try_for_each(|index| config.check_index(index))?;
        config.check_build()?;
        Ok(config)
    }

    fn check_build(&self) -> Result<(), ConfigError> {
        let own = self.build.values().filter_map(|build| build.system_packages.as_ref()).flatten();
        for package in self.project.system_packages.iter().chain(own) {
            if !is_package(&package.value) {
                let message = format!("{:?} is no name of a system package", package.value);
                let hint =
                    Some("one word each, as in `system-packages = [\"libxml2-devel\", \"gcc\"]`".to_owned());
                return Err(self.error(package.offset, message, hint));
            }
        }
        for (name, build) in &self.build {
            if build.image.is_none() && build.system_packages.is_none() {
                let message = format!("[build.{}] says nothing", name.value);
                let hint = Some("it can have `image` and `system-packages`".to_owned());
                return Err(self.error(name.offset, message, hint));
            }
        }
        Ok(())
    }

    /// A password that stands in the file is in everybody's checkout.
    fn check_index(&self, index: &Index) -> Result<(), ConfigError> {
        let authority = index.url.split("://").nth(1).and_then(|rest| rest.split(['/', '?', '#']).next());
        let has_login = authority.is_some_and(|authority| authority.contains('@'));
        let hint = "name the variables that hold them: `username-env` and `password-env`".to_owned();
        if has_login {
            let message = "the address of an index has a user or password in it".to_owned();
            return Err(self.error(index.url.offset, message, Some(hint)));
        }
        match (&index.username_env, &index.password_env) {
            (Some(name), None) => {
                let message = "`username-env` without `password-env`".to_owned();
                Err(self.error(name.offset, message, None))
            }
            _ => Ok(()),
        }
    }

    /// An error about the value at `offset`.
    pub(crate) fn error(&self, offset: usize, message: String, hint: Option<String>) -> ConfigError {
        ConfigError { position: self.position(offset), message, hint }
    }

    /// The place of byte `offset` of the file that this was read from.
    pub fn position(&self, offset: usize) -> Position {
        if self.origin.file.is_empty() {
            return Position::line("command line", 0);
        }
        Position::of(&self.origin.file, &self.origin.text, offset)
    }
}

/// Whether a package manager can take a word for a package, or a version of one, and for nothing else: no option, no file
/// of the image.
fn is_package(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphanumeric())
        && word.len() <= 200
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "+-._:=~()".contains(c))
        // To apt, a package with this at its end is one to remove.
        && !word.ends_with('-')
}

impl PartialOrd for At<String> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for At<String> {}

impl Ord for At<String> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.value.cmp(&other.value)
    }
}

/// Turns the parser's error into ours: its place, its words without the picture, and a guess at the
/// key that was meant.
fn from_toml(file: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start);
    let message = error.message().trim().replace("unknown field", "unknown key").replace('\n', "; ");
    let message = message.replace("unknown variant", "unknown value");
    let hint = nearest_key(&message);
    let key = error.span().and_then(|span| text.get(span)).unwrap_or_default();
    let message = if message == "duplicate key" { format!("`{key}` is there twice") } else { message };
    ConfigError { position: Position::of(file, text, offset), message, hint }
}

/// Out of "unknown key `x`, expected one of `a`, `b`", the expected key nearest to the one written; and so for values.
fn nearest_key(message: &str) -> Option<String> {
    let rest = message.strip_prefix("unknown key `").or_else(|| message.strip_prefix("unknown value `"))?;
    let (written, expected) = rest.split_once('`')?;
    let (_, expected) = expected.split_once("expected")?;
    nearest(written, expected.split('`').skip(1).step_by(2)).map(|key| format!("did you mean `{key}`?"))
}

/// Of some names, the one that was probably meant by a word that is none of them.
pub fn nearest<'n>(written: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let names = names.into_iter().map(|name| (distance(written, name), name));
    names.filter(|(distance, name)| *distance <= 2.max(name.len() / 3)).min().map(|(_, name)| name)
}

/// The number of single-character edits between two words.
pub(crate) fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let substitute = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

/// The JSON schema of `lbx.toml`, written from the types above.
pub fn json_schema() -> String {
    let schema = schemars::schema_for!(Config);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> ConfigError {
        Config::parse("lbx.toml", text).unwrap_err()
    }

    #[test]
    fn the_example_of_the_documentation_parses() {
        let config = Config::parse(
            "lbx.toml",
            r#"
[project]
runtime = "python3.11"
arch = "x86_64"
[defaults]
requirements = ["functions/requirements.txt"]
include = ["common_files"]
[functions.slack_send_message]
source = "functions/slack_send_message"
handler = "lambda.handler"
requirements = ["functions/slack_send_message/requirements.txt"]
layers = ["deps"]
[layers.deps]
requirements = ["requirements/lambda.txt"]
[layers.utils]
source = "layers/pythonutils"
"#,
        )
        .unwrap();
        assert_eq!(config.functions.len(), 1);
        assert_eq!(config.layers.len(), 2);
        let function = &config.functions[&At::nowhere("slack_send_message".to_owned())];
        assert_eq!(config.position(function.source.offset).to_string(), "lbx.toml:9:10");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_the_key_that_was_meant() {
        let error = error("[project]\nruntime = \"python3.11\"\n[functions.a]\nsorce = \"x\"\n");
        assert_eq!(error.position.to_string(), "lbx.toml:4:1");
        assert!(error.message.contains("unknown key `sorce`"), "{}", error.message);
        assert_eq!(error.hint.as_deref(), Some("did you mean `source`?"));
    }

    #[test]
    fn an_index_has_names_of_variables_and_no_password() {
        let head = "[project]\nruntime = \"python3.11\"\nindex-strategy = \"first-match\"\n[[index]]\n";
        let good = format!("{head}url = \"https://h/simple\"\nusername-env = \"U\"\npassword-env = \"P\"\n");
        let config = Config::parse("lbx.toml", &good).unwrap();
        assert_eq!(config.project.index_strategy, IndexStrategy::FirstMatch);
        assert_eq!(config.index[0].password_env, Some(At::nowhere("P".to_owned())));
        let wrong = error(&format!("{head}url = \"https://me:hush@h/simple\"\n"));
        assert_eq!(wrong.to_string(), "lbx.toml:5:7: the address of an index has a user or password in it");
        let wrong = error(&format!("{head}url = \"https://h/simple\"\nusername-env = \"U\"\n"));
        assert_eq!(wrong.to_string(), "lbx.toml:6:16: `username-env` without `password-env`");
    }

    #[test]
    fn system_packages_are_words_that_no_package_manager_takes_for_anything_else() {
        let head = "[project]\nruntime = \"python3.11\"\n";
        let good = format!(
            "{head}system-packages = [\"gcc-c++\", \"libxml2-dev=2.9+dfsg-1~x\", \"pkgconfig(x)\"]\n"
        );
        assert_eq!(Config::parse("lbx.toml", &good).unwrap().project.system_packages.len(), 3);
        for bad in
            ["", "-y", "--installroot=/", "./a.rpm", "/usr/bin/gcc", "a b", "a;b", "$(x)", "bash-", "a\\n"]
        {
            let wrong = error(&format!("{head}[build.x]\nsystem-packages = [\"gcc\", \"{bad}\"]\n"));
            assert!(wrong.to_string().starts_with("lbx.toml:4:27: "), "{wrong}");
            assert!(wrong.message.ends_with(" is no name of a system package"), "{wrong}");
        }
        let wrong = error(&format!("{head}[build.x]\n"));
        assert_eq!(wrong.to_string(), "lbx.toml:3:8: [build.x] says nothing");
    }

    #[test]
    fn an_unknown_set_is_named_with_its_place_and_the_set_that_was_meant() {
        let error = error("[project]\nruntime = \"python3.11\"\n[prune]\nsets = [\"docs\", \"test\"]\n");
        assert_eq!(error.position.to_string(), "lbx.toml:4:17");
        assert!(
            error.message.starts_with("unknown value `test`, expected one of `tests`"),
            "{}",
            error.message
        );
        assert_eq!(error.hint.as_deref(), Some("did you mean `tests`?"));
    }

    #[test]
    fn a_wrong_type_is_named_with_its_place() {
        let error = error("[project]\nruntime = 3.11\n");
        assert_eq!(error.position.to_string(), "lbx.toml:2:11");
        assert!(error.message.contains("expected a string"), "{}", error.message);
    }

    #[test]
    fn a_function_defined_twice_is_an_error_at_the_second() {
        let error = error(
            "[project]\nruntime = \"python3.11\"\n[functions.a]\nsource = \"x\"\n[functions.a]\nsource = \"y\"\n",
        );
        assert_eq!(error.to_string(), "lbx.toml:5:12: `a` is there twice");
    }

    #[test]
    fn broken_toml_is_an_error_with_its_place() {
        assert_eq!(error("[project\n").position.line, 1);
    }
}
