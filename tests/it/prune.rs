//! What is left out, with real packages: they work without what all sets take, and would not without what is taken by name
//! elsewhere. Each case is a report that somebody wrote of such a tool.
//!
//! The packages come from `LBX_TEST_PRUNE`, a folder of wheels for Python 3.11 on x86-64; what imports them is this
//! machine's own `python3`, if it is such a one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use lbx_testkit::command::{Home, run, stable_report};
use lbx_testkit::images::sha256;
use lbx_testkit::index;
use lbx_testkit::standin::must_run;
use lbx_testkit::stub::Stub;
use lbx_testkit::wheels::Wheel;

use crate::support::{HEAD, lbx};

const SETS: &str = "sets = [\"tests\", \"docs\", \"typing\", \"sources\", \"locales\", \"examples\"]\n";

/// The folder of wheels; none, with a loud word, where nobody fetched it or no Python here can import them.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test has no other way to be told, and to tell"
)]
fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("LBX_TEST_PRUNE").map(PathBuf::from);
    let version = "import platform, sys; print(sys.version_info[:2], platform.machine())";
    let python = run(Command::new("python3").args(["-I", "-c", version])).stdout;
    if folder.is_some() && python.trim() == "(3, 11) x86_64" {
        return folder;
    }
    assert!(
        !(folder.is_none() && must_run("wheels")),
        "LBX_TEST_PRUNE is not set, and LBX_MUST_RUN forbids skipping"
    );
    eprintln!("SKIP: LBX_TEST_PRUNE is not set, or python3 is {}", python.trim());
    None
}

/// The line of a requirement file for each wheel: with a hash, so that neither pip nor an image is needed.
fn lines(folder: &Path, packages: &[&str]) -> String {
    let mut files: Vec<PathBuf> =
        fs_err::read_dir(folder).expect("a listing").flatten().map(|entry| entry.path()).collect();
    files.sort();
    let line = |package: &&str| {
        let is_it = |path: &&PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            name.split('-').next() == Some(*package)
        };
        let path = files.iter().find(is_it).unwrap_or_else(|| panic!("no wheel of {package}"));
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let version = name.split('-').nth(1).unwrap_or_default();
        format!("{package}=={version} --hash={}\n", sha256(&fs_err::read(path).expect("a wheel")))
    };
    packages.iter().map(line).collect()
}

/// A project whose function has this code, these packages, and this table `[prune]`.
fn project(code: &str, requirements: &str, prune: &str) -> Home {
    let home = Home::new();
    home.write("src/app.py", code);
    home.write("r.txt", requirements);
    let function = "[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n";
    home.write("lbx.toml", format!("{HEAD}[prune]\n{prune}{function}"));
    home
}

/// Builds it, and unpacks the zip beside it.
#[track_caller]
fn build(home: &Home, index: &Stub) -> PathBuf {
    let mut command = lbx(home, &["build", "--image", "127.0.0.1:1/none:1"]);
    command.env("PIP_INDEX_URL", format!("http://{}/simple", index.address()));
    let ran = run(&mut command);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let tree = home.root().join("unpacked");
    let zip = fs_err::File::open(home.project().join("dist/app.zip")).expect("a zip");
    zip::ZipArchive::new(zip).expect("a zip").extract(&tree).expect("its files");
    tree
}

/// Bytes left out, by rule.
fn left_out(home: &Home) -> BTreeMap<String, u64> {
    let report = stable_report(&home.project().join("dist/report.json"));
    let mut sums = BTreeMap::new();
    for one in report["artifacts"][0]["left_out"].as_array().expect("a list") {
        let rule = one["rule"].as_str().expect("a name").to_owned();
        *sums.entry(rule).or_default() += one["size"].as_u64().expect("a size");
    }
    let said = report["artifacts"][0]["left_out_by_rule"].as_object().expect("sums");
    assert_eq!(said.len(), sums.len());
    assert!(said.iter().all(|(rule, sum)| sum["size"] == sums[rule]), "{said:?}");
    sums
}

/// Imports the function as Lambda does: from the folder, and from nowhere else.
fn import(tree: &Path) -> (i32, String) {
    let code = "import sys; sys.path.insert(0, sys.argv[1]); import app";
    let mut python = Command::new("python3");
    python.env_clear().args(["-I", "-S", "-B", "-c", code]).arg(tree);
    let ran = run(&mut python);
    (ran.code, ran.stderr)
}

/// Takes away what matches, and folders that are empty then: Python could import one.
fn remove(tree: &Path, folder: &str, taken: fn(&str) -> bool) -> usize {
    let mut count = 0;
    for entry in fs_err::read_dir(tree.join(folder)).expect("a listing").flatten() {
        let path = format!("{folder}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            count += remove(tree, &format!("{path}/"), taken);
            // One that is not empty stays.
            let _ = fs_err::remove_dir(entry.path());
        } else if taken(&path) {
            fs_err::remove_file(entry.path()).expect("a file");
            count += 1;
        }
    }
    count
}

/// The code works with these packages and all sets, and fails without what `crude` takes.
#[track_caller]
fn works(packages: &[&str], code: &str, crude: fn(&str) -> bool) -> BTreeMap<String, u64> {
    let Some(folder) = folder() else { return BTreeMap::new() };
    let index = index::serve(&folder);
    let home = project(code, &lines(&folder, packages), SETS);
    let tree = build(&home, &index);
    let (exit, said) = import(&tree);
    assert_eq!(exit, 0, "{said}");
    assert!(remove(&tree, "", crude) > 0, "there was nothing to take away");
    let (exit, said) = import(&tree);
    assert!(exit != 0, "it works without, too: {said}");
    left_out(&home)
}

fn in_tests(path: &str) -> bool {
    path.contains("/tests/")
}

fn in_metadata(path: &str) -> bool {
    path.contains(".dist-info/")
}

fn has_suffix(path: &str, suffix: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, found)| found == suffix)
}

#[test]
fn numpy_testing_has_the_module_that_it_imports_from_tests() {
    let sums = works(&["numpy"], "import numpy.testing\n", in_tests);
    assert!(sums.get("tests").is_none_or(|bytes| *bytes > 4_000_000), "{sums:?}");
}

#[test]
fn scipy_finds_what_it_needs_of_the_tests_of_numpy() {
    let code = "import scipy.special, scipy.linalg\nfrom scipy._lib import _array_api\n";
    works(&["numpy", "scipy"], code, in_tests);
}

#[test]
fn h5py_has_its_package_of_tests() {
    works(&["numpy", "h5py"], "import h5py, h5py.tests\nassert h5py.run_tests() == 1\n", in_tests);
}

#[test]
fn boto3_and_botocore_have_what_writes_their_documentation() {
    let packages = ["boto3", "botocore", "s3transfer", "jmespath", "python_dateutil", "six", "urllib3"];
    let code = "import boto3\nboto3.client('s3', region_name='eu-west-1')\nboto3.resource('s3')\n";
    works(&packages, code, |path| path.contains("/docs/"));
}

#[test]
fn clients_of_named_services_and_of_those_for_credentials_have_their_data_and_others_do_not() {
    let Some(folder) = folder() else { return };
    let packages = ["boto3", "botocore", "s3transfer", "jmespath", "python_dateutil", "six", "urllib3"];
    let code = "import boto3, botocore.exceptions\n\
        for name in ('s3', 'sqs', 'sts', 'sso', 'sso-oidc'):\n    boto3.client(name, region_name='eu-west-1')\n\
        boto3.resource('s3')\n\
        try:\n    boto3.client('ec2', region_name='eu-west-1')\n\
        except botocore.exceptions.UnknownServiceError:\n    pass\nelse:\n    raise AssertionError\n";
    let index = index::serve(&folder);
    let home = project(code, &lines(&folder, &packages), "botocore = [\"s3\", \"sqs\"]\n");
    let (exit, said) = import(&build(&home, &index));
    assert_eq!(exit, 0, "{said}");
    assert!(left_out(&home)["botocore-data"] > 10_000_000);
}

#[test]
fn a_service_that_botocore_has_not_got_is_an_error_with_its_place() {
    let folder = tempfile::tempdir().expect("a directory");
    let wheel = Wheel::new("botocore", "1.0").file("botocore/data/sqs/1/service-2.json", b"{}");
    wheel.write(folder.path());
    let (lines, index) = (lines(folder.path(), &["botocore"]), index::serve(folder.path()));
    let home = project("", &lines, "botocore = [\"sqz\"]\n");
    let mut command = lbx(&home, &["build", "--image", "127.0.0.1:1/none:1"]);
    command.env("PIP_INDEX_URL", format!("http://{}/simple", index.address()));
    let ran = run(&mut command);
    let error = "error: lbx.toml:4:13: botocore has no service `sqz`\nhint: did you mean `sqs`?\n";
    assert!(ran.code == 3 && ran.stderr.ends_with(error), "{} {}", ran.code, ran.stderr);
}

#[test]
fn a_package_that_asks_for_its_own_version_gets_it() {
    works(&["jsonschema", "attrs", "pyrsistent", "setuptools", "six"], "import jsonschema\n", in_metadata);
    works(&["pyproj", "certifi"], "import pyproj\n", in_metadata);
}

#[test]
fn pkg_resources_finds_distributions() {
    let packages = [
        "google_api_core",
        "googleapis_common_protos",
        "google_auth",
        "protobuf",
        "pyasn1",
        "pyasn1_modules",
        "pytz",
        "rsa",
        "cachetools",
        "certifi",
        "charset_normalizer",
        "idna",
        "requests",
        "setuptools",
        "six",
        "urllib3",
    ];
    works(&packages, "import google.api_core\n", in_metadata);
    let of_own = "import pkg_resources\npkg_resources.get_distribution('Werkzeug')\n";
    works(&["werkzeug", "markupsafe", "setuptools"], of_own, in_metadata);
}

#[test]
fn entry_points_are_found() {
    let code = "from importlib.metadata import entry_points\n\
        (one,) = entry_points(group='opentelemetry_context')\none.load()\nimport opentelemetry.sdk.trace\n";
    let packages = [
        "opentelemetry_api",
        "opentelemetry_sdk",
        "opentelemetry_semantic_conventions",
        "importlib_metadata",
        "typing_extensions",
        "zipp",
    ];
    works(&packages, code, in_metadata);
}

#[test]
fn stubs_stay_that_are_read_on_import() {
    let packages = [
        "scikit_image",
        "lazy_loader",
        "numpy",
        "scipy",
        "networkx",
        "pillow",
        "imageio",
        "tifffile",
        "packaging",
    ];
    works(&packages, "import skimage\nskimage.filters.gaussian\n", |path| has_suffix(path, "pyi"));
}

#[test]
fn headers_stay_that_are_read_to_write_code() {
    let code = "import cffi, tempfile, os\nffi = cffi.FFI()\nffi.cdef('int f(int);')\n\
        ffi.set_source('_x', 'int f(int a) { return a; }')\n\
        ffi.emit_c_code(os.path.join(tempfile.mkdtemp(), 'x.c'))\n";
    works(&["cffi", "pycparser"], code, |path| has_suffix(path, "h"));
}

#[test]
fn django_has_its_package_for_tests_and_its_english() {
    let packages = ["django", "asgiref", "sqlparse"];
    let code = "from django.conf import settings\n\
        settings.configure(USE_I18N=True, LANGUAGE_CODE='en', INSTALLED_APPS=['django.contrib.contenttypes'])\n\
        import django\ndjango.setup()\nimport django.test\nfrom django.utils.translation import gettext, override\n\
        assert gettext('Yes') == 'Yes'\nwith override('de'):\n    assert gettext('Yes') == 'Yes'\n";
    works(&packages, code, |path| path.starts_with("django/test/"));
    let sums = works(&packages, code, |path| path.contains("/LC_MESSAGES/"));
    assert!(sums.get("locales").is_none_or(|bytes| *bytes > 8_000_000), "{sums:?}");
}

/// A wheel that has something for each rule, and an index of it.
fn synthetic() -> (tempfile::TempDir, Stub, String) {
    let folder = tempfile::tempdir().expect("a directory");
    let wheel = Wheel::new("one", "1.0")
        .file("one/__init__.py", b"")
        .file("one/tests/test_a.py", b"")
        .file("one/tests/helper.py", b"")
        .file("one/a.pyi", b"")
        .file("one/data/a.csv", b"a")
        .file("one/data/b.csv", b"b");
    wheel.write(folder.path());
    let lines = lines(folder.path(), &["one"]);
    let index = index::serve(folder.path());
    (folder, index, lines)
}

fn listing(tree: &Path) -> String {
    lbx_testkit::command::files_below(tree).join(" ")
}

#[test]
fn sets_and_patterns_of_the_configuration_reach_the_zip_and_the_report() {
    let (_folder, index, lines) = synthetic();
    let home =
        project("", &lines, "sets = [\"tests\"]\nexclude = [\"*.csv\", \"/notes/\"]\nkeep = [\"b.csv\"]\n");
    home.write("src/notes/n.txt", "n");
    home.write("src/sub/notes/n.txt", "n");
    home.write("src/tests/test_own.py", "");
    let tree = build(&home, &index);
    assert_eq!(
        listing(&tree),
        "app.py one-1.0.dist-info/METADATA one-1.0.dist-info/WHEEL one/__init__.py one/a.pyi one/data/b.csv \
         one/tests/helper.py sub/notes/n.txt tests/test_own.py"
    );
    let rules: Vec<String> = left_out(&home).into_keys().collect();
    assert_eq!(rules, ["excluded", "installer-metadata", "tests"]);
}

#[test]
fn without_a_word_in_the_configuration_no_set_holds() {
    let (_folder, index, lines) = synthetic();
    let home = project("", &lines, "");
    let tree = build(&home, &index);
    assert!(listing(&tree).contains("one/tests/test_a.py"));
    assert!(listing(&tree).contains("one/a.pyi"));
}
