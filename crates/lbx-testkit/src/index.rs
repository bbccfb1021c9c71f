//! A package index on loopback: a folder of wheels and source distributions, as pip asks for them (PEP 503).
//!
//! Tests that build the same projects many times ask this one, so that they neither wait for a far one nor weary it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::images::sha256;
use crate::standin::must_run;
use crate::stub::{Reply, Request, Stub};

/// The variable that holds the folder with what the examples need.
const FOLDER: &str = "LBX_TEST_INDEX";

/// A file of the index.
struct Distribution {
    path: PathBuf,
    digest: String,
}

/// All files by the name of their project, and then by their own.
type Projects = BTreeMap<String, BTreeMap<String, Distribution>>;

/// Serves what the examples need; none, with a loud word, when nobody fetched it.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests are told about their surroundings this way"
)]
pub fn of_examples() -> Option<Stub> {
    let Ok(folder) = std::env::var(FOLDER) else {
        assert!(!must_run("sandbox"), "{FOLDER} is not set, and LBX_MUST_RUN forbids skipping");
        eprintln!("SKIP: {FOLDER} is not set; run `cargo xtask test`");
        return None;
    };
    Some(serve(Path::new(&folder)))
}

/// Serves a folder. pip finds it at `http://ADDRESS/simple`.
pub fn serve(folder: &Path) -> Stub {
    serve_with(folder, |_, reply| reply)
}

/// The same, with each answer passed through `change`.
pub fn serve_with(folder: &Path, change: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) -> Stub {
    let projects = projects(folder);
    Stub::start(move |request| change(request, answer(&projects, request)))
}

fn projects(folder: &Path) -> Projects {
    let mut projects = Projects::new();
    for entry in fs_err::read_dir(folder).expect("a listing") {
        let path = entry.expect("an entry").path();
        let file = path.file_name().and_then(|name| name.to_str()).expect("UTF-8").to_owned();
        if let Some(project) = project(&file) {
            let digest = sha256(&fs_err::read(&path).expect("a distribution")).replace(':', "=");
            projects.entry(project).or_default().insert(file, Distribution { path, digest });
        }
    }
    projects
}

/// The project's normalised name, from the name of a wheel or a source distribution.
fn project(file: &str) -> Option<String> {
    let name = match (file.strip_suffix(".whl"), file.strip_suffix(".tar.gz")) {
        (Some(stem), _) => stem.split_once('-')?.0,
        (_, Some(stem)) => stem.rsplit_once('-')?.0,
        _ => return None,
    };
    Some(name.to_lowercase().replace(['_', '.'], "-"))
}

fn answer(projects: &Projects, request: &Request) -> Reply {
    let mut parts = request.path.trim_matches('/').split('/');
    let found = match (parts.next(), parts.next().and_then(|name| projects.get(name)), parts.next()) {
        (Some("simple"), Some(files), None) => Some(page(files)),
        (Some("files"), Some(files), Some(file)) => {
            files.get(file).map(|one| Reply::new(200, &fs_err::read(&one.path).expect("a distribution")))
        }
        _ => None,
    };
    found.unwrap_or_else(|| Reply::new(404, b""))
}

/// The page of a project. Its links are relative to it.
fn page(files: &BTreeMap<String, Distribution>) -> Reply {
    let link = |(file, one): (&String, &Distribution)| {
        let project = project(file).unwrap_or_default();
        format!("<a href=\"/files/{project}/{file}#{}\">{file}</a><br>\n", one.digest)
    };
    let links: String = files.iter().map(link).collect();
    Reply::new(200, format!("<!DOCTYPE html>\n<html><body>\n{links}</body></html>\n").as_bytes())
        .with_header("Content-Type", "text/html")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::request;
    use crate::wheels::{Wheel, sdist};

    #[test]
    fn a_project_has_its_files_under_its_normalised_name() {
        let folder = tempfile::tempdir().expect("a directory");
        let wheel = Wheel::new("My_Project", "1.0").write(folder.path());
        sdist(folder.path(), "my.project", "0.9", &[]);
        fs_err::write(folder.path().join("complete"), "").expect("a file");
        let index = serve(folder.path());
        let get = |path: &str| request(index.address(), "GET", path, &[], &[]).expect("an answer");
        let page = String::from_utf8(get("/simple/my-project/").body).expect("UTF-8");
        assert_eq!(page.matches("<a ").count(), 2, "{page}");
        let digest = sha256(&fs_err::read(&wheel).expect("a wheel")).replace(':', "=");
        assert!(
            page.contains(&format!("/files/my-project/My_Project-1.0-py3-none-any.whl#{digest}")),
            "{page}"
        );
        assert_eq!(
            get("/files/my-project/My_Project-1.0-py3-none-any.whl").body,
            fs_err::read(wheel).expect("a wheel")
        );
        assert_eq!(get("/simple/other/").status, 404);
    }
}
