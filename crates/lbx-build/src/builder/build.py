"""Builds a wheel with the backend that a source names (PEP 517), in a sandbox without a network.

It runs on any Python 3.8, knows nothing but the image's own pip, and is told everything by its arguments, because some
sandboxes have other paths:

    build.py env …    installs the wheels of REQUIRES, and goes on as `hook`
    build.py hook …   unpacks the source, and builds it

What the build needs and has not got is written to OUT/needs.json, and then nothing is built.
"""

import importlib
import json
import mimetypes
import os
import runpy
import shutil
import site
import sys
import tarfile
import zipfile

STEP, SOURCE, SUBDIRECTORY, REQUIRES, FOLDER, OUT, SHIM = sys.argv[1:]
ENVIRONMENT, WORK = os.path.join(FOLDER, "env"), os.path.join(FOLDER, "source")
LEGACY = ["setuptools>=40.8.0"]


def fail(message):
    print("error: " + message, flush=True)
    sys.exit(1)


def install():
    wheels = [os.path.join(REQUIRES, name) for name in sorted(os.listdir(REQUIRES))]
    options = ["--no-index", "--no-deps", "--ignore-installed", "--no-compile", "--no-cache-dir", "--quiet"]
    options += ["--disable-pip-version-check", "--no-warn-script-location", "--target", ENVIRONMENT]
    # Where the host's files can be seen by their names alone, opening this one fails in a way that pip does not expect.
    mimetypes.knownfiles = []
    before, sys.argv = sys.argv, ["pip", "install"] + options + wheels
    try:
        runpy.run_module("pip", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise
    sys.argv = before


def unpack(source, subdirectory):
    """The folder of the source, which is a place where the backend may write."""
    if os.path.isdir(source):
        shutil.copytree(source, WORK, symlinks=True)
        top = WORK
    else:
        os.makedirs(WORK)
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                archive.extractall(WORK)
        else:
            with tarfile.open(source) as archive:
                safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                archive.extractall(WORK, **safe)
        names = os.listdir(WORK)
        top = os.path.join(WORK, names[0]) if len(names) == 1 else WORK
        top = top if os.path.isdir(top) else WORK
    top = os.path.join(top, subdirectory)
    if not any(os.path.isfile(os.path.join(top, name)) for name in ("pyproject.toml", "setup.py")):
        fail("there is neither a pyproject.toml nor a setup.py in " + (subdirectory or "its folder"))
    return top


def toml(path):
    """What a file in TOML says, read by whatever this Python has."""
    for name in ("tomllib", "pip._vendor.tomli", "pip._vendor.toml", "pip._vendor.pytoml"):
        try:
            reader = importlib.import_module(name)
        except ImportError:
            continue
        with open(path, encoding="utf-8") as file:
            return reader.loads(file.read())
    fail("nothing in the image can read pyproject.toml")


def build_system(top):
    path = os.path.join(top, "pyproject.toml")
    said = toml(path).get("build-system") if os.path.isfile(path) else None
    if said is None:
        return LEGACY, "setuptools.build_meta:__legacy__", []
    if not isinstance(said.get("requires"), list):
        fail("its pyproject.toml has no list `requires` in [build-system]")
    requires = said["requires"]
    if "build-backend" not in said:
        has = any(one.lower().startswith("setuptools") for one in requires)
        return requires + ([] if has else LEGACY), "setuptools.build_meta:__legacy__", []
    return requires, said["build-backend"], said.get("backend-path", [])


def enter():
    """Lets the environment of the build take the place of what the image has, here and in what is started from here."""
    for module in [module for module in sys.modules if module.split(".")[0] == "pip"]:
        del sys.modules[module]
    system = {os.path.normcase(path) for path in site.getsitepackages()}
    sys.path = [path for path in sys.path[1:] if os.path.normcase(path) not in system]
    site.addsitedir(ENVIRONMENT)
    os.environ["PYTHONPATH"] = SHIM
    os.environ["LBX_BUILD_ENVIRONMENT"] = ENVIRONMENT


def load(name, paths, top):
    sys.path[:0] = [os.path.join(top, path) for path in paths]
    module, _, attributes = name.partition(":")
    backend = importlib.import_module(module)
    for attribute in filter(None, attributes.split(".")):
        backend = getattr(backend, attribute)
    return backend


def needs(requires):
    with open(os.path.join(OUT, "needs.json"), "w", encoding="utf-8") as file:
        json.dump(sorted(set(requires)), file)


def hook():
    os.umask(0o022)
    top = unpack(SOURCE, SUBDIRECTORY)
    requires, name, paths = build_system(top)
    asked = set(json.loads(os.environ.pop("LBX_ASKED")))
    if not set(requires) <= asked:
        return needs(requires)
    enter()
    os.chdir(top)
    sys.argv = ["setup.py"]
    backend = load(name, paths, top)
    more = list(getattr(backend, "get_requires_for_build_wheel", lambda settings: [])({}))
    if not set(more) <= asked:
        return needs(set(requires) | set(more))
    made = backend.build_wheel(OUT, {}, None)
    print("built " + os.path.basename(made), flush=True)


def main():
    if STEP == "env":
        if os.path.isdir(REQUIRES):
            install()
        os.environ["PATH"] = ENVIRONMENT + "/bin:" + os.environ["PATH"]
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-u", __file__, "hook"] + sys.argv[2:])
    hook()


main()
