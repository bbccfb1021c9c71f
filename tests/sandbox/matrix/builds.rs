//! One build of one example on a host that lacks something, and what came of it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex, OnceLock};

use lbx_testkit::command::{Home, Ran, copy_tree, run, shared_directory_in, succeed};
use lbx_testkit::images::sha256;
use lbx_testkit::restrict::{self, Restriction};
use lbx_testkit::stub::Stub;
use lbx_testkit::{index, standin};
use serde_json::Value;

use crate::rows::{Expected, Row, Store, Tool};

/// All of `examples/` but the one that has no requirements, for which nothing runs.
pub(crate) const EXAMPLES: [&str; 4] = ["service", "layers", "data-science", "sdist-only"];
/// Not `/tmp`, from which programs are taken away.
pub(crate) const GROUND: &str = "/var/tmp";

/// The digests of a build's zips, by name.
type Zips = BTreeMap<String, String>;

/// What all builds share.
pub(crate) struct Site {
    root: PathBuf,
    lbx: PathBuf,
    index: Stub,
    image: String,
    zips: BTreeMap<&'static str, Zips>,
}

/// What came of a build.
#[derive(Debug)]
pub(crate) enum Outcome {
    Built { backend: String, level: String, zips: Zips },
    Refused { code: i32, said: String },
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

impl Site {
    /// The one of this process, with each example built once on the host as it is; none, with a loud word, where there
    /// is no image.
    pub(crate) fn get() -> Option<&'static Self> {
        static SITE: OnceLock<Option<Site>> = OnceLock::new();
        SITE.get_or_init(Self::new).as_ref()
    }

    fn new() -> Option<Self> {
        let (image, index) = (standin::reference("python3.11")?, index::of_examples()?);
        let root = shared_directory_in(Path::new(GROUND));
        // Others than the one who runs the tests build here, too.
        fs_err::set_permissions(&root, PermissionsExt::from_mode(0o755)).expect("our own");
        let lbx = root.join("lbx");
        fs_err::copy(env!("CARGO_BIN_EXE_lbx"), &lbx).expect("a copy");
        let mut site = Self { root, lbx, index, image, zips: BTreeMap::new() };
        site.make_tools();
        for example in EXAMPLES {
            let place = Place::new(&site.root, example);
            let ran = permitted(|| run(&mut site.command(&place, &[], &site.root.join("store"), "")));
            match outcome(&place.project, ran) {
                Outcome::Built { zips, .. } if !zips.is_empty() => site.zips.insert(example, zips),
                other => panic!("{example} on the host as it is: {other:?}"),
            };
        }
        Some(site)
    }

    /// What the other builds are compared with.
    pub(crate) fn zips(&self, example: &str) -> &Zips {
        &self.zips[example]
    }

    /// The program, where every user can execute it.
    pub(crate) fn lbx(&self) -> &Path {
        &self.lbx
    }

    /// What to tell pip.
    pub(crate) fn index_url(&self) -> String {
        format!("http://{}/simple", self.index.address())
    }

    /// The image to build in.
    pub(crate) fn image(&self) -> &str {
        &self.image
    }

    fn command(&self, place: &Place, options: &[&str], store: &Path, path: &str) -> Command {
        let mut command = place.home.command(&self.lbx);
        command.args(["build", "--runtime", "python3.11", "--image", &self.image]).args(options);
        command.current_dir(&place.project).env("LBX_CACHE_DIR", store).env("PATH", path);
        command.env_remove("XDG_CACHE_HOME").env_remove("PIP_EXTRA_INDEX_URL").env("no_proxy", "127.0.0.1");
        command.env("PIP_INDEX_URL", self.index_url());
        command
    }

    /// A folder with this tool and nothing else.
    fn path(&self, tool: Option<Tool>) -> String {
        self.root.join(format!("tool-{tool:?}")).to_str().expect("UTF-8").to_owned()
    }

    fn make_tools(&self) {
        for tool in [None, Some(Tool::Proot), Some(Tool::Bwrap), Some(Tool::SetuidBwrap)] {
            let folder = PathBuf::from(self.path(tool));
            fs_err::create_dir(&folder).expect("a directory");
            let link = |name: &str| {
                let program = Path::new("/usr/bin").join(name);
                std::os::unix::fs::symlink(program, folder.join(name)).expect("a link");
            };
            match tool {
                None => {}
                Some(Tool::Proot) => link("proot"),
                Some(Tool::Bwrap) => link("bwrap"),
                Some(Tool::SetuidBwrap) => {
                    let copy = folder.join("bwrap");
                    fs_err::copy("/usr/bin/bwrap", &copy).expect("a copy");
                    fs_err::set_permissions(&copy, PermissionsExt::from_mode(0o4755)).expect("our own");
                }
            }
        }
    }

    fn store(&self, row: &Row, user: Option<u32>) -> PathBuf {
        let name = match (row.store, user) {
            (Store::Own, _) => row.name.replace(' ', "-"),
            (_, Some(id)) => format!("of-{id}"),
            (_, None) => return self.root.join("store"),
        };
        let folder = self.root.join(name);
        fs_err::create_dir_all(&folder).expect("a directory");
        // What is in it already is that user's own.
        std::os::unix::fs::chown(&folder, user, user).expect("only root has rows of other users");
        folder.join("store")
    }
}

/// A copy of an example, in a home. Below the site, so that it goes even when the test is killed.
pub(crate) struct Place {
    home: Home,
    project: PathBuf,
}

impl Place {
    fn new(parent: &Path, example: &str) -> Self {
        let home = Home::new_in(parent);
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(example);
        let project = home.project().join(example);
        copy_tree(&from, &project, false);
        Self { home, project }
    }
}

/// Builds an example on a row's host.
pub(crate) fn build(site: &Site, example: &str, row: &Row) -> Outcome {
    let place = Place::new(&site.root, example);
    let user = row.lacks.iter().find_map(|one| match one {
        Restriction::User(id) => Some(*id),
        _ => None,
    });
    let (store, path) = (site.store(row, user), site.path(row.tool));
    give(place.home.root(), user);
    let mut command = site.command(&place, row.options, &store, &path);
    if row.store == Store::Default {
        command.env_remove("LBX_CACHE_DIR");
    }
    let mut command = restrict::wrap(row.lacks, &command, "helper_restricted");
    outcome(&place.project, permitted(|| run(&mut command)))
}

/// Hands a tree to a user.
pub(crate) fn give(path: &Path, user: Option<u32>) {
    if let Some(id) = user {
        succeed(Command::new("chown").arg("-R").arg(format!("{id}:{id}")).arg(path));
    }
}

/// What a build left behind.
pub(crate) fn outcome(project: &Path, ran: Ran) -> Outcome {
    if ran.code != 0 {
        return Outcome::Refused { code: ran.code, said: ran.stderr };
    }
    let dist = project.join("dist");
    let report = fs_err::read(dist.join("report.json")).expect("a report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    let word = |name: &str| report["measured"]["sandbox"][name].as_str().expect("a word").to_owned();
    let mut zips = Zips::new();
    for entry in fs_err::read_dir(&dist).expect("a listing") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "zip") {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            zips.insert(name, sha256(&fs_err::read(&path).expect("a zip")));
        }
    }
    Outcome::Built { backend: word("backend"), level: word("level"), zips }
}

impl Outcome {
    /// Compares it with what is expected, and says how it differs.
    pub(crate) fn is(&self, site: &Site, example: &str, expected: &Expected) -> Result<(), String> {
        match (self, expected) {
            (Self::Built { backend, level, .. }, Expected::Built { backend: wanted, level: least })
                if backend != wanted || level != least =>
            {
                Err(format!("built in {backend} ({level}), not in {wanted} ({least})"))
            }
            (Self::Built { zips, .. }, Expected::Built { .. }) if zips != site.zips(example) => {
                Err(format!("other bytes: {zips:?}, not {:?}", site.zips(example)))
            }
            (Self::Built { .. }, Expected::Built { .. }) => Ok(()),
            (Self::Refused { code, said }, Expected::Refused { code: wanted, because })
                if code == wanted && said.contains(because) =>
            {
                Ok(())
            }
            (Self::Built { backend, level, .. }, Expected::Refused { .. }) => {
                Err(format!("built in {backend} ({level}), not {expected:?}"))
            }
            (Self::Refused { code, said }, _) => Err(format!("exit code {code}, not {expected:?}:\n{said}")),
        }
    }
}

/// Runs a build when fewer than two others run.
pub(crate) fn permitted<T>(work: impl FnOnce() -> T) -> T {
    static FREE: (Mutex<u8>, Condvar) = (Mutex::new(2), Condvar::new());
    let (free, changed) = &FREE;
    let none = |free: &mut u8| *free == 0;
    *changed.wait_while(free.lock().expect("no panic"), none).expect("no panic") -= 1;
    let result = work();
    *free.lock().expect("no panic") += 1;
    changed.notify_one();
    result
}
