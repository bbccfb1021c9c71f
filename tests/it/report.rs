//! `report.json`: that it is what its schema says, that its sums are right, and what was measured.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lbx_testkit::command::{Home, stable_part};
use lbx_testkit::stub::Stub;
use serde_json::{Value, json};

use crate::locks::{command, succeeds, wheel, wheels};
use crate::support::{HEAD, image, lbx};

/// An image that nobody has: what is locked needs none.
const NO_IMAGE: &str = "127.0.0.1:1/none:1";

/// A locked project of two functions with one set, and a store of its own.
fn project(image: &str) -> (Home, Stub, tempfile::TempDir) {
    let docs = wheel("two", "2.0").file("two/docs/page.rst", b"read me");
    let (folder, index) = wheels(&[wheel("one", "1.0").requires("two"), docs]);
    let home = Home::new();
    home.write("a/app.py", "A = 1\n");
    home.write("a/more.py", "B = 2\n");
    home.write("b/app.py", "C = 3\n");
    home.write("r.txt", "one\n");
    let function = |name: &str| {
        format!(
            "[functions.{name}]\nsource = \"{name}\"\nrequirements = [\"r.txt\"]\nprune.sets = [\"docs\"]\n"
        )
    };
    home.write("lbx.toml", format!("{HEAD}{}{}", function("a"), function("b")));
    succeeds(&mut command(&home, "lock", image, &index));
    // Files that have changed only now may change again unseen, and are compressed again.
    std::thread::sleep(Duration::from_millis(2100));
    (home, index, folder)
}

fn build(home: &Home, index: &Stub) -> Command {
    let mut command = lbx(home, &["build", "--image", NO_IMAGE]);
    command.env("PIP_INDEX_URL", format!("http://{}/simple", index.address()));
    command
}

/// The bytes of the report, and what they say.
fn report(home: &Home) -> (Vec<u8>, Value) {
    let bytes = fs_err::read(home.project().join("dist/report.json")).expect("a report");
    let value = serde_json::from_slice(&bytes).expect("JSON");
    (bytes, value)
}

#[test]
fn the_stable_part_is_the_same_each_time_and_the_other_says_what_was_done_already() {
    let Some(image) = image() else { return };
    let (home, index, _folder) = project(&image);
    succeeds(&mut build(&home, &index));
    let (first, said) = report(&home);
    let made = |number: u64| json!({"reused": 0, "made": number});
    assert_eq!(said["version"], 1);
    let cache = json!({"wheels": made(2), "parts": made(1), "files": made(3)});
    assert_eq!(said["measured"]["cache"], cache);
    assert_eq!(said["measured"]["sandbox"], Value::Null, "nothing had to run");
    let seconds = |said: &Value, stage: &str| said["measured"]["seconds"][stage].as_f64().expect("a number");
    let stages = ["prepare", "image", "resolve", "package", "check"].map(|stage| seconds(&said, stage));
    let sum: f64 = stages.iter().sum();
    assert!(sum > 0.0 && sum <= seconds(&said, "total") + 0.005, "{stages:?}");

    home.write("a/more.py", "B = 2\n");
    succeeds(&mut build(&home, &index));
    let (second, said) = report(&home);
    assert!(stable_part(&second) == stable_part(&first));
    let reused = |number: u64| json!({"reused": number, "made": 0});
    let cache = json!({"wheels": reused(2), "parts": reused(1), "files": {"reused": 2, "made": 1}});
    assert_eq!(said["measured"]["cache"], cache);
}

#[test]
fn its_sums_are_those_of_its_parts() {
    let Some(image) = image() else { return };
    let (home, index, _folder) = project(&image);
    succeeds(&mut build(&home, &index));
    let (_, said) = report(&home);
    let artifact = &said["stable"]["artifacts"][0];
    let wheels = artifact["wheels"].as_array().expect("wheels");
    let number = |value: &Value| value.as_u64().expect("a number");
    let kept = || wheels.iter().map(|wheel| &wheel["kept"]).chain([&artifact["own"]]);
    let sum = |key: &str| kept().map(|part| number(&part[key])).sum::<u64>();
    assert_eq!((sum("files"), sum("size")), (number(&artifact["files"]), number(&artifact["unpacked_size"])));
    let packed = wheels.iter().map(|wheel| number(&wheel["packed_size"])).sum::<u64>();
    let own = number(&artifact["own_packed_size"]);
    assert!(packed > 0 && own > 0 && packed + own < number(&artifact["size"]), "{artifact}");
    assert_eq!((&artifact["own"]["files"], &artifact["own"]["size"]), (&json!(2), &json!(12)));
    assert_eq!(artifact["left_out_by_rule"]["docs"], json!({"files": 1, "size": 7}));
}

#[test]
fn it_is_what_its_schema_says() {
    let Some(image) = image() else { return };
    let (home, index, _folder) = project(&image);
    succeeds(&mut build(&home, &index));
    let (_, said) = report(&home);
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/report.schema.json");
    let schema: Value = serde_json::from_slice(&fs_err::read(schema).expect("a schema")).expect("JSON");
    assert_eq!(complaints(&schema, &schema, &said, "$"), Vec::<String>::new());
    let mut other = said;
    other["stable"]["artifacts"][1]["size"] = json!("large");
    other["stable"]["more"] = json!(1);
    other["measured"].as_object_mut().expect("an object").remove("cache");
    let expected = [
        "$.measured: cache is missing",
        "$.stable.artifacts[1].size: no integer",
        "$.stable: more is unknown",
    ];
    let mut found = complaints(&schema, &schema, &other, "$");
    found.sort();
    assert_eq!(found, expected);
}

/// In what a value is not what a schema says, as far as schemas of ours go.
fn complaints(root: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let target = root.pointer(name.trim_start_matches('#')).expect("a definition");
        return complaints(root, target, value, place);
    }
    if let Some(choices) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        let fits = choices.iter().any(|choice| complaints(root, choice, value, place).is_empty());
        return if fits { Vec::new() } else { vec![format!("{place}: none of what it may be")] };
    }
    let constant = schema["const"].is_null() || schema["const"] == *value;
    if !constant || schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return vec![format!("{place}: another word")];
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        kind => vec![kind.clone()],
    };
    if !kinds.iter().any(|kind| kind.as_str().is_none_or(|kind| is(value, kind))) {
        return vec![format!("{place}: no {}", kinds[0].as_str().unwrap_or_default())];
    }
    complaints_below(root, schema, value, place)
}

fn complaints_below(root: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let mut found = Vec::new();
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            found.push(format!("{place}: {name} is missing"));
        }
    }
    for (name, one) in value.as_object().into_iter().flatten() {
        let of_one = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
        if of_one.is_null() {
            found.push(format!("{place}: {name} is unknown"));
        }
        found.extend(complaints(root, of_one, one, &format!("{place}.{name}")));
    }
    for (index, one) in value.as_array().into_iter().flatten().enumerate() {
        found.extend(complaints(root, &schema["items"], one, &format!("{place}[{index}]")));
    }
    found
}

/// Whether a value is of a kind.
fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}
