//! What is wrong with lbx.toml and the files that it names: said with its place before anything is fetched.

use std::os::unix::fs::symlink;

use lbx_testkit::command::{Home, run};

use crate::support::{HEAD, fails, lbx, nothing_left};

/// The exit code for everything here.
const PROJECT: i32 = 3;

/// `lbx build` of a configuration fails with exactly this on stderr.
#[track_caller]
fn refused(home: &Home, config: &str, stderr: &str) {
    home.write("lbx.toml", config);
    // No registry listens there: whatever reaches it is a failure with another message.
    fails(home, &mut lbx(home, &["build", "--image", "127.0.0.1:1/none:1"]), PROJECT, stderr);
}

/// A home whose project has `src/app.py`.
fn home() -> Home {
    let home = Home::new();
    home.write("src/app.py", "");
    home
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_what_was_meant() {
    refused(
        &home(),
        &format!("{HEAD}[functions.a]\nsource = \"src\"\nrequirments = [\"r.txt\"]\n"),
        "error: lbx.toml:5:1: unknown key `requirments`, expected one of `source`, `handler`, `requirements`, `include`, `layers`, `bytecode`, `prune`\n\
        hint: did you mean `requirements`?\n",
    );
}

#[test]
fn a_wrong_type_is_named_with_its_place() {
    refused(
        &home(),
        "[project]\nruntime = 3.11\n",
        "error: lbx.toml:2:11: invalid type: floating point `3.11`, expected a string\n",
    );
    refused(
        &home(),
        &format!("{HEAD}[functions.a]\nsource = \"src\"\nrequirements = \"r.txt\"\n"),
        "error: lbx.toml:5:16: invalid type: string \"r.txt\", expected a sequence\n",
    );
}

#[test]
fn broken_toml_and_a_key_given_twice_are_named_with_their_places() {
    refused(
        &home(),
        "[project\nruntime = \"python3.11\"\n",
        "error: lbx.toml:1:9: unclosed table, expected `]`\n",
    );
    refused(
        &home(),
        "[project]\nruntime = \"python3.11\"\nruntime = \"python3.9\"\n",
        "error: lbx.toml:3:1: `runtime` is there twice\n",
    );
}

#[test]
fn two_functions_with_one_name_are_refused_at_the_second() {
    refused(
        &home(),
        &format!("{HEAD}[functions.a]\nsource = \"src\"\n[functions.a]\nsource = \"src\"\n"),
        "error: lbx.toml:5:12: `a` is there twice\n",
    );
    refused(
        &home(),
        &format!("{HEAD}[functions.a]\nsource = \"src\"\n[layers.A]\nsource = \"src\"\n"),
        "error: lbx.toml:5:9: the names `a` and `A` differ in upper and lower case alone\n\
        hint: both would be written to dist/A.zip; rename one\n",
    );
}

#[test]
fn an_unknown_runtime_is_named_with_what_was_meant() {
    refused(
        &home(),
        "[project]\nruntime = \"3.11\"\n[functions.a]\nsource = \"src\"\n",
        "error: lbx.toml:2:11: there is no runtime `3.11`\n\
        hint: did you mean `python3.11`?\n",
    );
}

#[test]
fn a_missing_requirement_file_is_named_where_it_is_asked_for() {
    let home = home();
    let config = format!("{HEAD}[functions.a]\nsource = \"src\"\nrequirements = [\"req.txt\"]\n");
    home.write("requirements.txt", "");
    refused(
        &home,
        &config,
        "error: lbx.toml:5:17: the requirement file `req.txt` does not exist\n\
        hint: that folder has requirements.txt\n",
    );
    home.write("req.txt", "# first\n-r base.txt\n");
    refused(
        &home,
        &config,
        "error: req.txt:2: the requirement file `base.txt` does not exist\n\
        hint: that folder has req.txt, requirements.txt\n",
    );
}

#[test]
fn a_missing_source_and_a_source_that_is_a_file_are_named_where_they_are_asked_for() {
    refused(
        &home(),
        &format!("{HEAD}[functions.a]\nsource = \"scr\"\n"),
        "error: lbx.toml:4:10: `scr` does not exist\nhint: paths are relative to the folder of lbx.toml\n",
    );
    refused(
        &home(),
        &format!("{HEAD}[functions.a]\nsource = \"src/app.py\"\n"),
        "error: lbx.toml:4:10: the source `src/app.py` is not a folder\n",
    );
    refused(
        &home(),
        &format!("{HEAD}[functions.a]\nsource = \"src\"\ninclude = [\"common\"]\n"),
        "error: lbx.toml:5:12: `common` does not exist\nhint: paths are relative to the folder of lbx.toml\n",
    );
}

#[test]
fn a_source_outside_the_project_is_refused_whether_written_or_linked() {
    let home = home();
    refused(
        &home,
        &format!("{HEAD}[functions.a]\nsource = \"../secret\"\n"),
        "error: lbx.toml:4:10: `../secret` is outside the project\n\
        hint: paths are relative to the folder of lbx.toml and stay inside it\n",
    );
    fs_err::create_dir(home.root().join("secret")).unwrap();
    symlink(home.root().join("secret"), home.project().join("link")).unwrap();
    refused(
        &home,
        &format!("{HEAD}[functions.a]\nsource = \"link\"\n"),
        "error: lbx.toml:4:10: `link` is outside the project: it leads to `[ROOT]/secret`\n\
        hint: move it into the project, or put lbx.toml in a folder above both\n",
    );
}

#[test]
fn a_local_requirement_that_is_missing_is_told_before_anything_is_fetched() {
    let home = home();
    home.write("r.txt", "six\n../other\n");
    refused(
        &home,
        &format!("{HEAD}[functions.a]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n"),
        "error: `../other`, which the requirements name, does not exist\n\
        hint: folders of archives are relative to the file that names them, all else to the project's folder\n",
    );
}

#[test]
fn a_link_that_leaves_its_source_is_refused_with_both_ends() {
    let home = home();
    symlink("/etc/passwd", home.project().join("src/users")).unwrap();
    refused(
        &home,
        &format!("{HEAD}[functions.a]\nsource = \"src\"\n"),
        "error: the link `src/users` leaves its source: it leads to `/etc/passwd`\n\
        hint: put a copy there, or name the shared folder in `include`\n",
    );
}

#[test]
fn a_layer_and_a_handler_that_cannot_be_are_named_where_they_are_written() {
    refused(
        &home(),
        &format!(
            "{HEAD}[functions.a]\nsource = \"src\"\nlayers = [\"dep\"]\n[layers.deps]\nsource = \"src\"\n"
        ),
        "error: lbx.toml:5:11: there is no layer `dep`\n\
        hint: did you mean `deps`?\n",
    );
    refused(
        &home(),
        &format!("{HEAD}[functions.a]\nsource = \"src\"\nhandler = \"app\"\n"),
        "error: lbx.toml:5:11: `app` is no handler\n\
        hint: a handler is `module.function`, such as `lambda.handler` for `handler` in lambda.py\n",
    );
    refused(
        &home(),
        &format!("{HEAD}[layers.l]\n"),
        "error: lbx.toml:3:9: the layer `l` has neither `requirements` nor `source`\n",
    );
}

#[test]
fn a_project_with_nothing_to_build_says_what_to_add() {
    refused(
        &home(),
        HEAD,
        "error: lbx.toml has no functions and no layers\n\
        hint: add a `[functions.NAME]` with a `source`, or a `[layers.NAME]` with `requirements`\n",
    );
    let empty = Home::new();
    let mut command = lbx(&empty, &["build", "--runtime", "python3.11"]);
    fails(
        &empty,
        &mut command,
        PROJECT,
        "error: there is no lbx.toml and no Python file in [ROOT]/project\n\
        hint: go to the folder of your function or project, or write an lbx.toml (see README.md)\n",
    );
}

#[test]
fn a_name_and_a_configuration_that_do_not_exist_are_named() {
    let home = home();
    home.write("lbx.toml", format!("{HEAD}[functions.send]\nsource = \"src\"\n"));
    fails(
        &home,
        &mut lbx(&home, &["build", "sned"]),
        PROJECT,
        "error: there is no function or layer `sned` in lbx.toml\n\
        hint: did you mean `send`?\n",
    );
    fails(
        &home,
        &mut lbx(&home, &["build", "--config", "no.toml"]),
        PROJECT,
        "error: there is no configuration `[ROOT]/project/no.toml`\n",
    );
}

#[test]
fn one_output_file_for_several_artifacts_is_refused() {
    let home = home();
    home.write(
        "lbx.toml",
        format!("{HEAD}[functions.a]\nsource = \"src\"\n[functions.b]\nsource = \"src\"\n"),
    );
    fails(
        &home,
        &mut lbx(&home, &["build", "-o", "one.zip"]),
        2,
        "error: -o names one file, but there are 2 artifacts\n\
        hint: name the artifact to build, or use --out-dir\n",
    );
}

#[test]
fn arguments_that_make_no_sense_are_refused_with_the_usage() {
    let home = home();
    for arguments in [&["build", "--layer"][..], &["build", "--arch", "mips"], &["frobnicate"]] {
        let ran = run(&mut lbx(&home, arguments));
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
        nothing_left(&home);
    }
    let mut command = lbx(&home, &["build", "--runtime", "python3.11"]);
    home.write("app.py", "");
    fails(
        &home,
        command.env("SOURCE_DATE_EPOCH", "yesterday"),
        2,
        "error: SOURCE_DATE_EPOCH is `yesterday`, expected a number of seconds\n",
    );
}

#[test]
fn a_folder_gives_its_whole_name_with_what_no_name_can_have_replaced() {
    let home = Home::new();
    home.write("my.func/app.py", "");
    home.write("my.func/requirements.txt", "six\n");
    let mut command =
        lbx(&home, &["build", "--runtime", "python3.11", "--image", "127.0.0.1:1/x:1", "--offline"]);
    let ran = run(command.current_dir(home.project().join("my.func")));
    assert!(ran.stderr.starts_with("lbx: building my_func in "), "{}", ran.stderr);
}

#[test]
fn a_variable_in_a_requirement_file_is_named_with_its_line() {
    let home = home();
    home.write("r.txt", "-r more.txt\n");
    home.write("more.txt", "six\none @ git+https://${TOKEN}@host.example/one\n");
    refused(
        &home,
        &format!("{HEAD}[functions.a]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n"),
        "error: more.txt:2: the variable TOKEN is not set, or is empty\n\
        hint: set it in the environment of lbx; its value is seen by nothing but this line\n",
    );
}

#[test]
fn requirement_files_that_go_round_in_a_circle_are_named_with_the_line() {
    let home = home();
    home.write("r.txt", "-r more.txt\n");
    home.write("more.txt", "six\n-r r.txt\n");
    refused(
        &home,
        &format!("{HEAD}[functions.a]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n"),
        "error: more.txt:2: requirement files go round in a circle: r.txt, which names more.txt, which names r.txt\n\
        hint: take this line out\n",
    );
}
