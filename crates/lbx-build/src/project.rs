//! From files to what the user wrote: `lbx.toml` and every requirement file that it leads to.
//!
//! This is the only place that reads them. Whether they make sense together is [`lbx_plan::Plan`]'s
//! business.

use std::path::{Path, PathBuf};

use lbx_plan::locks::Selection;
use lbx_plan::{At, Config, ConfigError, Position, RequirementFiles, RequirementsError};

use crate::error::Error;

/// A requirement file larger than this is something else, named by mistake. Bytes.
const LARGEST_TEXT: u64 = 8 << 20;

/// A project as read from disk.
#[derive(Clone, Debug)]
pub struct Project {
    /// The project's folder, absolute and without links.
    pub root: PathBuf,
    /// What `lbx.toml` says, or what stands in for it.
    pub config: Config,
    /// The requirement files, by path relative to the root.
    pub files: RequirementFiles,
}

/// The value of a variable of the environment that has one.
pub type Variable = fn(&str) -> Option<String>;

impl Project {
    /// Reads `lbx.toml` at `path`, and all that it names.
    pub fn load(path: &Path, variable: Variable) -> Result<Self, Error> {
        Self::open(path)?.with_requirements(variable)
    }

    /// Reads `lbx.toml` at `path`, and nothing that it names.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let text = read_text(path)?;
        let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let config = Config::parse(&file, &text).map_err(lbx_plan::PlanError::from)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self::bare(parent, config)
    }

    /// A project without a file: `config` stands in for it.
    pub fn with_config(root: &Path, config: Config, variable: Variable) -> Result<Self, Error> {
        Self::bare(root, config)?.with_requirements(variable)
    }

    fn bare(root: &Path, config: Config) -> Result<Self, Error> {
        Ok(Self { root: fs_err::canonicalize(root)?, config, files: RequirementFiles::default() })
    }

    fn with_requirements(mut self, variable: Variable) -> Result<Self, Error> {
        for at in self.named_requirements() {
            self.read_named(&at, variable)?;
        }
        Ok(self)
    }

    fn named_requirements(&self) -> Vec<At<String>> {
        let config = &self.config;
        let functions = config.functions.values().flat_map(|function| &function.requirements);
        let layers = config.layers.values().flat_map(|layer| &layer.requirements);
        config.defaults.requirements.iter().chain(functions).chain(layers).cloned().collect()
    }

    /// Reads a requirement file that the configuration names.
    fn read_named(&mut self, at: &At<String>, variable: Variable) -> Result<(), Error> {
        let path = normal(&at.value);
        let position = self.config.position(at.offset);
        if at.starts_with('/') || at.split('/').any(|part| part == "..") {
            let message = format!("`{}` is outside the project", at.value);
            let hint =
                Some("requirement files are relative to the project's folder and stay inside it".to_owned());
            return Err(lbx_plan::PlanError::from(ConfigError { position, message, hint }).into());
        }
        if let Err(message) = self.check(&path) {
            return Err(lbx_plan::PlanError::from(ConfigError {
                position,
                message,
                hint: self.nearby(&path),
            })
            .into());
        }
        self.read(&path, variable)
    }

    /// Reads a requirement file and those that it names.
    fn read(&mut self, path: &str, variable: Variable) -> Result<(), Error> {
        if self.files.get(path).is_some() {
            return Ok(());
        }
        let real = Selection::split(path).0;
        let text = lbx_plan::decode(&read_bytes(&self.root.join(real))?)
            .map_err(|source| Error::Encoding { path: path.to_owned(), source })?;
        let text = if real.rsplit('/').next() == Some("pyproject.toml") {
            let project = lbx_plan::locks::Text { path, text: &text, project: None };
            lbx_plan::locks::requirements(project).map_err(lbx_plan::PlanError::from)?
        } else {
            text
        };
        self.files.insert(path.to_owned(), text, &variable);
        for (line, target) in self.files.references(path).map_err(lbx_plan::PlanError::from)? {
            if let Err(message) = self.check(&target) {
                let position = Position::line(path, line);
                let hint = self.nearby(&target);
                return Err(lbx_plan::PlanError::from(RequirementsError { position, message, hint }).into());
            }
            self.read(&target, variable)?;
        }
        Ok(())
    }

    /// What keeps a requirement file from being read, in words.
    fn check(&self, path: &str) -> Result<(), String> {
        let real = fs_err::canonicalize(self.root.join(Selection::split(path).0))
            .map_err(|_| format!("the requirement file `{path}` does not exist"))?;
        if !real.starts_with(&self.root) {
            return Err(format!("the requirement file `{path}` is a link out of the project"));
        }
        if !real.is_file() {
            return Err(format!("`{path}` is not a file"));
        }
        Ok(())
    }

    /// What a lock says, and what the pyproject.toml beside it says; none when there is no lock.
    pub(crate) fn lock(&self, path: &str) -> Result<Option<(String, Option<String>)>, Error> {
        let text = |path: &str| -> Result<Option<String>, Error> {
            let real = self.root.join(path);
            if !real.exists() {
                return Ok(None);
            }
            self.check(path).map_err(|message| {
                let position = Position::line(path, 0);
                lbx_plan::PlanError::from(RequirementsError { position, message, hint: None })
            })?;
            let text = lbx_plan::decode(&read_bytes(&real)?);
            Ok(Some(text.map_err(|source| Error::Encoding { path: path.to_owned(), source })?))
        };
        let Some(lock) = text(Selection::split(path).0)? else { return Ok(None) };
        let folder = path.rsplit_once('/').map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
        Ok(Some((lock, text(&format!("{folder}pyproject.toml"))?)))
    }

    /// The path of a local project or archive that requirements name, which must be there.
    pub(crate) fn local(&self, path: &str) -> Result<PathBuf, Error> {
        fs_err::canonicalize(self.root.join(path)).map_err(|_| Error::PathMissing { path: path.to_owned() })
    }

    /// The same for what must be in the project, too.
    pub(crate) fn inside(&self, path: &str) -> Result<PathBuf, Error> {
        let real = self.local(path)?;
        if !real.starts_with(&self.root) {
            let position = "requirements".to_owned();
            return Err(Error::SourceOutside { position, path: path.to_owned(), target: real });
        }
        Ok(real)
    }

    /// A file that the user may have meant: text files in the folder of the missing one.
    fn nearby(&self, path: &str) -> Option<String> {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut names: Vec<String> = fs_err::read_dir(self.root.join(folder))
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "txt"))
            .map(|name| if folder.is_empty() { name } else { format!("{folder}/{name}") })
            .filter(|name| name != path)
            .collect();
        names.sort();
        (!names.is_empty()).then(|| format!("that folder has {}", names.join(", ")))
    }
}

/// A path without `./` and doubled separators.
fn normal(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    parts.join("/")
}

fn read_text(path: &Path) -> Result<String, Error> {
    String::from_utf8(read_bytes(path)?).map_err(|_| Error::NotText { path: path.to_owned() })
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let metadata = fs_err::metadata(path)?;
    // A pipe would be waited for, and some devices have no end.
    if !metadata.is_file() {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    let size = metadata.len();
    if size > LARGEST_TEXT {
        return Err(Error::TextTooLarge { path: path.to_owned(), size, limit: LARGEST_TEXT });
    }
    Ok(fs_err::read(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Project, Error>) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        let loaded = Project::load(&root.path().join("lbx.toml"), |_| None);
        (root, loaded)
    }

    const HEAD: &str = "[project]\nruntime='python3.11'\n[functions.a]\nsource='a'\n";

    #[test]
    fn nested_requirement_files_are_read() {
        let config = format!("{HEAD}requirements=['./r/a.txt']\n");
        let (_root, project) =
            project(&[("lbx.toml", &config), ("r/a.txt", "-r b.txt\nsix\n"), ("r/b.txt", "idna\n")]);
        assert_eq!(project.unwrap().files.get("r/b.txt"), Some("idna\n"));
    }

    #[test]
    fn a_missing_requirement_file_is_named_where_it_is_asked_for() {
        let config = format!("{HEAD}requirements=['reqs.txt']\n");
        let (_root, loaded) = project(&[("lbx.toml", &config), ("requirements.txt", "")]);
        let error = loaded.unwrap_err();
        assert_eq!(error.to_string(), "lbx.toml:5:15: the requirement file `reqs.txt` does not exist");
        assert_eq!(error.hint().unwrap(), "that folder has requirements.txt");
        let config = format!("{HEAD}requirements=['a.txt']\n");
        let (_root, loaded) = project(&[("lbx.toml", &config), ("a.txt", "six\n-r gone.txt\n")]);
        assert_eq!(
            loaded.unwrap_err().to_string(),
            "a.txt:2: the requirement file `gone.txt` does not exist"
        );
    }

    #[test]
    fn a_requirement_file_outside_the_project_is_refused() {
        let config = format!("{HEAD}requirements=['../r.txt']\n");
        let (_root, loaded) = project(&[("lbx.toml", &config)]);
        assert_eq!(loaded.unwrap_err().to_string(), "lbx.toml:5:15: `../r.txt` is outside the project");
        let config = format!("{HEAD}requirements=['link.txt']\n");
        let root = tempfile::tempdir().unwrap();
        fs_err::write(root.path().join("lbx.toml"), config).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", root.path().join("link.txt")).unwrap();
        let error = Project::load(&root.path().join("lbx.toml"), |_| None).unwrap_err().to_string();
        assert!(error.ends_with("`link.txt` is a link out of the project"), "{error}");
    }
}
