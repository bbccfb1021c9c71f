//! The compiler program in real interpreters: the same bytes each time, that load and import, and nothing else is run.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use lbx_wheel::bytecode::{COMPILER, Compiled, Frame, PythonVersion, normalize};
use serde_json::{Value, json};

use crate::interpreters::{Interpreter, frames, interpreters, member, sources, tree};

/// Loads pycs in pairs, and says whether they are the same; see there.
const SAME: &str = include_str!("same.py");

fn write(folder: &Path, files: &[(&str, &[u8])]) -> Vec<String> {
    for (name, content) in files {
        let path = folder.join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }
    files.iter().map(|(name, _)| (*name).to_owned()).collect()
}

/// The pycs of frames by path.
fn pycs(frames: Vec<Frame>) -> BTreeMap<String, Vec<u8>> {
    let pyc = |frame: Frame| match frame.compiled {
        Compiled::Pyc(pyc) => Some((frame.cache, pyc)),
        Compiled::Error(_) => None,
    };
    frames.into_iter().filter_map(pyc).collect()
}

fn rewritten(pycs: &BTreeMap<String, Vec<u8>>, version: PythonVersion) -> BTreeMap<String, Vec<u8>> {
    pycs.iter().map(|(path, pyc)| (path.clone(), normalize(pyc, version).unwrap())).collect()
}

/// The paths of what differs.
fn different(one: &BTreeMap<String, Vec<u8>>, other: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    assert!(one.keys().eq(other.keys()));
    one.keys().filter(|path| one[*path] != other[*path]).cloned().collect()
}

/// Compiles sources of the standard library, and returns the pycs.
fn library(
    interpreter: &Interpreter,
    names: &[String],
    history: &[&str],
    processes: u32,
) -> BTreeMap<String, Vec<u8>> {
    let scratch = tempfile::tempdir().unwrap();
    let job = tree(&interpreter.library(), scratch.path(), names, &interpreter.tag, processes);
    let frames = frames(&interpreter.compile(scratch.path(), history, &job), &scratch.path().join("out"));
    let order: Vec<&str> = frames.iter().map(|frame| frame.cache.as_str()).collect();
    let members = job["trees"][0]["members"].as_array().unwrap();
    assert!(
        order.iter().eq(members
            .iter()
            .map(|member| member["cache"].as_str().unwrap())
            .collect::<Vec<_>>()
            .iter())
    );
    pycs(frames)
}

/// Whether the pycs of each pair load to the same, and if not, which do not.
fn same_code(interpreter: &Interpreter, pairs: &[(&Vec<u8>, &Vec<u8>)]) -> Result<(), String> {
    let scratch = tempfile::tempdir().unwrap();
    let mut list = Vec::new();
    for (number, (one, other)) in pairs.iter().enumerate() {
        for (name, pyc) in [("one", one), ("other", other)] {
            let path = scratch.path().join(format!("{number}.{name}"));
            fs_err::write(&path, pyc).unwrap();
            list.push(path.to_str().unwrap().to_owned());
        }
    }
    let paths = scratch.path().join("list");
    fs_err::write(&paths, list.join("\n")).unwrap();
    let output = interpreter.command().args(["-c", SAME]).arg(paths).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(words) }
}

/// In order and in reverse, in two processes and in one, after nothing and after a lot, and with references that are
/// held. Before it is rewritten some of it differs, so that this can fail.
#[test]
fn the_bytes_are_the_same_whatever_order_processes_and_history() {
    for interpreter in interpreters() {
        let names: Vec<String> = sources(&interpreter.library()).into_iter().step_by(3).collect();
        let reversed: Vec<String> = names.iter().rev().cloned().collect();
        let first = library(&interpreter, &names, &[], 2);
        let expected = rewritten(&first, interpreter.version);
        assert!(first.len() > 100, "{} sources", first.len());
        for (names, history, processes) in
            [(&reversed, &[][..], 1), (&names, &["used"][..], 3), (&names, &["held"][..], 1)]
        {
            let other = library(&interpreter, names, history, processes);
            let label = format!("3.{} {history:?}", interpreter.version.1);
            let differed = different(&first, &other);
            eprintln!("{label}: {} of {} differed", differed.len(), first.len());
            // Since 3.13 all constants are interned, and what was used before rarely makes a difference.
            let must = match history {
                ["held"] => true,
                ["used"] => interpreter.version.1 <= 12,
                _ => false,
            };
            assert!(!must || !differed.is_empty(), "{label}: nothing differed that could be rewritten");
            let found = different(&expected, &rewritten(&other, interpreter.version));
            assert!(found.is_empty(), "{label}: {found:?} differ");
        }
        let pairs: Vec<_> = first.values().zip(expected.values()).collect();
        same_code(&interpreter, &pairs).unwrap();
    }
}

/// The comparison finds what it is made for.
#[test]
fn code_that_is_not_the_same_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let sources =
        ["x = 1", "x = 1.0", "x = True", "x = 0.0", "x = -0.0", "x = 'a'", "x = b'a'", "y = 1", "\nx = 1"];
    for interpreter in interpreters() {
        let names: Vec<String> = (0..sources.len()).map(|number| format!("m{number}/m.py")).collect();
        for (name, source) in names.iter().zip(sources) {
            write(folder.path(), &[(name, source.as_bytes())]);
        }
        let scratch = tempfile::tempdir().unwrap();
        let mut job = tree(folder.path(), scratch.path(), &names, &interpreter.tag, 1);
        for member in job["trees"][0]["members"].as_array_mut().unwrap() {
            member["file"] = json!("/var/task/m.py");
        }
        let frames = frames(&interpreter.compile(scratch.path(), &[], &job), &scratch.path().join("out"));
        // Headers differ with the sources, so they are made the same.
        let mut pycs: Vec<Vec<u8>> = pycs(frames).into_values().collect();
        for pyc in &mut pycs {
            pyc[8..16].fill(0);
        }
        assert_eq!(pycs.len(), sources.len());
        for (at, one) in pycs.iter().enumerate() {
            for other in &pycs[at + 1..] {
                let found = same_code(&interpreter, &[(one, other)]).unwrap_err();
                assert!(found.starts_with("different: "), "{found}");
            }
        }
    }
}

/// The pyc is found, is taken without a look at the source, and shows the function's own paths in a traceback.
#[test]
fn what_is_rewritten_is_imported_though_the_source_is_stale() {
    const IMPORT: &str = "import sys; sys.path.insert(0, sys.argv[1]); import pack.module as module; \
        print(module.VALUE, module.__cached__, module.get.__code__.co_filename)";
    for interpreter in interpreters() {
        let folder = tempfile::tempdir().unwrap();
        let source = b"VALUE = 'compiled'\ndef get():\n    return VALUE\n";
        let names = write(folder.path(), &[("pack/__init__.py", b""), ("pack/module.py", source)]);
        let scratch = tempfile::tempdir().unwrap();
        let job = tree(folder.path(), scratch.path(), &names, &interpreter.tag, 1);
        let frames = frames(&interpreter.compile(scratch.path(), &[], &job), &scratch.path().join("out"));
        let import = || {
            let output = interpreter.command().args(["-c", IMPORT]).arg(folder.path()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        write(folder.path(), &[("pack/module.py", b"VALUE = 'stale'\ndef get(): pass\n")]);
        assert!(import().starts_with("stale "), "3.{}", interpreter.version.1);
        for (path, pyc) in rewritten(&pycs(frames), interpreter.version) {
            write(folder.path(), &[(&path, &pyc)]);
        }
        let cached = folder.path().join(format!("pack/__pycache__/module.{}.pyc", interpreter.tag));
        let source = folder.path().join("pack/module.py");
        // importlib puts the path in that the source has here, for the one that it was compiled with.
        assert_eq!(import(), format!("compiled {} {}\n", cached.display(), source.display()));
    }
}

/// The header is what `py_compile` writes for an unchecked hash, and the code is the same.
#[test]
fn the_pyc_is_the_one_that_the_interpreter_itself_writes() {
    const PY_COMPILE: &str = "import py_compile, sys; py_compile.compile(sys.argv[1], sys.argv[2], sys.argv[3], True, 0, \
        py_compile.PycInvalidationMode.UNCHECKED_HASH)";
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bytecode/samples");
    for interpreter in interpreters() {
        let scratch = tempfile::tempdir().unwrap();
        let names = ["sample.py".to_owned()];
        let job = tree(&samples, scratch.path(), &names, &interpreter.tag, 1);
        let frames = frames(&interpreter.compile(scratch.path(), &[], &job), &scratch.path().join("out"));
        let ours = pycs(frames).into_values().next().unwrap();
        let theirs = scratch.path().join("theirs");
        let mut command = interpreter.command();
        command
            .args(["-c", PY_COMPILE])
            .arg(samples.join("sample.py"))
            .arg(&theirs)
            .arg("/var/task/sample.py");
        assert!(command.status().unwrap().success());
        let theirs = fs_err::read(theirs).unwrap();
        assert_eq!(ours[..16], theirs[..16]);
        assert_eq!(normalize(&ours, interpreter.version), normalize(&theirs, interpreter.version));
    }
}

/// Real packages have all of these. Warnings are nobody's business here, and nothing that is compiled is run.
#[test]
fn a_source_that_does_not_compile_is_no_failure() {
    for interpreter in interpreters() {
        let folder = tempfile::tempdir().unwrap();
        let marker = folder.path().join("marker");
        let runs = format!("open({:?}, 'w')\n", marker.to_str().unwrap());
        let deep = "(".repeat(5000) + &")".repeat(5000);
        let names = write(
            folder.path(),
            &[
                ("a_template.py", b"import {{ cookiecutter.name }}\n"),
                ("b_python2.py", b"print 'hello'\n"),
                ("c_nul.py", b"x = 1\0\n"),
                ("d_encoding.py", b"# -*- coding: no-such-encoding -*-\n"),
                ("e_utf8.py", b"x = '\xe9'\n"),
                ("f_deep.py", deep.as_bytes()),
                ("g_indent.py", b"if True:\nx = 1\n"),
                ("h_control.py", b"x = \x1b[31m\n"),
                ("m_latin.py", b"# -*- coding: latin-1 -*-\nx = '\xe9'\n"),
                ("n_warns.py", b"x = '\\d'\ny = x is 1\nassert (x, 'always')\n"),
                ("o_runs.py", runs.as_bytes()),
                ("p_empty.py", b""),
                ("q_bom.py", b"\xef\xbb\xbfx = 1\r\n"),
            ],
        );
        let scratch = tempfile::tempdir().unwrap();
        let job = tree(folder.path(), scratch.path(), &names, &interpreter.tag, 2);
        let frames = frames(&interpreter.compile(scratch.path(), &[], &job), &scratch.path().join("out"));
        let reasons: Vec<Option<&str>> = frames
            .iter()
            .map(|frame| match &frame.compiled {
                Compiled::Pyc(_) => None,
                Compiled::Error(reason) => Some(reason.as_str()),
            })
            .collect();
        assert_eq!(reasons.len(), names.len());
        assert!(reasons[..8].iter().all(Option::is_some), "3.{}: {reasons:?}", interpreter.version.1);
        assert!(reasons[8..].iter().all(Option::is_none), "3.{}: {reasons:?}", interpreter.version.1);
        assert!(reasons[0].unwrap().starts_with("SyntaxError: "), "{reasons:?}");
        assert!(!marker.exists());
    }
}

#[test]
fn a_source_that_crashes_the_interpreter_costs_only_itself() {
    for interpreter in interpreters() {
        let folder = tempfile::tempdir().unwrap();
        // So many that a process takes several at a time.
        let files: Vec<String> = (0..600).map(|number| format!("m{number:03}.py")).collect();
        let files: Vec<(&str, &[u8])> = files.iter().map(|name| (name.as_str(), &b"x = 1\n"[..])).collect();
        let names = write(folder.path(), &files);
        let scratch = tempfile::tempdir().unwrap();
        let job = tree(folder.path(), scratch.path(), &names, &interpreter.tag, 2);
        let output = interpreter.compile(scratch.path(), &["crash", "m301.py"], &job);
        let frames = frames(&output, &scratch.path().join("out"));
        assert_eq!(frames.len(), names.len());
        for (number, frame) in frames.iter().enumerate() {
            match &frame.compiled {
                Compiled::Pyc(_) => assert_ne!(number, 301),
                Compiled::Error(reason) => {
                    assert_eq!((number, reason.as_str()), (301, "the interpreter crashed: SIGABRT"));
                }
            }
        }
        let left = fs_err::read_dir(scratch.path()).unwrap().count();
        assert_eq!(left, ["compile.py", "history.py", "job.json", "out"].len());
    }
}

/// Whoever kills a process may not do it the next time, so the result would not be the same.
#[test]
fn a_process_that_is_killed_is_a_failure() {
    for interpreter in interpreters() {
        let folder = tempfile::tempdir().unwrap();
        let names = write(folder.path(), &[("a.py", b""), ("b.py", b"")]);
        let scratch = tempfile::tempdir().unwrap();
        let job = tree(folder.path(), scratch.path(), &names, &interpreter.tag, 2);
        let output = interpreter.compile(scratch.path(), &["kill", "b.py"], &job);
        assert!(!output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stderr), "error: a process was ended by signal 9\n");
        assert!(!scratch.path().join("out").exists());
    }
}

#[test]
fn a_member_that_is_not_there_is_a_failure() {
    for interpreter in interpreters() {
        let (folder, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let names = ["missing.py".to_owned()];
        let job = tree(folder.path(), scratch.path(), &names, &interpreter.tag, 2);
        let output = interpreter.compile(scratch.path(), &[], &job);
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("missing.py"));
    }
}

#[test]
fn a_wheel_and_a_folder_with_the_same_sources_give_the_same_bytes() {
    let files: [(&str, &[u8]); 3] =
        [("pack/__init__.py", b"x = 1\n"), ("pack/a.py", b"y = ' '\n"), ("z.py", b"import {{ x }}\n")];
    for interpreter in interpreters() {
        let folder = tempfile::tempdir().unwrap();
        let names = write(folder.path(), &files);
        let wheel = folder.path().join("pack-1.0-py3-none-any.whl");
        let mut zip = zip::ZipWriter::new(fs_err::File::create(&wheel).unwrap());
        for (name, content) in files {
            zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let out = |name: &str| scratch.path().join(name);
        let members: Vec<Value> = names.iter().map(|name| member(name, &interpreter.tag)).collect();
        let job = json!({
            "wheels": [
                {"path": wheel, "out": out("0"), "members": members},
                {"path": wheel, "out": out("1"), "members": members[..1]},
                {"path": wheel, "out": out("2"), "members": []},
            ],
            "trees": [{"root": folder.path(), "out": out("3"), "members": members}],
            "processes": 4,
        });
        let output = interpreter.compile(scratch.path(), &[], &job);
        let [all, first, none, tree] = ["0", "1", "2", "3"].map(|name| frames(&output, &out(name)));
        assert_eq!((all.len(), first.len(), none.len()), (3, 1, 0));
        assert_eq!(all[..1], first);
        assert_eq!(all, tree);
    }
}

/// What lies beside the program, or where it is started, is not the standard library.
#[test]
fn a_module_of_the_wheel_is_not_taken_for_one_of_the_standard_library() {
    for interpreter in interpreters() {
        let (folder, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let evil = b"raise SystemExit('taken for the standard library')\n";
        let names =
            ["json.py", "zipfile.py", "marshal.py", "struct.py", "warnings.py", "shutil.py", "lzma.py"];
        let names = write(folder.path(), &names.map(|name| (name, &evil[..])));
        let job = tree(folder.path(), scratch.path(), &names, &interpreter.tag, 1);
        let program = folder.path().join("compile.py");
        fs_err::write(&program, COMPILER).unwrap();
        let path = scratch.path().join("job.json");
        fs_err::write(&path, job.to_string()).unwrap();
        let output =
            interpreter.command().current_dir(folder.path()).arg(program).arg(path).output().unwrap();
        assert_eq!(frames(&output, &scratch.path().join("out")).len(), names.len());
    }
}

#[test]
fn an_environment_that_makes_a_difference_is_refused() {
    for interpreter in interpreters() {
        let (folder, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let job = tree(folder.path(), scratch.path(), &[], &interpreter.tag, 1);
        assert!(interpreter.compile(scratch.path(), &[], &job).status.success());
        let refused = |name: &str, value: &str| {
            let mut command = interpreter.command();
            command
                .env(name, value)
                .arg(scratch.path().join("compile.py"))
                .arg(scratch.path().join("job.json"));
            let output = command.output().unwrap();
            assert!(!output.status.success(), "{name}={value}");
            String::from_utf8(output.stderr).unwrap()
        };
        assert_eq!(refused("PYTHONHASHSEED", "1"), "error: PYTHONHASHSEED is not 0\n");
        assert_eq!(refused("PYTHONPATH", "/nowhere"), "error: in the environment there is PYTHONPATH\n");
        let ranges = refused("PYTHONNODEBUGRANGES", "1");
        assert_eq!(ranges, "error: in the environment there is PYTHONNODEBUGRANGES\n");
    }
}

#[test]
fn an_interpreter_says_which_bytecode_it_writes() {
    for interpreter in interpreters() {
        let scratch = tempfile::tempdir().unwrap();
        let program = scratch.path().join("compile.py");
        fs_err::write(&program, COMPILER).unwrap();
        let output = interpreter.command().arg(program).arg("--about").output().unwrap();
        let about: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(about["implementation"], "cpython");
        assert_eq!(about["cache_tag"], interpreter.tag.as_str());
        let version = about["version"].as_str().unwrap();
        assert!(version.starts_with(&format!("3.{}.", interpreter.version.1)), "{version}");
        let magic = hex::decode(about["magic"].as_str().unwrap()).unwrap();
        assert_eq!((magic.len(), &magic[2..]), (4, &b"\r\n"[..]));
    }
}
