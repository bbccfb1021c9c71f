//! The lines of requirement files: just enough of pip's format to know which other files a file needs, and where its
//! packages are.
//!
//! lbx does not resolve anything from these lines; pip does. It reads them to find the files that must be visible in
//! the sandbox, to name a missing one with its line, to know when two functions ask for the same set, and to take out
//! what pip in the sandbox is not to see: indexes, passwords, addresses. The format is pip's "Requirements File
//! Format"; what is not recognised here is passed to pip as it stands.

mod line;
mod options;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use line::{Line, LineKind, PlaceOption, scan};

use self::line::scan_with;
use crate::hidden::Hidden;
use crate::locks::{Format, is_hashed};
use crate::position::Position;

/// Requirement files by their path relative to the project, with `/` between components.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RequirementFiles {
    files: BTreeMap<String, String>,
    /// The values of the variables that they name.
    variables: BTreeMap<String, String>,
}

impl fmt::Debug for RequirementFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // There may be passwords in all of them.
        f.debug_set().entries(self.files.keys()).finish()
    }
}

/// A requirement file that asks for what it cannot have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{position}: {message}")]
pub struct RequirementsError {
    /// The line at fault.
    pub position: Position,
    /// What is wrong with it.
    pub message: String,
    /// What the user can do.
    pub hint: Option<String>,
}

/// Something that a line asks for by where it is, and that pip in the sandbox finds elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere<'l> {
    /// A wheel or an archive by its address.
    Url(&'l Hidden),
    /// A repository by its address.
    Repository(&'l Hidden),
    /// A project or an archive by its path from the project; it may begin with `..`.
    Path(&'l str),
}

/// What pip must be able to see to read a set of requirement files, and what it must not see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inputs {
    /// Requirement and constraint files, each once.
    pub(crate) files: BTreeSet<String>,
    /// Local projects and archives; they may lie beside the project, and then begin with `..`.
    pub(crate) paths: BTreeSet<String>,
    /// Where packages are, in pip's order; folders are relative to the project.
    pub(crate) places: Vec<PlaceOption>,
    /// Addresses of archives.
    pub(crate) urls: BTreeSet<Hidden>,
    /// Addresses of repositories.
    pub(crate) repositories: BTreeSet<Hidden>,
    /// The logical lines in the order in which pip meets them, nested files in place.
    pub(crate) lines: Vec<Hidden>,
    /// Whether any line asks for a package.
    pub(crate) asks: bool,
    /// Whether any line is [particular](Line::is_particular).
    pub(crate) particular: bool,
    /// The lock that all of it is.
    pub(crate) lock: Option<String>,
}

impl RequirementFiles {
    /// Adds a file. `variable` has the values of the variables that it may name as `${NAME}`.
    pub fn insert(&mut self, path: String, text: String, variable: &dyn Fn(&str) -> Option<String>) {
        for line in scan(&text) {
            for (_, name) in variables(line.text.expose()) {
                if let Some(value) = variable(name) {
                    self.variables.insert(name.to_owned(), value);
                }
            }
        }
        self.files.insert(path, text);
    }

    /// The text of a file.
    pub fn get(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// The paths of the files, with what they select.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The lines of a file, with the values of variables in them.
    fn lines(&self, path: &str) -> Vec<Line> {
        scan_with(self.get(path).unwrap_or_default(), &|line| self.expand(line))
    }

    fn expand(&self, line: &str) -> String {
        let mut expanded = String::new();
        let mut rest = 0;
        for (start, name) in variables(line) {
            if let Some(value) = self.variables.get(name) {
                expanded.extend([&line[rest..start], value]);
                rest = start + name.len() + "${}".len();
            }
        }
        expanded + &line[rest..]
    }

    /// Refuses `${NAME}` that has no value: pip would go on with the name, and whatever comes of that is worse to read.
    fn no_variable(&self, from: &str, line: &Line) -> Result<(), RequirementsError> {
        let is_missing = |(_, name): &(usize, &str)| !self.variables.contains_key(*name);
        let Some((_, name)) = variables(line.text.expose()).find(is_missing) else { return Ok(()) };
        Err(RequirementsError {
            position: Position::line(from, line.number),
            message: format!("the variable {name} is not set, or is empty"),
            hint: Some(
                "set it in the environment of lbx; its value is seen by nothing but this line".to_owned(),
            ),
        })
    }

    /// The files that `path` names with `-r` or `-c`, relative to the project, with the line that
    /// names each.
    pub fn references(&self, path: &str) -> Result<Vec<(usize, String)>, RequirementsError> {
        let mut found = Vec::new();
        if Format::of(path).is_some() {
            return Ok(found);
        }
        for line in scan(self.get(path).unwrap_or_default()) {
            self.no_variable(path, &line)?;
        }
        for line in self.lines(path) {
            if let LineKind::Requirements(target) | LineKind::Constraints(target) = &line.kind {
                found.push((line.number, relative(path, line.number, target)?));
            }
        }
        Ok(found)
    }

    /// Everything that the files named need, in pip's order.
    pub(crate) fn inputs(&self, named: &[String]) -> Result<Inputs, RequirementsError> {
        let mut inputs = Inputs::default();
        if let Some(lock) = named.iter().find(|path| Format::of(path).is_some()) {
            if named.len() > 1 {
                return Err(not_alone(lock));
            }
            let text = Hidden::new(self.get(lock).unwrap_or_default());
            let (lock, files) = (Some(lock.clone()), named.iter().cloned().collect());
            return Ok(Inputs { lock, files, lines: vec![text], asks: true, ..Inputs::default() });
        }
        for path in named {
            self.collect(path, &mut inputs, &mut Vec::new())?;
        }
        // Then it says exactly what there is to install.
        if let [path] = named
            && is_hashed(self.get(path).unwrap_or_default())
        {
            inputs.lock = Some(path.clone());
        }
        Ok(inputs)
    }

    /// `chain` has the files that name one another down to this one.
    fn collect(
        &self,
        path: &str,
        inputs: &mut Inputs,
        chain: &mut Vec<String>,
    ) -> Result<(), RequirementsError> {
        // Met before: pip would read it again to no effect.
        if !inputs.files.insert(path.to_owned()) {
            return Ok(());
        }
        chain.push(path.to_owned());
        for line in self.lines(path) {
            inputs.particular |= line.is_particular();
            match &line.kind {
                LineKind::Requirements(target) => {
                    self.collect(&named_by(path, &line, target, chain)?, inputs, chain)?;
                    continue;
                }
                LineKind::Constraints(target) => {
                    inputs.lines.push(Hidden::new(format!("[constraints {}]", inputs.files.len())));
                    let asks = inputs.asks;
                    self.collect(&named_by(path, &line, target, chain)?, inputs, chain)?;
                    inputs.asks = asks;
                    inputs.lines.push(Hidden::new("[end]"));
                    continue;
                }
                LineKind::Options { places, rest } => {
                    for place in places {
                        let place = placed(path, line.number, place)?;
                        inputs.lines.push(Hidden::new(spelled(&place)));
                        inputs.places.push(place);
                    }
                    if !rest.is_empty() {
                        inputs.lines.push(Hidden::new(rest));
                    }
                    continue;
                }
                LineKind::LocalPath(target) => {
                    inputs.paths.insert(from_project(target));
                }
                LineKind::OutsidePath(target) => return Err(outside(path, line.number, target)),
                LineKind::Refused(message, hint) => return Err(refused(path, &line, message, hint)),
                LineKind::Url(url) => _ = inputs.urls.insert(url.clone()),
                LineKind::Git(url) => _ = inputs.repositories.insert(url.clone()),
                LineKind::Requirement => {}
            }
            inputs.asks = true;
            inputs.lines.push(line.text);
        }
        chain.pop();
        Ok(())
    }

    /// The text of a file as pip in the sandbox is to read it: without what says where packages are, with the values
    /// of variables, and with what `place` says in the place of what is elsewhere: an address for an address, a path for
    /// the others. Lines keep their numbers.
    pub fn for_pip(&self, path: &str, place: &dyn Fn(Elsewhere<'_>) -> Option<String>) -> String {
        let text = self.get(path).unwrap_or_default();
        let mut physical: Vec<String> = line::physical(text).into_iter().map(str::to_owned).collect();
        for line in self.lines(path) {
            let replaced = match &line.kind {
                LineKind::Options { places, .. } if places.is_empty() => line.text.expose().to_owned(),
                LineKind::Options { rest, .. } => rest.clone(),
                LineKind::Url(url) => match place(Elsewhere::Url(url)) {
                    Some(there) => line.text.expose().replacen(url.expose(), &there, 1),
                    None => line.text.expose().to_owned(),
                },
                LineKind::Git(url) => line.with_path(url.expose(), place(Elsewhere::Repository(url))),
                LineKind::LocalPath(path) => {
                    line.with_path(path, place(Elsewhere::Path(&from_project(path))))
                }
                _ => line.text.expose().to_owned(),
            };
            let first = line.number - 1;
            physical[first..first + line.height].fill(String::new());
            physical[first] = replaced;
        }
        physical.join("\n") + "\n"
    }
}

/// The file that a line names, which must not be one that has led to this line: pip would read them for ever, or nothing.
fn named_by(path: &str, line: &Line, target: &str, chain: &[String]) -> Result<String, RequirementsError> {
    let target = relative(path, line.number, target)?;
    let Some(start) = chain.iter().position(|file| *file == target) else { return Ok(target) };
    let round: Vec<&str> = chain[start..].iter().map(String::as_str).chain([target.as_str()]).collect();
    Err(RequirementsError {
        position: Position::line(path, line.number),
        message: format!("requirement files go round in a circle: {}", round.join(", which names ")),
        hint: Some("take this line out".to_owned()),
    })
}

fn not_alone(lock: &str) -> RequirementsError {
    RequirementsError {
        position: Position::line(lock, 0),
        message: "a lock has all that is installed, and cannot be one of several requirement files"
            .to_owned(),
        hint: Some("name the lock alone, or none: `[defaults] requirements` count, too".to_owned()),
    }
}

/// A path from the project, with `.` and `..` resolved as far as that goes.
pub(crate) fn from_project(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

/// An option about places, with its folder relative to the project.
fn placed(from: &str, number: usize, place: &PlaceOption) -> Result<PlaceOption, RequirementsError> {
    match place {
        PlaceOption::Folder(folder) if folder.starts_with('/') => Err(outside(from, number, folder)),
        PlaceOption::Page(url) if url.expose().starts_with("file:") => {
            Err(outside(from, number, url.expose()))
        }
        PlaceOption::Folder(folder) => Ok(PlaceOption::Folder(relative(from, number, folder)?)),
        place => Ok(place.clone()),
    }
}

/// An option about places as one would write it.
fn spelled(place: &PlaceOption) -> String {
    match place {
        PlaceOption::Index(url) => format!("--index-url {}", url.expose()),
        PlaceOption::Extra(url) => format!("--extra-index-url {}", url.expose()),
        PlaceOption::Page(url) => format!("--find-links {}", url.expose()),
        PlaceOption::Folder(folder) => format!("--find-links {folder}"),
        PlaceOption::NoIndex => "--no-index".to_owned(),
        PlaceOption::TrustedHost(host) => format!("--trusted-host {host}"),
    }
}

fn refused(from: &str, line: &Line, message: &str, hint: &str) -> RequirementsError {
    RequirementsError {
        position: Position::line(from, line.number),
        message: format!("`{}` cannot be used: {message}", line.text),
        hint: Some(hint.to_owned()),
    }
}

/// Each `${NAME}` of a line, as pip recognises it: upper case, digits and underscores. Where it is, and the name.
fn variables(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.match_indices("${").filter_map(|(start, _)| {
        let name = &text[start + 2..];
        let end = name.find('}')?;
        let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        (end > 0 && name[..end].chars().all(fits)).then(|| (start, &name[..end]))
    })
}

/// `target` as a path from the project, when the file `from` names it relative to itself.
fn relative(from: &str, number: usize, target: &str) -> Result<String, RequirementsError> {
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    inside(from, number, folder, target)
}

/// `folder/target` with `.` and `..` resolved; an error when it leaves the project.
fn inside(from: &str, number: usize, folder: &str, target: &str) -> Result<String, RequirementsError> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err(outside(from, number, target));
                }
            }
            part => parts.push(part),
        }
    }
    Ok(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

fn outside(from: &str, number: usize, target: &str) -> RequirementsError {
    RequirementsError {
        position: Position::line(from, number),
        message: format!("`{target}` is outside the project"),
        hint: Some(
            "the sandbox sees nothing outside the project: move it inside, or put lbx.toml in a folder above both"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(all: &[(&str, &str)]) -> RequirementFiles {
        let variable = |name: &str| (name == "TOKEN").then(|| "hush".to_owned());
        let mut files = RequirementFiles::default();
        for (path, text) in all {
            files.insert((*path).to_owned(), (*text).to_owned(), &variable);
        }
        files
    }

    fn inputs(all: &[(&str, &str)]) -> Inputs {
        files(all).inputs(&[all[0].0.to_owned()]).unwrap()
    }

    #[test]
    fn nested_files_are_relative_to_the_file_that_names_them() {
        let all = [
            ("functions/a/r.txt", "-r ../../common/base.txt\nsix\n"),
            ("common/base.txt", "-r more.txt\n-c limits.txt\nidna\n"),
        ];
        assert_eq!(files(&all).references("functions/a/r.txt").unwrap(), [(1, "common/base.txt".to_owned())]);
        let seen = inputs(&all).files;
        let seen: Vec<_> = seen.iter().map(String::as_str).collect();
        assert_eq!(seen, ["common/base.txt", "common/limits.txt", "common/more.txt", "functions/a/r.txt"]);
    }

    #[test]
    fn files_that_name_each_other_in_a_circle_are_named_with_the_line() {
        let circle = |texts: &[(&str, &str)]| {
            let mut files = RequirementFiles::default();
            for (path, text) in texts {
                files.insert((*path).to_owned(), (*text).to_owned(), &|_| None);
            }
            files
                .inputs(&["r.txt".to_owned()])
                .map(|inputs| inputs.files.len())
                .map_err(|error| error.to_string())
        };
        let message = "requirement files go round in a circle";
        assert_eq!(
            circle(&[("r.txt", "six\n-r r.txt\n")]),
            Err(format!("r.txt:2: {message}: r.txt, which names r.txt"))
        );
        assert_eq!(
            circle(&[("r.txt", "-r a/b.txt\n"), ("a/b.txt", "-c ../c.txt\n"), ("c.txt", "-r a/b.txt\n")]),
            Err(format!("c.txt:1: {message}: a/b.txt, which names c.txt, which names a/b.txt"))
        );
        // Twice is no circle.
        assert_eq!(
            circle(&[("r.txt", "-r a.txt\n-r b.txt\n"), ("a.txt", "-r b.txt\n"), ("b.txt", "six\n")]),
            Ok(3)
        );
    }

    #[test]
    fn a_path_outside_the_project_is_refused_with_its_line() {
        let error = files(&[("a/r.txt", "six\n-r ../../up.txt\n")]).references("a/r.txt").unwrap_err();
        assert_eq!(error.to_string(), "a/r.txt:2: `../../up.txt` is outside the project");
        for text in ["-f /srv/wheels", "--find-links=file:///srv/wheels", "-f ../wheels"] {
            let error = files(&[("r.txt", text)]).inputs(&["r.txt".to_owned()]).unwrap_err();
            assert!(error.to_string().ends_with("is outside the project"), "{error}");
        }
    }

    #[test]
    fn a_variable_without_a_value_is_refused_with_its_line_and_a_comment_is_none() {
        let text = "six # ${NONE}\n# ${NONE}\nidna==$X ${x} ${}\none @ \\\n  https://u:${MY_TOKEN2}@h/x\n";
        let error = files(&[("r.txt", text)]).references("r.txt").unwrap_err();
        assert_eq!(error.to_string(), "r.txt:4: the variable MY_TOKEN2 is not set, or is empty");
    }

    #[test]
    fn places_are_collected_in_order_and_only_what_asks_for_packages_asks() {
        let seen = inputs(&[
            ("a/r.txt", "-i https://u:${TOKEN}@h/simple\n-r b.txt\n--no-index -f wheels --pre\n"),
            ("a/b.txt", "--extra-index-url https://e/simple # why\n"),
        ]);
        let places = [
            PlaceOption::Index(Hidden::new("https://u:hush@h/simple")),
            PlaceOption::Extra(Hidden::new("https://e/simple")),
            PlaceOption::NoIndex,
            PlaceOption::Folder("a/wheels".to_owned()),
        ];
        assert_eq!((seen.places.as_slice(), seen.asks), (places.as_slice(), false));
        assert!(!format!("{seen:?}").contains("hush"));
        assert!(!inputs(&[("r.txt", "-c c.txt"), ("c.txt", "six==1")]).asks);
        assert!(inputs(&[("r.txt", "-e ./a")]).asks);
    }

    #[test]
    fn pip_sees_no_index_no_password_and_the_same_line_numbers() {
        let text = "# top\n-i https://u:${TOKEN}@h/simple\nsix \\\n  --hash=sha256:1\n--pre -f wheels\n\
                    one@https://u:${TOKEN}@h/one.zip ; os_name=='x'\n-e git+https://${TOKEN}@h/x # ${TOKEN}\n";
        let files = files(&[("r.txt", text)]);
        let place = |elsewhere: Elsewhere<'_>| match elsewhere {
            Elsewhere::Url(_) => Some("http://l".to_owned()),
            _ => Some("/g".to_owned()),
        };
        let expected = "# top\n\nsix   --hash=sha256:1\n\n--pre\none@http://l ; os_name=='x'\n/g\n";
        assert_eq!(files.for_pip("r.txt", &place), expected);
        assert!(!format!("{files:?}").contains("hush"));
    }

    #[test]
    fn what_is_built_before_has_a_path_in_every_form_that_a_line_can_have() {
        let text = "-e ./a/../b[x] ; os_name=='x'\n../c\nd.zip\none[y] @ git+https://h/one@v1 ; z\n\
                    git+ssh://h/two#egg=two[q]&subdirectory=s\n--editable=git+ssh://h/three\n";
        let files = files(&[("r.txt", text)]);
        let place = |elsewhere: Elsewhere<'_>| match elsewhere {
            Elsewhere::Path(path) => Some(format!("/w/{}", path.replace('/', "%"))),
            Elsewhere::Repository(_) => Some("/g".to_owned()),
            Elsewhere::Url(_) => None,
        };
        let expected = "/w/b[x] ; os_name=='x'\n/w/..%c\n/w/d.zip\none[y] @ file:///g ; z\n/g[q]\n/g\n";
        assert_eq!(files.for_pip("r.txt", &place), expected);
        let paths = inputs(&[("r.txt", text)]).paths;
        assert_eq!(paths.into_iter().collect::<Vec<_>>(), ["../c", "b", "d.zip"]);
    }

    #[test]
    fn what_a_variable_holds_is_not_looked_through_for_variables() {
        let mut files = RequirementFiles::default();
        let variable = |name: &str| Some(if name == "A" { "${B}" } else { "b" }.to_owned());
        files.insert("r.txt".to_owned(), "six==${A}${B}".to_owned(), &variable);
        assert_eq!(files.for_pip("r.txt", &|_| None), "six==${B}b\n");
    }
}
