//! What is wrong with a registry or an image: named, with the code for images, and nothing is built or kept.

use lbx_testkit::command::Home;
use lbx_testkit::images::{Image, Layer, Tar};
use lbx_testkit::registry::Registry;
use lbx_testkit::standin;

use crate::support::{fails, lbx, lbx_shared};

/// The exit code for everything here.
const IMAGE: i32 = 4;

/// A home with a function and no configuration.
fn home() -> Home {
    let home = Home::new();
    home.write("app.py", "");
    home.write("requirements.txt", "six\n");
    home
}

/// `lbx build` in an image fails, and this is what it says.
#[track_caller]
fn refused(home: &Home, image: &str, expected: &str) {
    fails(home, &mut lbx(home, &["build", "--runtime", "python3.11", "--image", image]), IMAGE, expected);
}

/// An image with one file and no Python.
fn small() -> Image {
    Image::new("amd64", vec![Layer::gzip(&Tar::new().file("hello", 0o644, b"hello").finish())])
}

#[test]
fn a_registry_that_is_down_is_named() {
    refused(
        &home(),
        "127.0.0.1:1/lambda/python:3.11",
        "error: cannot get the image `127.0.0.1:[PORT]/lambda/python:3.11`: cannot reach 127.0.0.1:[PORT]: Connection refused (os error 111)\n\
        hint: check the network and the registry's name; an image that was pulled before can be used offline\n",
    );
}

#[test]
fn an_unknown_tag_is_named_and_so_is_an_unknown_digest() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path());
    registry.push_image("python", "3.11", &small());
    refused(
        &home(),
        &registry.reference("python", "3.12"),
        "error: cannot get the image `127.0.0.1:[PORT]/python:3.12`: 127.0.0.1:[PORT] has no python:3.12\n\
        hint: check the repository and the tag\n",
    );
    let digest = format!("{}/python@sha256:{}", registry.address(), "0".repeat(64));
    refused(
        &home(),
        &digest,
        "error: cannot get the image `127.0.0.1:[PORT]/python@sha256:[DIGEST]`: 127.0.0.1:[PORT] has no python@sha256:[DIGEST]\n\
        hint: check the repository and the tag\n",
    );
}

#[test]
fn bytes_that_do_not_have_their_digest_are_refused() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path());
    let image = small();
    registry.push_image("python", "3.11", &image);
    let file = registry.blob_file(&image.layers[0].digest());
    let mut bytes = fs_err::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs_err::write(&file, bytes).unwrap();
    let home = home();
    refused(
        &home,
        &registry.reference("python", "3.11"),
        "error: cannot get the image `127.0.0.1:[PORT]/python:3.11`: blob sha256:[DIGEST] has the digest sha256:[DIGEST], expected sha256:[DIGEST]\n\
        hint: the registry, a mirror or a proxy sent other bytes than were published; nothing of it was kept\n",
    );
    let layers = home.cache().join("lbx/layers/v1");
    assert_eq!(fs_err::read_dir(layers).unwrap().count(), 0, "no layer was kept");
}

#[test]
fn an_image_for_another_cpu_says_what_it_is_for() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path());
    let image = Image::new("arm64", small().layers);
    registry.push_image("python", "3.11", &image);
    refused(
        &home(),
        &registry.reference("python", "3.11"),
        "error: cannot get the image `127.0.0.1:[PORT]/python:3.11`: 127.0.0.1:[PORT]/python:3.11 has no image for linux/amd64\n\
        hint: there is one for linux/arm64\n",
    );
}

/// The start of a program for a CPU (`e_machine` of the ELF specification), which is all that the kernel reads of
/// one for another.
fn program(machine: u8) -> Vec<u8> {
    let mut header = vec![0; 120];
    header[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
    header[16] = 2;
    header[18] = machine;
    header
}

#[test]
fn programs_for_a_cpu_that_this_host_cannot_run_say_so() {
    const X86_64: u8 = 62;
    const AARCH64: u8 = 183;
    let (oci, arch, machine) = match std::env::consts::ARCH {
        "x86_64" => ("arm64", "arm64", AARCH64),
        _ => ("amd64", "x86_64", X86_64),
    };
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path());
    let tar = Tar::new().file("var/lang/bin/python3.11", 0o755, &program(machine)).finish();
    registry.push_image("python", "3.11", &Image::new(oci, vec![Layer::gzip(&tar)]));
    let image = registry.reference("python", "3.11");
    let home = home();
    let (host, machine) = (std::env::consts::ARCH, if machine == AARCH64 { "aarch64" } else { "x86_64" });
    fails(
        &home,
        lbx(&home, &["run", "--runtime", "python3.11", "--arch", arch, "--image", &image, "--", "true"])
            .env("PATH", "/nonexistent"),
        IMAGE,
        &format!(
            "error: this host ({host}) cannot run the programs of the image `127.0.0.1:[PORT]/python:3.11`, which are for {arch}: there is no qemu-{machine}-static on the PATH\n\
            hint: build on a host with that CPU, or set `arch` to something other than {arch}, or install qemu-user-static: \
            from Linux 6.7 on, with the backend namespaces, that is all, and otherwise it must be registered with the host (binfmt)\n"
        ),
    );
}

#[test]
fn an_image_without_python_says_what_was_looked_for() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path());
    registry.push_image("python", "3.11", &small());
    refused(
        &home(),
        &registry.reference("python", "3.11"),
        "error: the image `127.0.0.1:[PORT]/python:3.11` has no Python: tried /var/lang/bin/python3.11, python3.11, python3, python\n\
        hint: use an image with Python, such as the runtime's own (leave `image` out)\n",
    );
}

#[test]
fn an_image_with_another_python_says_which_runtime_it_is_for() {
    let Some(image) = standin::reference("python3.9") else { return };
    refused(
        &home(),
        &image,
        "error: the image `127.0.0.1:[PORT]/lambda/python:3.9` has Python 3.9.2, but python3.11 needs 3.11\n\
        hint: set the runtime to python3.9, or take another image\n",
    );
}

#[test]
fn an_image_whose_python_has_no_pip_says_so_also_when_something_of_pip_is_left() {
    const PACKAGES: &str = "var/lang/lib/python3.11/site-packages";
    let layers = [
        ("3.11-no-packages", Tar::new().opaque(PACKAGES)),
        // What a package manager notes about pip stays.
        ("3.11-no-pip", Tar::new().whiteout(&format!("{PACKAGES}/pip"))),
    ];
    for (tag, layer) in layers {
        let Some(image) = standin::with_layer("python3.11", tag, &Layer::gzip(&layer.finish())) else {
            return;
        };
        let home = home();
        fails(
            &home,
            &mut lbx_shared(&home, &["build", "--runtime", "python3.11", "--image", &image]),
            IMAGE,
            &format!(
                "error: the Python of the image `127.0.0.1:[PORT]/lambda/python:{tag}` has no pip\n\
                hint: use an image with pip, such as the runtime's own (leave `image` out)\n"
            ),
        );
    }
}

#[test]
fn a_reference_that_is_none_says_what_one_looks_like() {
    refused(
        &home(),
        "python:3.11",
        "error: cannot get the image `python:3.11`: `python:3.11` does not say which registry the image is in\n\
        hint: did you mean `public.ecr.aws/lambda/python:3.11` or `docker.io/library/python:3.11`?\n",
    );
    refused(
        &home(),
        "127.0.0.1:1/Python:3.11",
        "error: cannot get the image `127.0.0.1:[PORT]/Python:3.11`: `127.0.0.1:[PORT]/Python:3.11` is not an image reference: the repository has lower-case letters, digits, `.`, `_`, `-` between slashes only\n",
    );
}

#[test]
fn offline_means_that_a_missing_image_is_an_error() {
    let home = home();
    let arguments = ["build", "--runtime", "python3.11", "--offline", "--image", "127.0.0.1:1/python:3.11"];
    fails(
        &home,
        &mut lbx(&home, &arguments),
        IMAGE,
        "error: cannot get the image `127.0.0.1:[PORT]/python:3.11`: 127.0.0.1:[PORT]/python:3.11 is not in the store, and the network is off\n\
        hint: pull the image once with the network on\n",
    );
}
