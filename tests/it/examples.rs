//! Each project of `examples/`: the zips are well-formed, agree with the report, hold what pip installs, and
//! their handlers import and run.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lbx_testkit::command::{Home, files_below, run, stable_report, succeed};
use serde_json::{Value, json};

use crate::support::{example, image, lbx_shared, shared_store};
use crate::{lambda, support};

/// Reads a zip with Python: tests it, and lists what Lambda, `unzip` and auditors look at.
const LIST: &str = r"
import json, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as zip:
    assert zip.testzip() is None and zip.comment == b''
    print(json.dumps([[i.filename, i.date_time, i.external_attr >> 16, len(i.extra) + len(i.comment), i.flag_bits & ~0x800,
                       i.file_size, i.create_system] for i in zip.infolist()]))
";

/// What pip notes for itself in an installed tree.
const PIPS_OWN: [&str; 3] = ["INSTALLER", "REQUESTED", "direct_url.json"];

/// A built example.
struct Built {
    home: Home,
    project: PathBuf,
    report: Value,
    events: Vec<Value>,
    image: String,
}

/// Copies and builds an example; none, with a loud word, where there is no image.
fn build(name: &str) -> Option<Built> {
    let image = image()?;
    let (home, project) = example(name);
    let arguments = ["build", "--runtime", "python3.11", "--image", &image, "--message-format", "json"];
    let text = succeed(lbx_shared(&home, &arguments).current_dir(&project));
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let report = fs_err::read(project.join("dist/report.json")).expect("a report");
    let report = serde_json::from_slice(&report).expect("JSON");
    let built = Built { home, project, report, events, image };
    built.is_well_formed();
    Some(built)
}

impl Built {
    fn artifacts(&self) -> &[Value] {
        self.report["stable"]["artifacts"].as_array().expect("artifacts")
    }

    fn artifact(&self, name: &str) -> &Value {
        self.artifacts().iter().find(|one| one["name"] == name).expect("an artifact of that name")
    }

    fn zip(&self, name: &str) -> PathBuf {
        self.project.join("dist").join(format!("{name}.zip"))
    }

    /// What holds for every zip of every project.
    fn is_well_formed(&self) {
        let names: Vec<&str> = self.artifacts().iter().map(|one| text(one, "name")).collect();
        let mut expected: Vec<String> =
            names.iter().flat_map(|name| [format!("{name}.zip"), format!("{name}.zip.sha256")]).collect();
        expected.push("report.json".to_owned());
        expected.sort();
        assert_eq!(files_below(&self.project.join("dist")), expected, "dist holds this and no more");
        let last = self.events.last().expect("events");
        assert_eq!((&last["reason"], &last["report"]), (&json!("finished"), &self.report));
        for artifact in self.artifacts() {
            self.check_digests(artifact);
            self.check_entries(artifact);
        }
    }

    fn check_digests(&self, artifact: &Value) {
        let zip = self.zip(text(artifact, "name"));
        let script = "import base64, hashlib, sys\nd = hashlib.sha256(open(sys.argv[1], 'rb').read()).digest()\n\
                      print(d.hex(), base64.b64encode(d).decode())";
        let printed = succeed(self.home.command("/usr/bin/python3").args(["-c", script]).arg(&zip));
        let (hex, code) = printed.trim().split_once(' ').expect("two digests");
        assert_eq!(text(artifact, "sha256"), hex);
        let sidecar = fs_err::read_to_string(zip.with_extension("zip.sha256")).expect("a sidecar");
        assert_eq!((text(artifact, "code_sha256"), sidecar.as_str()), (code, code));
        assert_eq!(artifact["size"], fs_err::metadata(&zip).expect("the zip").len());
        assert_eq!(artifact["file"], format!("{}.zip", text(artifact, "name")));
    }

    fn check_entries(&self, artifact: &Value) {
        let zip = self.zip(text(artifact, "name"));
        succeed(self.home.command("unzip").arg("-tqq").arg(&zip));
        let listed = succeed(self.home.command("bsdtar").arg("-tf").arg(&zip));
        let listing = succeed(self.home.command("/usr/bin/python3").args(["-c", LIST]).arg(&zip));
        let entries: Vec<Value> = serde_json::from_str(&listing).expect("JSON");
        let names: Vec<&str> = entries.iter().map(|entry| entry[0].as_str().expect("a name")).collect();
        assert_eq!(listed.lines().collect::<Vec<_>>(), names);
        for entry in &entries {
            let name = entry[0].as_str().expect("a name");
            assert!(!name.ends_with('/') && !name.starts_with('/'), "{name}");
            assert_eq!(entry[1], json!([1980, 1, 1, 0, 0, 0]), "{name}");
            assert!(entry[2] == 0o100_644 || entry[2] == 0o100_755, "{name}: mode {}", entry[2]);
            assert_eq!((&entry[3], &entry[4], &entry[6]), (&json!(0), &json!(0), &json!(3)), "{name}");
        }
        assert_eq!(artifact["files"], entries.len());
        let size: u64 = entries.iter().map(|entry| entry[5].as_u64().expect("a size")).sum();
        assert_eq!(artifact["unpacked_size"], size);
        // Dependencies, then own code; each part sorted. One place where the order falls is the border.
        let falls = names.windows(2).filter(|pair| pair[0] >= pair[1]).count();
        assert!(falls <= 1, "{names:?}");
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "a name twice");
    }

    /// Unpacks a zip, as Lambda does, into a folder that may hold other layers already.
    fn unpack(&self, name: &str, folder: &Path) {
        let mut zip =
            zip::ZipArchive::new(fs_err::File::open(self.zip(name)).expect("a zip")).expect("a zip");
        zip.extract(folder).expect("unpacked");
    }

    fn unpacked(&self, name: &str) -> PathBuf {
        let folder = self.home.root().join("unpacked").join(name);
        fs_err::create_dir_all(&folder).expect("a directory");
        self.unpack(name, &folder);
        folder
    }

    /// What a handler answers; with no event, whether it is a function.
    fn call(&self, name: &str, opt: Option<&Path>, handler: &str, event: Option<&Value>) -> Value {
        lambda::call(&self.image, &self.unpacked(name), opt, handler, event)
    }

    /// The zip holds what `pip install --target` of the same wheels makes and `own`, but for what the report
    /// says was left out, and what pip writes for itself.
    fn equals_pip(&self, name: &str, prefix: &str, own: &[(&str, &str)]) {
        let artifact = self.artifact(name);
        let installed = self.pip_install(artifact);
        let unpacked = self.unpacked(name);
        let left_out: BTreeMap<&str, &str> = artifact["left_out"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| (text(one, "path"), text(one, "rule")))
            .collect();
        let mut expected: BTreeMap<String, PathBuf> = BTreeMap::new();
        for path in files_below(&installed) {
            let packed = format!("{prefix}{path}");
            let is_pips = PIPS_OWN.iter().any(|file| path.ends_with(&format!(".dist-info/{file}")));
            // Wrappers of console scripts are pip's own; what a wheel itself calls a script is in the report.
            if !is_pips && !path.starts_with("bin/") && !left_out.contains_key(packed.as_str()) {
                expected.insert(packed, installed.join(path));
            }
        }
        for (packed, source) in own {
            expected.insert((*packed).to_owned(), self.project.join(source));
        }
        let found: BTreeSet<String> = files_below(&unpacked).into_iter().collect();
        let wanted: BTreeSet<String> = expected.keys().cloned().collect();
        let (extra, missing) = (found.difference(&wanted), wanted.difference(&found));
        let differences = (extra.collect::<Vec<_>>(), missing.collect::<Vec<_>>());
        assert_eq!(differences, (vec![], vec![]), "too much in the zip, and too little");
        for (packed, original) in &expected {
            let packed = unpacked.join(packed);
            let (left, right) = (fs_err::read(&packed), fs_err::read(original));
            assert!(left.expect("packed") == right.expect("installed"), "{} differs", packed.display());
            assert_eq!(is_executable(&packed), is_executable(original), "{}", packed.display());
        }
        for (path, rule) in left_out {
            assert!(!unpacked.join(path).exists(), "{path} is left out by {rule} and there");
        }
    }

    fn pip_install(&self, artifact: &Value) -> PathBuf {
        let (wheels, target) = (self.home.root().join("wheels"), self.home.root().join("installed"));
        for folder in [&wheels, &target] {
            if folder.exists() {
                fs_err::remove_dir_all(folder).expect("an old one goes");
            }
            fs_err::create_dir(folder).expect("a directory");
        }
        let mut names = Vec::new();
        for wheel in artifact["wheels"].as_array().expect("a list") {
            let (file, sha256) = (text(wheel, "file"), text(wheel, "sha256"));
            let stored = shared_store().join("wheels").join(sha256).join(file);
            fs_err::copy(stored, wheels.join(file)).expect("the store has the wheel by its digest");
            names.push(file.to_owned());
        }
        lambda::pip_install(&self.image, &wheels, &names, &target);
        target
    }

    fn pip_runs(&self) -> usize {
        self.events.iter().filter(|event| event["reason"] == "resolve-started").count()
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is missing in {value}"))
}

fn is_executable(path: &Path) -> bool {
    fs_err::metadata(path).expect("a file").permissions().mode() & 0o100 != 0
}

#[test]
fn hello_is_one_file_and_answers() {
    let Some(built) = build("hello") else { return };
    assert_eq!(built.pip_runs(), 0);
    let answer =
        built.call("hello", None, "lambda_function.lambda_handler", Some(&json!({"name": "Lambda"})));
    assert_eq!(answer, json!({"statusCode": 200, "body": "hello, Lambda"}));
    assert_eq!(files_below(&built.unpacked("hello")), ["lambda_function.py"]);
}

#[test]
fn what_an_earlier_build_wrote_changes_nothing() {
    let Some(image) = image() else { return };
    let (home, project) = example("hello");
    for options in [&[][..], &["-o", "hello.zip"], &["-o", "out/hello.zip"]] {
        let arguments =
            [&["build", "--quiet", "--runtime", "python3.11", "--image", &image], options].concat();
        let build = || {
            let printed = succeed(lbx_shared(&home, &arguments).current_dir(&project));
            let zip = project.join(printed.trim());
            let report =
                zip.with_file_name(if options.is_empty() { "report.json" } else { "hello.report.json" });
            (fs_err::read(zip).expect("a zip"), stable_report(&report))
        };
        assert_eq!(build(), build(), "{options:?}");
        for folder in ["dist", "out"].map(|name| project.join(name)).iter().filter(|path| path.exists()) {
            fs_err::remove_dir_all(folder).expect("an old one goes");
        }
    }
}

#[test]
fn a_source_distribution_is_built_in_the_sandbox_and_its_handler_answers() {
    let Some(built) = build("sdist-only") else { return };
    assert_eq!(built.pip_runs(), 1);
    let event = json!({"argv": ["--loud", "docopt"]});
    assert_eq!(built.call("sdist-only", None, "app.handler", Some(&event)), json!("HELLO, DOCOPT"));
    built.equals_pip("sdist-only", "", &[("app.py", "src/app.py")]);
}

#[test]
fn a_service_shares_code_and_each_function_has_its_own_requirements() {
    let Some(built) = build("service") else { return };
    assert_eq!(built.pip_runs(), 2, "two distinct sets of requirements");
    for name in ["slack_send_message", "slack_list_channels"] {
        assert_eq!(built.call(name, None, "lambda.handler", None), json!(true), "{name}");
    }
    let shared = ("slack.py", "common_files/slack.py");
    built.equals_pip(
        "slack_list_channels",
        "",
        &[shared, ("lambda.py", "functions/slack_list_channels/lambda.py")],
    );
    let own = "functions/slack_send_message";
    built.equals_pip(
        "slack_send_message",
        "",
        &[
            shared,
            ("lambda.py", &format!("{own}/lambda.py")),
            ("templates.yaml", &format!("{own}/templates.yaml")),
            ("requirements.txt", &format!("{own}/requirements.txt")),
        ],
    );
    let wheels = |name| built.artifact(name)["wheels"].to_string().to_lowercase();
    assert!(wheels("slack_send_message").contains("pyyaml"));
    assert!(!wheels("slack_list_channels").contains("pyyaml"));
}

#[test]
fn a_function_finds_its_layers_at_opt() {
    let Some(built) = build("layers") else { return };
    assert_eq!(built.pip_runs(), 1);
    let opt = built.home.root().join("opt");
    fs_err::create_dir(&opt).expect("a directory");
    for layer in built.artifact("report")["layers"].as_array().expect("layers") {
        built.unpack(layer.as_str().expect("a name"), &opt);
    }
    let event = json!({"title": "monday", "time": "2024-02-29T10:00:00", "lines": ["a", "b"]});
    let answer = built.call("report", Some(&opt), "report.handler", Some(&event));
    assert_eq!(answer, json!("Monday (2024-02-29): 2 lines"));
    built.equals_pip("deps", "python/", &[]);
    let titles = "python/pythonutils/titles.py";
    assert_eq!(files_below(&built.unpacked("utils")), ["python/pythonutils/__init__.py", titles]);
}

#[test]
fn compiled_dependencies_import_and_compute() {
    let Some(built) = build("data-science") else { return };
    assert_eq!(built.pip_runs(), 1);
    // Made with `Fernet(key).encrypt(b"price\n1.5\n2.5\n8.0\n")`.
    let event = json!({"key": KEY, "sealed": SEALED});
    let answer = built.call("data-science", None, "app.handler", Some(&event));
    assert_eq!(answer, json!({"mean": 4.0, "largest": 8.0}));
    built.equals_pip("data-science", "", &[("app.py", "src/app.py")]);
}

const KEY: &str = "zavPvC4gTcdM23lQW8k-2LiVlDFgxKNfHyDytcmQMlY=";
const SEALED: &str = "gAAAAABrACxl-MEmE5PfdTWE_KKoDv_75zFTEdin-7vtWUZMCkFpjElD36TQUSx_Tcc3w8YdOoawpWFaok1AC1vOVdIbz_h2sYL39odox3uFUuUGh24bqys=";

#[test]
fn functions_with_equal_requirements_share_one_run_of_pip() {
    let Some(image) = image() else { return };
    let home = Home::new();
    lbx_testkit::wheels::Wheel::new("one", "1.0").file("one.py", b"").write(&home.project().join("wheels"));
    let mut config = support::HEAD.to_owned();
    for name in ["a", "b", "c"] {
        home.write(&format!("{name}/{name}.py"), format!("import {name}\n"));
        // Equal lines in different files are one set.
        home.write(&format!("{name}.txt"), "--no-index\n--find-links wheels\none # comment\n");
        config =
            format!("{config}[functions.{name}]\nsource = \"{name}\"\nrequirements = [\"{name}.txt\"]\n");
    }
    home.write("lbx.toml", config);
    let ran = run(&mut lbx_shared(&home, &["build", "--image", &image, "--message-format", "json"]));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.stdout.matches("\"resolve-started\"").count(), 1, "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("\"artifact-finished\"").count(), 3, "{}", ran.stdout);
}
