//! Builds in containers of podman and runc: their filters, masks and capabilities as they really are.
//!
//! The container is a stand-in image, the newest, whose C library is at least as new as what the binary needs. podman
//! lives in mount and process namespaces of its own, with its storage in a folder of this test: nothing of it is left,
//! however the test ends.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lbx_testkit::command::{Ran, copy_tree, run, shared_directory_in, succeed};
use lbx_testkit::restrict::{DOCKER_PROFILE, docker_capabilities};
use lbx_testkit::standin;

use crate::builds::{GROUND, Site, give, is_root, outcome, permitted};
use crate::rows::{CONTAINERS, Container, Profile};

/// What is built in each container.
const EXAMPLES: [&str; 1] = ["sdist-only"];
/// The image that the containers are made of.
const RUNTIME: &str = "python3.13";
/// The host's certificates. The image has none, and without any lbx starts no client.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Gives podman a machine of its own, as far as files go: what it writes to the host's folders stays in memory. Then
/// the script of the containers.
const ROOM: &str = r#"
mkdir "$HOME/memory"
mount -t tmpfs none "$HOME/memory"
for folder in /etc /var/lib /var/cache; do
    upper="$HOME/memory/upper$folder" work="$HOME/memory/work$folder"
    mkdir -p "$upper" "$work"
    mount -t overlay none -o "lowerdir=$folder,upperdir=$upper,workdir=$work" $folder
done
mount -t tmpfs none /run
mount -t tmpfs none /dev/shm
. "$HOME/containers"
"#;

/// Builds the examples in a container, and notes what comes of each.
const BUILD: &str = r#"
for example in sdist-only; do
    cd /place/projects/$example
    code=0
    lbx build --runtime python3.11 --image "$1" 2> /place/$example.said || code=$?
    echo $code > /place/$example.code
done
"#;

#[test]
fn in_containers_of_podman_and_runc_the_examples_are_built_as_expected() {
    if !is_root() {
        return eprintln!("SKIP: containers are made by root, and tested when root tests");
    }
    let (Some(site), Some(layout)) = (Site::get(), standin::layout(RUNTIME)) else { return };
    let room = Room::new();
    let ran = permitted(|| room.run(site, &layout));
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut wrong = Vec::new();
    for container in CONTAINERS {
        for example in EXAMPLES {
            let project = room.place(container).join("projects").join(example);
            let outcome = outcome(&project, room.ran(container, example, &ran));
            if let Err(difference) = outcome.is(site, example, &container.expected) {
                wrong.push(format!("{} × {example}: {difference}", container.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{ran:?}", wrong.join("\n"));
}

/// The folder with podman's storage, and for each container one that is its `/place`.
struct Room(PathBuf);

impl Room {
    fn new() -> Self {
        let room = Self(shared_directory_in(Path::new(GROUND)));
        // The places of other users are below.
        fs_err::set_permissions(&room.0, PermissionsExt::from_mode(0o755)).expect("our own");
        fs_err::write(room.0.join("docker.json"), DOCKER_PROFILE).expect("a profile");
        for container in CONTAINERS {
            let place = room.place(container);
            for example in EXAMPLES {
                let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(example);
                copy_tree(&from, &place.join("projects").join(example), false);
            }
            give(&place, container.user);
        }
        room
    }

    fn place(&self, container: &Container) -> PathBuf {
        self.0.join(container.name.replace([' ', ','], "-"))
    }

    /// How a build ended in a container, and what it said.
    fn ran(&self, container: &Container, example: &str, podman: &Ran) -> Ran {
        let read = |what: &str| {
            let path = self.place(container).join(format!("{example}.{what}"));
            fs_err::read_to_string(path)
                .unwrap_or_else(|error| panic!("{}: {error}\n{podman:?}", container.name))
        };
        let code = read("code").trim().parse().expect("an exit code");
        Ran { code, stdout: String::new(), stderr: read("said") }
    }

    /// Makes all containers, one after the other.
    fn run(&self, site: &Site, layout: &Path) -> Ran {
        let mut script =
            format!("image=$({} pull --quiet oci:{})\n", self.podman().join(" "), layout.display());
        for container in CONTAINERS {
            let words = self.words(site, container).join(" ");
            script = format!("{script}{words} $image -euc '{BUILD}' sh {} || :\n", site.image());
        }
        fs_err::write(self.0.join("containers"), script).expect("a script");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-euc", ROOM]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", &self.0);
        let ran = run(&mut command);
        // With their namespace, all of podman's processes are gone; the groups that they were in are not.
        let find = ["/sys/fs/cgroup", "-depth", "-type", "d", "-path"];
        let mut groups = Command::new("find");
        groups.args(find).arg(format!("*/{}*", self.group()));
        succeed(groups.args(["-exec", "rmdir", "{}", ";"]));
        ran
    }

    /// What the groups of processes are named after.
    fn group(&self) -> String {
        self.0.file_name().expect("a name").to_string_lossy().into_owned()
    }

    fn podman(&self) -> Vec<String> {
        let storage = format!("--root={}", self.0.join("storage").display());
        let rest =
            ["--runroot=/run/containers", "--tmpdir=/run/libpod", "--storage-driver=vfs", "--runtime=runc"];
        let own = ["--cgroup-manager=cgroupfs", "--events-backend=file"];
        let words = ["podman", &storage].into_iter().chain(rest).chain(own);
        words.map(str::to_owned).collect()
    }

    /// `podman run`, up to the image.
    fn words(&self, site: &Site, container: &Container) -> Vec<String> {
        let mut words = self.podman();
        let mut add = |list: &[&str]| words.extend(list.iter().map(|word| (*word).to_owned()));
        add(&["run", "--rm", "--network=host", "--entrypoint=/bin/sh"]);
        add(&["--ulimit=nofile=1024:20000", "--ulimit=nproc=1000:1000"]);
        add(&[&format!("--cgroup-parent=/{}", self.group())]);
        add(&[&format!("--volume={}:/place", self.place(container).display())]);
        add(&[&format!("--volume={}:/usr/local/bin/lbx:ro", site.lbx().display())]);
        add(&[&format!("--volume={CERTIFICATES}:{CERTIFICATES}:ro")]);
        add(&["--env=PATH=/usr/local/bin:/usr/bin:/bin", "--env=LBX_CACHE_DIR=/place/store"]);
        add(&[&format!("--env=PIP_INDEX_URL={}", site.index_url())]);
        match container.profile {
            Profile::Podman => {}
            Profile::Docker => {
                add(&[&format!("--security-opt=seccomp={}", self.0.join("docker.json").display())]);
            }
            Profile::Doctor => {
                let flags = succeed(Command::new(site.lbx()).args(["doctor", "--docker"]));
                add(&flags.split_whitespace().collect::<Vec<_>>());
            }
        }
        match (container.user, container.profile) {
            (Some(id), _) => {
                add(&[&format!("--user={id}:{id}"), "--cap-drop=ALL", "--security-opt=no-new-privileges"]);
            }
            (None, Profile::Docker) => {
                add(&["--cap-drop=ALL", &format!("--cap-add={}", docker_capabilities().join(","))]);
            }
            (None, _) => {}
        }
        words
    }
}
