//! Locks of real tools, read for targets, against what the tools themselves would install.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::catalog::{Architecture, Runtime};

macro_rules! fixture {
    ($path:literal) => {
        ($path, include_str!(concat!("../../../../tests/fixtures/locks/", $path)))
    };
}

const LOCKS: [(&str, &str); 8] = [
    fixture!("uv/uv.lock"),
    fixture!("uv/requirements.txt"),
    fixture!("uv/pylock.toml"),
    fixture!("poetry/poetry.lock"),
    fixture!("pdm/pdm.lock"),
    fixture!("pdm/pylock.toml"),
    fixture!("pipenv/Pipfile.lock"),
    fixture!("pip/pylock.toml"),
];
const PYPROJECT: &str = fixture!("pyproject.toml").1;
const EXPECTED: &str = fixture!("expected.json").1;

fn environment(runtime: &str, arch: Architecture) -> Environment {
    Environment::new(&Runtime::find(runtime).unwrap(), arch).unwrap()
}

fn target(name: &str) -> Environment {
    let (python, arch) = name.split_once('-').unwrap();
    environment(&format!("python{python}"), Architecture::parse(arch).unwrap())
}

fn text<'t>(path: &'t str, text: &'t str) -> Text<'t> {
    Text { path, text, project: None }
}

/// By name, the version, and the hashes in the form of `expected.json`.
fn summary(locked: &Locked) -> BTreeMap<String, [String; 2]> {
    let one = |package: &Package| {
        let Source::Files(files) = &package.source else { panic!("{package:?}") };
        let mut hashes: Vec<&str> = files.iter().map(|file| file.sha256.as_str()).collect();
        hashes.sort_unstable();
        let all = hex::encode(Sha256::digest(hashes.join("\n")));
        let version = package.version.clone().unwrap_or_default();
        (package.name.clone(), [version, format!("{} {all}", hashes.len())])
    };
    locked.packages.iter().map(one).collect()
}

#[test]
fn each_tools_lock_gives_each_target_what_the_tool_would_install() {
    type Expected = BTreeMap<String, BTreeMap<String, BTreeMap<String, [String; 2]>>>;
    let expected: Expected = serde_json::from_str(EXPECTED).unwrap();
    assert_eq!(expected.len(), LOCKS.len() + 4);
    for (named, targets) in &expected {
        let (path, lock) =
            LOCKS.into_iter().find(|(path, _)| *path == Selection::split(named).0).expect(named);
        for (name, packages) in targets {
            let locked = read(text(named, lock), &target(name)).expect(path);
            assert_eq!(summary(&locked), *packages, "{named} for {name}");
            let least = if *named == path { 7 } else { 8 };
            assert!(packages.len() >= least, "{named} for {name}");
        }
    }
}

#[test]
fn extras_and_groups_are_named_behind_the_file() {
    let split = |named| {
        let (path, Selection { extras, groups }) = Selection::split(named);
        format!("{path} {} {}", extras.join(","), groups.join(","))
    };
    for (named, expected) in [
        ("a/uv.lock", "a/uv.lock  "),
        ("pyproject.toml[B_x, a]:dev:Test.it", "pyproject.toml a,b-x dev,test-it"),
        ("pylock.api.toml:dev", "pylock.api.toml  dev"),
        ("odd[name]/pdm.lock[x]", "odd[name]/pdm.lock x "),
        ("requirements.txt[x]", "requirements.txt[x]  "),
        ("odd:name.txt", "odd:name.txt  "),
    ] {
        assert_eq!(split(named), expected);
    }
    let here = environment("python3.11", Architecture::X86_64);
    for (named, words) in [
        ("uv/uv.lock[no]", "uv/uv.lock[no]: it has no extra `no`"),
        ("poetry/poetry.lock:no", "poetry/poetry.lock:no: it has no group `no`"),
        ("pdm/pdm.lock:no", "pdm/pdm.lock:no: it has no extra or group `no`"),
        ("pipenv/Pipfile.lock:no", "pipenv/Pipfile.lock:no: it has no group `no`"),
    ] {
        let (_, lock) = LOCKS.into_iter().find(|(path, _)| *path == Selection::split(named).0).unwrap();
        assert_eq!(read(text(named, lock), &here).unwrap_err().to_string(), words);
    }
}

#[test]
fn a_project_has_extras_and_groups_that_include_groups() {
    let project = "[project]\ndependencies = [\"a\"]\noptional-dependencies.more = [\"b\"]\n\
                   [dependency-groups]\ndev = [\"c\", {include-group = \"Lint\"}]\nlint = [\"d\"]\n\
                   loop = [{include-group = \"loop\"}]\n";
    let said = |named: &str, project: &str| {
        requirements(text(named, project))
            .map(|lines| lines.replace('\n', " "))
            .map_err(|error| error.to_string())
    };
    assert_eq!(said("pyproject.toml[more]:dev", project).unwrap(), "a b c d ");
    assert_eq!(said("pyproject.toml:lint", "[dependency-groups]\nlint = [\"d\"]\n").unwrap(), "d ");
    for (named, words) in [
        ("pyproject.toml[no]", "it has no extra `no`"),
        ("pyproject.toml:no", "it has no group `no`"),
        ("pyproject.toml:loop", "the group `loop` includes itself"),
    ] {
        assert_eq!(said(named, project).unwrap_err(), format!("{named}: {words}"));
    }
}

#[test]
fn a_lock_for_another_target_is_refused_in_words() {
    let refused = |path: &str, lock: &str, environment: &Environment| {
        read(text(path, lock), environment).unwrap_err().to_string()
    };
    let (path, lock) = LOCKS[0];
    let young = environment("python3.14", Architecture::X86_64);
    assert_eq!(
        refused(path, lock, &young),
        "uv/uv.lock: the lock is for Python >=3.9, <3.14, and the runtime has 3.14"
    );
    let own = write(&[(environment("python3.11", Architecture::X86_64), Vec::new())], &[]);
    assert_eq!(
        refused("pylock.toml", &own, &environment("python3.11", Architecture::Arm64)),
        "pylock.toml: the lock is for another target than Python 3.11 on aarch64"
    );
    let pipfile = r#"{"_meta": {"requires": {"python_version": "3.12"}}, "default": {}}"#;
    assert_eq!(
        refused("Pipfile.lock", pipfile, &environment("python3.11", Architecture::X86_64)),
        "Pipfile.lock: the lock is for Python ==3.12.*, and the runtime has 3.11"
    );
}

#[test]
fn poetrys_old_locks_are_walked_from_pyproject() {
    let lock = r#"
[[package]]
name = "a"
version = "1.0"
python-versions = ">=3.7"
files = [{file = "a-1.0-py3-none-any.whl", hash = "sha256:HASH"}]

[package.dependencies]
B_x = {version = ">=1", markers = "python_version < \"3.12\""}
c = {version = "*", optional = true}

[package.extras]
more = ["c (>=1)"]

[[package]]
name = "b-x"
version = "2.0"
python-versions = "^3.7"
files = [{file = "b_x-2.0-py3-none-any.whl", hash = "sha256:HASH"}]

[[package]]
name = "c"
version = "3.0"
optional = true
python-versions = "*"
files = [{file = "c-3.0-py3-none-any.whl", hash = "sha256:HASH"}]

[[package]]
name = "test-only"
version = "1"
python-versions = "*"
files = []

[metadata]
lock-version = "2.0"
python-versions = "^3.9"
"#;
    let lock = lock.replace("HASH", &"0".repeat(64));
    let names = |project: &str, environment: &Environment| {
        let text = Text { path: "poetry.lock", text: &lock, project: Some(project) };
        let locked = read(text, environment).unwrap();
        locked.packages.into_iter().map(|package| package.name).collect::<Vec<_>>().join(" ")
    };
    let (old, young) =
        (environment("python3.9", Architecture::X86_64), environment("python3.13", Architecture::X86_64));
    let plain = "[tool.poetry.dependencies]\npython = \"^3.9\"\na = \"^1\"\n[tool.poetry.group.dev.dependencies]\ntest-only = \"*\"\n";
    assert_eq!((names(plain, &old), names(plain, &young)), ("a b-x".into(), "a".into()));
    let extra = "[tool.poetry.dependencies]\na = {version = \"^1\", extras = [\"more\"]}\n";
    assert_eq!(names(extra, &young), "a c");
    let standard = "[project]\ndependencies = [\"a[more]>=1\"]\n";
    assert_eq!(names(standard, &old), "a b-x c");
    let alone = Text { path: "poetry.lock", text: &lock, project: None };
    assert!(read(alone, &old).unwrap_err().to_string().contains("the pyproject.toml beside it"));
}

#[test]
fn what_is_no_file_of_an_index_keeps_where_it_is() {
    let uv = r#"
version = 1
requires-python = ">=3.9"
[[package]]
name = "root"
version = "0"
source = { virtual = "." }
dependencies = [{ name = "g" }, { name = "l" }, { name = "u" }]
[[package]]
name = "g"
version = "1"
source = { git = "https://h/g.git?subdirectory=py%2Fg&rev=v1#0123456789012345678901234567890123456789" }
[[package]]
name = "l"
version = "1"
source = { editable = "../l" }
[[package]]
name = "u"
version = "1"
source = { url = "https://h/u-1-py3-none-any.whl" }
wheels = [{ url = "https://h/u-1-py3-none-any.whl", hash = "sha256:HASH" }]
"#;
    let uv = uv.replace("HASH", &"0".repeat(64));
    let locked = read(text("a/uv.lock", &uv), &environment("python3.11", Architecture::Arm64)).unwrap();
    let [git, local, url] = &locked.packages[..] else { panic!("{locked:?}") };
    assert_eq!(
        git.source,
        Source::Git {
            url: Hidden::new("https://h/g.git"),
            commit: "0123456789012345678901234567890123456789".into(),
            subdirectory: "py/g".into()
        }
    );
    assert_eq!(local.source, Source::Path { path: "l".into(), subdirectory: String::new() });
    assert!(matches!(&url.source, Source::Archive(file) if file.sha256 == "0".repeat(64)));
}

#[test]
fn a_path_of_one_machine_is_refused() {
    let lock = "lock-version = \"1.0\"\n[[packages]]\nname = \"a\"\ndirectory = { path = \"/srv/a\" }\n";
    let error =
        read(text("pylock.toml", lock), &environment("python3.11", Architecture::X86_64)).unwrap_err();
    assert_eq!(error.to_string(), "pylock.toml: `/srv/a` is a place on one machine alone");
}

fn entries() -> Vec<Entry> {
    let file = |name: &str| File {
        name: Some(name.to_owned()),
        url: Some(Hidden::new(format!("https://files.example.org/{name}"))),
        size: Some(7),
        sha256: "a".repeat(64),
    };
    let entry = |name: &str, origin| Entry { name: name.into(), version: "1.0".into(), origin };
    vec![
        entry(
            "z",
            Origin::Index { index: Some("https://i/simple".into()), file: file("z-1.0-py3-none-any.whl") },
        ),
        entry("s", Origin::Index { index: None, file: file("s-1.0.tar.gz") }),
        entry("a", Origin::Archive(file("a-1.0-py3-none-any.whl"))),
        entry("p", Origin::Path { path: "../p \"q\"".into(), sha256: None }),
        entry("q", Origin::Path { path: "q.zip".into(), sha256: Some("b".repeat(64)) }),
        entry(
            "g",
            Origin::Git {
                url: "https://h/g".into(),
                reference: Some("v1".into()),
                commit: "c".repeat(40),
                subdirectory: "d".into(),
            },
        ),
    ]
}

#[test]
fn what_is_written_is_read_back_and_the_same_each_time() {
    let here = environment("python3.12", Architecture::X86_64);
    let lines = [Hidden::new("a @ https://me:hush@h/a"), Hidden::new("z")];
    let mut all = entries();
    let written = write(&[(here.clone(), all.clone())], &lines);
    all.reverse();
    assert_eq!(write(&[(here.clone(), all)], &lines), written);
    assert!(!written.contains("hush"));
    let locked = read(text("in/pylock.toml", &written), &here).unwrap();
    let names: Vec<&str> = locked.packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, ["a", "g", "p", "q", "s", "z"]);
    assert!(matches!(&locked.packages[2].source, Source::Path { path, .. } if path == "p \"q\""));
    assert_eq!(covers(&lines, &locked, &here), Ok(()));
    assert_eq!(covers(&lines[..1], &locked, &here), Err(Missing::Changed));
}

#[test]
fn one_lock_has_what_several_targets_get() {
    let targets = [Architecture::X86_64, Architecture::Arm64].map(|arch| environment("python3.12", arch));
    let of_index = |name: &str, version: &str, file: &str| Entry {
        name: name.into(),
        version: version.into(),
        origin: Origin::Index {
            index: None,
            file: File {
                name: Some(file.into()),
                sha256: hex::encode(Sha256::digest(file)),
                ..File::default()
            },
        },
    };
    let x86 = vec![
        of_index("fast", "1", "fast-1-cp312-cp312-manylinux2014_x86_64.whl"),
        of_index("pure", "1", "pure-1-py3-none-any.whl"),
        of_index("only", "1", "only-1-py3-none-any.whl"),
        of_index("moved", "2", "moved-2-py3-none-any.whl"),
        of_index("mixed", "1", "mixed-1-cp312-cp312-manylinux2014_x86_64.whl"),
    ];
    let arm = vec![
        of_index("fast", "1", "fast-1-cp312-cp312-manylinux2014_aarch64.whl"),
        of_index("pure", "1", "pure-1-py3-none-any.whl"),
        of_index("moved", "1", "moved-1-py3-none-any.whl"),
        of_index("mixed", "1", "mixed-1.tar.gz"),
    ];
    let written = write(&[(targets[0].clone(), x86.clone()), (targets[1].clone(), arm)], &[]);
    assert_eq!(written.matches("[[packages]]").count(), 6, "{written}");
    let names = |environment: &Environment| -> String {
        let locked = read(text("pylock.toml", &written), environment).unwrap();
        let one = |package: &Package| {
            let Source::Files(files) = &package.source else { panic!() };
            format!("{} {} {} ", package.name, package.version.clone().unwrap_or_default(), files.len())
        };
        locked.packages.iter().map(one).collect::<Vec<_>>().concat()
    };
    assert_eq!(names(&targets[0]), "fast 1 2 mixed 1 2 moved 2 1 only 1 1 pure 1 1 ");
    assert_eq!(names(&targets[1]), "fast 1 2 mixed 1 2 moved 1 1 pure 1 1 ");
    // For one target, there is nothing to tell apart.
    assert!(!write(&[(targets[0].clone(), x86)], &[]).contains("\nmarker"));
}

#[test]
fn requirements_are_covered_by_versions_names_and_places() {
    let here = environment("python3.11", Architecture::X86_64);
    let mut locked = read(text(LOCKS[0].0, LOCKS[0].1), &here).unwrap();
    let place = Source::Path { path: "../lib".into(), subdirectory: String::new() };
    locked.packages.push(Package { name: "lib".into(), version: None, source: place });
    for good in [
        "requests",
        "Requests[security]>=2,<3",
        "requests==2.31.0 --hash=sha256:0",
        "nothing; python_version < '3'",
        "../lib",
        "--no-binary :all:",
    ] {
        assert_eq!(covers(&[Hidden::new(good)], &locked, &here), Ok(()), "{good}");
    }
    for (bad, words) in [
        ("requests>=3", "it has 2.31.0 for `requests>=3`"),
        ("nothing", "it has nothing for `nothing`"),
        ("../other", "it has nothing for `../other`"),
        ("requests @ https://h/r.whl", "it has 2.31.0 for `requests @ https://h/r.whl`"),
    ] {
        let missing = covers(&[Hidden::new(bad)], &locked, &here).unwrap_err();
        assert_eq!(missing.to_string(), words);
    }
    // Constraints ask for nothing, and hold.
    let constrained = |line: &str| {
        let lines = ["[constraints 1]", line, "[end]"].map(Hidden::new);
        covers(&lines, &locked, &here)
    };
    assert_eq!(constrained("nothing==1"), Ok(()));
    assert!(constrained("requests<2").is_err());
}

#[test]
fn a_requirement_file_is_a_lock_when_every_line_has_a_version_and_a_hash() {
    assert!(is_hashed(LOCKS[1].1));
    let hash = format!("--hash=sha256:{}", "0".repeat(64));
    assert!(is_hashed(&format!("--index-url https://h\na==1 {hash} \\\n  {hash}\n")));
    for bad in [
        String::new(),
        format!("a>=1 {hash}\n"),
        format!("a==1.* {hash}\n"),
        "a==1\n".to_owned(),
        format!("a==1 {hash}\nb==1\n"),
        format!("a==1 {hash}\n-r other.txt\n"),
        format!("a==1 {hash} --global-option=x\n"),
        "a==1 --hash=md5:0\n".to_owned(),
    ] {
        assert!(!is_hashed(&bad), "{bad}");
    }
}

#[test]
fn a_project_says_what_it_needs_or_why_that_cannot_be_known() {
    let said =
        |project: &str| requirements(text("pyproject.toml", project)).map_err(|error| error.to_string());
    assert_eq!(
        said("[project]\ndependencies = [\"a>=1\", \"b[x];\\n python_version>'3'\"]\n").unwrap(),
        "a>=1\nb[x]; python_version>'3'\n"
    );
    for (project, words) in [
        (
            "[project]\ndynamic = [\"dependencies\"]\n",
            "its dependencies are `dynamic`: only a build of the project knows them",
        ),
        ("[tool.poetry.dependencies]\na = \"^1\"\n", "its dependencies are written in Poetry's own way"),
        ("[project]\nname = \"a\"\n", "it has no `dependencies` in `[project]`"),
        (
            "[project]\ndependencies = [\"--index-url x\"]\n",
            "`--index-url x`: Expected package name starting with an alphanumeric character, found `-`",
        ),
    ] {
        assert_eq!(said(project).unwrap_err(), format!("pyproject.toml: {words}"));
    }
}

#[test]
fn groups_and_extras_in_markers_are_understood() {
    let here = environment("python3.11", Architecture::X86_64);
    let wanted = Selection { extras: vec!["x".to_owned()], groups: vec!["test".to_owned()] };
    for (marker, expected) in [
        ("'default' in dependency_groups", true),
        ("\"dev\" in dependency_groups and python_version > '3'", false),
        ("'dev' not in dependency_groups", true),
        ("'Test' in dependency_groups", true),
        ("'x' in extras or 'y' in extras", true),
        ("'y' in extras", false),
        ("platform_machine == 'x86_64' and 'default' in dependency_groups", true),
    ] {
        assert_eq!(here.holds(marker, &wanted), Ok(expected), "{marker}");
    }
    assert!(here.holds("nonsense", &wanted).is_err());
}

#[test]
fn cycles_and_doubles_end() {
    let node = |name: &str, needs: &str| {
        format!(
            "[[package]]\nname = \"{name}\"\nversion = \"1\"\nsource = {{ registry = \"https://h/simple\" }}\ndependencies = [{{ name = \"{needs}\" }}]\n"
        )
    };
    let root = "version = 1\n[[package]]\nname = \"r\"\nsource = { virtual = \".\" }\ndependencies = [{ name = \"a\" }]\n";
    let here = environment("python3.11", Architecture::X86_64);
    let cyclic = format!("{root}{}{}", node("a", "b"), node("b", "a"));
    assert_eq!(read(text("uv.lock", &cyclic), &here).unwrap().packages.len(), 2);
    let missing = format!("{root}{}", node("a", "gone"));
    let error = read(text("uv.lock", &missing), &here).unwrap_err();
    assert_eq!(error.to_string(), "uv.lock: gone is needed, and is not in the lock");
    let double = "lock-version = \"1.0\"\n[[packages]]\nname = \"a\"\nversion = \"1\"\n[[packages]]\nname = \"A\"\nversion = \"2\"\n";
    let error = read(text("pylock.toml", double), &here).unwrap_err();
    assert_eq!(error.to_string(), "pylock.toml: there are two of a: 1 and 2");
}

proptest! {
    /// Any piece of a real lock, with anything in it, is read or refused.
    #[test]
    fn no_text_makes_a_reader_panic(which in 0..LOCKS.len(), from in 0usize..4000, cut in 0usize..2000, noise in "[ -~\n]{0,40}") {
        let (path, lock) = LOCKS[which];
        let chars: Vec<char> = lock.chars().take(6000).collect();
        let (from, to) = (from.min(chars.len()), (from + cut).min(chars.len()));
        let broken: String = chars[..from].iter().copied().chain(noise.chars()).chain(chars[to..].iter().copied()).collect();
        let lock = Text { path, text: &broken, project: Some(PYPROJECT) };
        let _ = read(lock, &environment("python3.11", Architecture::X86_64));
        let _ = is_hashed(&broken);
        let _ = requirements(lock);
    }

    #[test]
    fn no_marker_makes_the_reader_panic(marker in "[a-z_'\" ()=<>.0-9]{0,60}") {
        let _ = environment("python3.11", Architecture::X86_64).holds(&marker, &Selection::default());
    }
}
