//! Whose the files of an artifact are, as far as can be told from what is installed in it: by RECORD where installers have
//! left it, else by the names of top-level modules.

use std::collections::{BTreeMap, HashMap, HashSet};

use lbx_plan::prune::{Choices, Distribution, Origin, Policy, Set};
use lbx_wheel::{Metadata, normalize_name, recorded_paths};

use super::contents::{Contents, Entry, Kind, resolve};
use crate::error::Error;
use crate::installed::{self, MAX_METADATA};

/// The most bytes of a RECORD that are read.
const MAX_RECORD: u64 = 16 << 20;
/// Who owns what belongs to no package.
pub(super) const OWN: &str = "own code";
/// Who owns what several packages have together, as in a namespace.
const SEVERAL: &str = "several packages";

/// A package that is installed.
pub(super) struct Package {
    /// `NAME VERSION`.
    label: String,
    /// Its normalised name.
    name: String,
    requires: Vec<String>,
}

/// Whose is what.
#[derive(Default)]
pub(super) struct Owners {
    packages: Vec<Package>,
    /// Exact paths, with the length of the folder that their package is installed in.
    files: HashMap<String, (usize, usize)>,
    /// The folders that packages are installed in: empty, or ending in `/`.
    sites: HashSet<String>,
    /// Names at the top of a folder of packages; none where several have it.
    tops: HashMap<(String, String), Option<usize>>,
}

impl Owners {
    /// Looks for packages.
    pub(super) fn of(contents: &Contents) -> Result<Self, Error> {
        let mut owners = Self::default();
        let by_path: HashMap<&str, &Entry> = contents
            .entries
            .iter()
            .filter(|entry| entry.kind == Kind::File)
            .map(|entry| (entry.path.as_str(), entry))
            .collect();
        for entry in contents.entries.iter().filter(|entry| entry.kind == Kind::File) {
            let Some((site, folder)) = installed::installed_anywhere(&entry.path) else { continue };
            let metadata = contents.start(entry, MAX_METADATA)?;
            let Some((name, version)) = installed::package(&metadata, folder) else { continue };
            let package = owners.packages.len();
            owners.sites.insert(site.to_owned());
            let requires =
                Metadata::parse(&metadata).map(|metadata| metadata.requires_dist).unwrap_or_default();
            let (label, name) = (format!("{name} {version}"), normalize_name(&name));
            owners.packages.push(Package { label, name: name.clone(), requires });
            let text = |file: &str| {
                let entry = by_path.get(format!("{site}{folder}.dist-info/{file}").as_str());
                entry.map(|entry| contents.start(entry, MAX_RECORD)).transpose()
            };
            owners.claim(site, &format!("{folder}.dist-info"), package);
            owners.claim(site, &name, package);
            if let Some(record) = text("RECORD")? {
                let record = String::from_utf8_lossy(&record);
                for path in recorded_paths(&record) {
                    if let Some(entry) = below(site, &path).and_then(|path| by_path.get(path.as_str())) {
                        owners.files.insert(entry.path.clone(), (package, site.len()));
                    }
                }
            } else if let Some(modules) = text("top_level.txt")? {
                let modules = String::from_utf8_lossy(&modules).into_owned();
                for module in modules.lines().map(str::trim).filter(|line| !line.is_empty()) {
                    owners.claim(site, module, package);
                }
            }
        }
        Ok(owners)
    }

    fn claim(&mut self, site: &str, top: &str, package: usize) {
        let claimed = self.tops.entry((site.to_owned(), top.to_owned())).or_insert(Some(package));
        if *claimed != Some(package) {
            *claimed = None;
        }
    }

    /// Whose a file is, and whether it is the user's own.
    pub(super) fn owner(&self, path: &str) -> (&str, bool) {
        match self.find(path) {
            Owner::Package(package, _) => (&self.packages[package].label, false),
            Owner::Several => (SEVERAL, false),
            Owner::Nobody => (OWN, true),
        }
    }

    /// The set of rules that would leave each of these files out.
    pub(super) fn offers<'p>(&self, paths: impl Iterator<Item = &'p str> + Clone) -> Vec<Option<Set>> {
        let mut of_packages: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for path in paths.clone() {
            if let Owner::Package(package, site) = self.find(path) {
                of_packages.entry(package).or_default().extend(path.get(site..));
            }
        }
        let mut policy = Policy::new(&Choices::default());
        for (package, paths) in of_packages {
            let Package { name, requires, .. } = &self.packages[package];
            policy.prepare(Distribution { name, requires }, paths);
        }
        let offered = |path: &str| match self.find(path) {
            Owner::Package(package, site) => {
                let origin = Origin::Wheel { distribution: &self.packages[package].name, script: false };
                policy.offered(path.get(site..)?, origin)
            }
            Owner::Several | Owner::Nobody => None,
        };
        paths.map(offered).collect()
    }

    fn find(&self, path: &str) -> Owner {
        if let Some(&(package, site)) = self.files.get(path) {
            return Owner::Package(package, site);
        }
        let folders = path.match_indices('/').map(|(slash, _)| &path[..=slash]);
        let sites: Vec<&str> =
            [""].into_iter().chain(folders).filter(|folder| self.sites.contains(*folder)).collect();
        for site in sites.into_iter().rev() {
            let top = path[site.len()..].split('/').next().unwrap_or_default();
            let stem = top.split('.').next().unwrap_or_default();
            // A module's name, a folder with libraries beside it, and a dist-info.
            for name in [top.to_owned(), stem.to_owned(), normalize_name(stem)] {
                match self.tops.get(&(site.to_owned(), name)) {
                    Some(Some(package)) => return Owner::Package(*package, site.len()),
                    Some(None) => return Owner::Several,
                    None => {}
                }
            }
        }
        Owner::Nobody
    }
}

/// Whose something is.
enum Owner {
    /// A package's, which is installed in a folder whose name has so many bytes.
    Package(usize, usize),
    Several,
    Nobody,
}

/// A path of a RECORD in the artifact; none where it leads out. With `pip install --target`, programs are elsewhere than
/// RECORD says: beside the packages.
fn below(site: &str, path: &str) -> Option<String> {
    let at = format!("{site}x");
    resolve(&at, path).or_else(|| resolve(&at, path.trim_start_matches("../")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancel;

    fn owners(files: &[(&str, &str)]) -> Owners {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        let contents = Contents::list(root.path(), &lbx_archive::Limits::default(), &Cancel::new()).unwrap();
        Owners::of(&contents).unwrap()
    }

    const METADATA: &str = "Metadata-Version: 2.1\nName: Some.Package\nVersion: 1.0\n";

    #[test]
    fn a_record_tells_whose_each_file_is() {
        let record = "x.py,sha256=abc,3\n../../bin/tool,,\n\"with,comma.py\",,\n../../../../../bin/out,,\n";
        let site = |path: &str| format!("python/lib/python3.11/site-packages/{path}");
        let files = [
            ("some_package-1.0.dist-info/METADATA", METADATA),
            ("some_package-1.0.dist-info/RECORD", record),
            ("x.py", ""),
            ("with,comma.py", ""),
            ("bin/out", ""),
            ("../../bin/tool", ""),
        ];
        let files =
            files.map(|(path, text)| (site(path).replace("python3.11/site-packages/../../", ""), text));
        let owners = owners(&files.each_ref().map(|(path, text)| (path.as_str(), *text)));
        let theirs = [
            "x.py",
            "with,comma.py",
            "bin/out",
            "some_package-1.0.dist-info/METADATA",
            "some_package.libs/a.so",
        ];
        for path in theirs {
            let path = format!("python/lib/python3.11/site-packages/{path}");
            assert_eq!(owners.owner(&path), ("Some.Package 1.0", false), "{path}");
        }
        assert_eq!(owners.owner("python/lib/bin/tool"), ("Some.Package 1.0", false));
        assert_eq!(owners.owner("app.py"), (OWN, true));
        assert_eq!(owners.owner("python/lib/python3.11/site-packages/y.py"), (OWN, true));
    }

    #[test]
    fn without_a_record_names_of_modules_do() {
        let other = METADATA.replace("Some.Package", "other");
        let owners = owners(&[
            ("some_package-1.0.dist-info/METADATA", METADATA),
            ("some_package-1.0.dist-info/top_level.txt", "_odd\nshared\n"),
            ("other-1.0.dist-info/METADATA", &other),
            ("other-1.0.dist-info/top_level.txt", "shared\n"),
        ]);
        for path in ["_odd.cpython-311-x86_64-linux-gnu.so", "some_package/a/b.py", "some_package.libs/c.so"]
        {
            assert_eq!(owners.owner(path), ("Some.Package 1.0", false), "{path}");
        }
        assert_eq!(owners.owner("other.py"), ("other 1.0", false));
        assert_eq!(owners.owner("shared/x.py"), (SEVERAL, false));
        assert_eq!(owners.owner("app/some_package/x.py"), (OWN, true));
    }

    #[test]
    fn packages_are_found_wherever_they_are() {
        let owners = owners(&[("vendor/some_package-1.0.dist-info/METADATA", METADATA)]);
        assert_eq!(owners.owner("vendor/some_package/x.py"), ("Some.Package 1.0", false));
        assert_eq!(owners.owner("some_package/x.py"), (OWN, true));
    }

    #[test]
    fn what_rules_would_leave_out_of_a_package_is_offered() {
        let owners = owners(&[("python/some_package-1.0.dist-info/METADATA", METADATA)]);
        let paths = [
            "python/some_package/__init__.py",
            "python/some_package/tests/test_a.py",
            "python/app/tests/test_a.py",
        ];
        let offered = owners.offers(paths.into_iter());
        assert_eq!(offered, [None, Some(Set::Tests), None]);
    }
}
