//! Where two images begin to differ. That they do is a comparison of bytes; what follows is about naming the cause:
//! one file in a layer changes the digests in config, manifest and index, so layers are looked at first.

use std::io::{self, Read};

use serde_json::Value;

use super::layout::Layout;

/// The first place where two images differ, layers first, lowest layer first; none if every byte is the same.
pub(crate) fn first_difference(first: &Layout, second: &Layout) -> Option<String> {
    if first == second {
        return None;
    }
    let causes = [layers, config, manifest, documents, files];
    let named = causes.iter().find_map(|cause| cause(first, second));
    // Whatever is not named differs all the same.
    Some(named.unwrap_or_else(|| format!("{first:?} and {second:?}")))
}

/// The first layer that differs, of those that both have.
fn layers(first: &Layout, second: &Layout) -> Option<String> {
    let pairs = first.layers().into_iter().zip(second.layers());
    pairs.enumerate().find_map(|(index, ((name, one), (_, two)))| {
        let difference = layer(first.bytes(&one), second.bytes(&two))?;
        Some(format!("layer {} ({name}), {one} and {two}: {difference}", index + 1))
    })
}

fn config(first: &Layout, second: &Layout) -> Option<String> {
    document("config", (first, &first.config()), (second, &second.config()))
}

fn manifest(first: &Layout, second: &Layout) -> Option<String> {
    document("manifest", (first, &first.manifest()), (second, &second.manifest()))
}

fn documents(first: &Layout, second: &Layout) -> Option<String> {
    ["index.json", "oci-layout"].iter().find_map(|name| document(name, (first, name), (second, name)))
}

/// A file that only one of them has, or that has other bytes.
fn files(first: &Layout, second: &Layout) -> Option<String> {
    let lacks = |one: &Layout, two: &Layout| {
        one.names().find(|name| !two.names().any(|other| other == *name)).map(str::to_owned)
    };
    let only = |name: String, which: &str| format!("{name}: only in the {which}");
    lacks(first, second)
        .map(|name| only(name, "first"))
        .or_else(|| lacks(second, first).map(|name| only(name, "second")))
        .or_else(|| {
            let mut both = first.names();
            both.find_map(|name| Some(format!("{name}: {}", bytes(first.bytes(name), second.bytes(name))?)))
        })
}

/// The first field that differs in two documents, else the first byte.
fn document(what: &str, first: (&Layout, &str), second: (&Layout, &str)) -> Option<String> {
    let difference = bytes(first.0.bytes(first.1), second.0.bytes(second.1))?;
    let field = field("", &first.0.json(first.1), &second.0.json(second.1));
    Some(format!("{what}, {} and {}: {}", first.1, second.1, field.unwrap_or(difference)))
}

/// The first field that differs, as a JSON pointer, with both values.
fn field(place: &str, first: &Value, second: &Value) -> Option<String> {
    match (first, second) {
        _ if first == second => None,
        (Value::Object(one), Value::Object(two)) => {
            let names = one.keys().chain(two.keys());
            names.into_iter().find_map(|name| {
                field(&format!("{place}/{name}"), &first[name.as_str()], &second[name.as_str()])
            })
        }
        (Value::Array(one), Value::Array(two)) if one.len() == two.len() => {
            (0..one.len()).find_map(|index| field(&format!("{place}/{index}"), &first[index], &second[index]))
        }
        _ => Some(format!("{place} is {first} and {second}")),
    }
}

/// Where two compressed layers differ: an entry, else the archive around the entries, else the compression.
fn layer(first: &[u8], second: &[u8]) -> Option<String> {
    let compressed = bytes(first, second)?;
    let (one, two) = (unzipped(first), unzipped(second));
    let Some(archive) = bytes(&one, &two) else {
        return Some(format!("the same archive, compressed differently: {compressed}"));
    };
    let (one, two) = (entries(&one), entries(&two));
    let mut pairs = one.iter().zip(&two).enumerate();
    let difference = pairs.find_map(|(index, (one, two))| entry(index, one, two));
    let shared = one.len().min(two.len());
    let rest = || {
        let (longer, which) = if one.len() > shared { (&one, "first") } else { (&two, "second") };
        longer.get(shared).map(|entry| format!("{}: only in the {which}", entry.path))
    };
    difference.or_else(rest).or(Some(format!("in the archive itself: {archive}")))
}

fn unzipped(gzip: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = flate2::read::GzDecoder::new(gzip).read_to_end(&mut bytes);
    read.expect("a layer is compressed with gzip");
    bytes
}

/// One entry of an archive.
struct Entry {
    path: String,
    /// What an archiver can write there of itself, by name.
    fields: Vec<(&'static str, String)>,
    /// The header as it stands, with whatever no field is about.
    header: Vec<u8>,
    data: Vec<u8>,
}

fn entries(tar: &[u8]) -> Vec<Entry> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().expect("an archive");
    entries.map(|entry| read(entry.expect("an entry"))).collect()
}

fn read(mut entry: tar::Entry<'_, &[u8]>) -> Entry {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let link = entry.link_name_bytes().map(|link| text(&link)).unwrap_or_default();
    let header = entry.header().clone();
    let fields = vec![
        ("kind", format!("{:?}", header.entry_type())),
        ("mode", number(header.mode().map(|mode| format!("{mode:o}")))),
        ("uid", number(header.uid())),
        ("gid", number(header.gid())),
        ("user", text(header.username_bytes().unwrap_or_default())),
        ("group", text(header.groupname_bytes().unwrap_or_default())),
        ("mtime", number(header.mtime())),
        ("link", link),
    ];
    let mut data = Vec::new();
    entry.read_to_end(&mut data).expect("the data of an entry");
    Entry { path: text(&entry.path_bytes()), fields, header: header.as_bytes().to_vec(), data }
}

/// A field with a number; what is none is a difference, too, if the other image has one.
fn number(field: io::Result<impl ToString>) -> String {
    field.map_or_else(|error| error.to_string(), |number| number.to_string())
}

/// Where two entries at the same place of their archives differ.
fn entry(index: usize, first: &Entry, second: &Entry) -> Option<String> {
    if first.path != second.path {
        return Some(format!("entry {index} is {} and {}", first.path, second.path));
    }
    let mut fields = first.fields.iter().zip(&second.fields);
    let field = fields.find(|(one, two)| one != two);
    let field = field.map(|((name, one), (_, two))| format!("{name} is {one} and {two}"));
    let difference = field
        .or_else(|| Some(format!("content: {}", bytes(&first.data, &second.data)?)))
        .or_else(|| Some(format!("header: {}", bytes(&first.header, &second.header)?)))?;
    Some(format!("{}: {difference}", first.path))
}

/// The first byte that differs.
fn bytes(first: &[u8], second: &[u8]) -> Option<String> {
    if first == second {
        return None;
    }
    let place = first.iter().zip(second).position(|(one, two)| one != two);
    Some(match place {
        Some(place) => format!("byte {place} is {:#04x} and {:#04x}", first[place], second[place]),
        None => format!("{} and {} bytes, the shorter begins the longer", first.len(), second.len()),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use serde_json::json;
    use sha2::{Digest, Sha256};
    use tempfile::TempDir;

    use super::*;

    /// What can be different about an image of two layers.
    #[derive(Clone)]
    struct Recipe {
        files: Vec<(&'static str, u64, &'static str)>,
        level: u32,
        variable: &'static str,
        media_type: &'static str,
        reference: &'static str,
        stray: bool,
    }

    fn recipe() -> Recipe {
        Recipe {
            files: vec![("bin/su", 0, "su"), ("bin/true", 0, "true")],
            level: 6,
            variable: "TZ=UTC",
            media_type: "layer",
            reference: "3.9",
            stray: false,
        }
    }

    fn archive(files: &[(&str, u64, &str)], level: u32) -> Vec<u8> {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::new(level)));
        for (path, mtime, data) in files {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_mtime(*mtime);
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, path, data.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn store(folder: &TempDir, bytes: &[u8]) -> String {
        let name = hex::encode(Sha256::digest(bytes));
        let mut file = fs_err::File::create(folder.path().join("blobs/sha256").join(&name)).unwrap();
        file.write_all(bytes).unwrap();
        format!("sha256:{name}")
    }

    fn write(recipe: &Recipe) -> Layout {
        let folder = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        let system = store(&folder, &archive(&[("etc/hosts", 0, "")], 6));
        let tools = store(&folder, &archive(&recipe.files, recipe.level));
        let config = json!({
            "config": { "Env": ["A=b", recipe.variable] },
            "history": [{ "created_by": "system" }, { "created_by": "tools" }],
            "rootfs": { "diff_ids": [system, tools] },
        });
        let config = store(&folder, config.to_string().as_bytes());
        let descriptor = |digest: &str| json!({ "mediaType": recipe.media_type, "digest": digest });
        let manifest =
            json!({ "config": { "digest": config }, "layers": [descriptor(&system), descriptor(&tools)] });
        let manifest = store(&folder, manifest.to_string().as_bytes());
        let index = json!({ "manifests": [{ "digest": manifest, "annotations": recipe.reference }] });
        fs_err::write(folder.path().join("index.json"), index.to_string()).unwrap();
        if recipe.stray {
            fs_err::write(folder.path().join("blobs/sha256/stray"), "").unwrap();
        }
        Layout::read(folder.path())
    }

    /// What is said of an image that is like the usual one but for what is changed.
    fn said(change: impl Fn(&mut Recipe)) -> String {
        let mut other = recipe();
        change(&mut other);
        first_difference(&write(&recipe()), &write(&other)).expect("a difference")
    }

    #[track_caller]
    fn says(said: &str, begin: &str, end: &str) {
        assert!(said.starts_with(begin) && said.ends_with(end), "{said}");
    }

    #[test]
    fn the_same_image_has_no_difference() {
        assert_eq!(first_difference(&write(&recipe()), &write(&recipe())), None);
    }

    #[test]
    fn a_layer_that_differs_is_named_with_the_entry_and_its_field() {
        let tools = "layer 2 (tools), blobs/sha256/";
        says(&said(|other| other.files[1].1 = 7), tools, ": bin/true: mtime is 0 and 7");
        says(&said(|other| other.files[0].2 = "sh"), tools, ": bin/su: content: byte 1 is 0x75 and 0x68");
        says(&said(|other| other.files.swap(0, 1)), tools, ": entry 0 is bin/su and bin/true");
        says(&said(|other| other.files.truncate(1)), tools, ": bin/true: only in the first");
        let longer = said(|other| other.files.push(("bin/w", 0, "")));
        says(&longer, tools, ": bin/w: only in the second");
    }

    #[test]
    fn another_compression_of_the_same_archive_is_a_difference() {
        let said = said(|other| other.level = 0);
        assert!(said.contains("the same archive, compressed differently: byte "), "{said}");
    }

    #[test]
    fn a_document_that_differs_is_named_with_the_field() {
        let config = said(|other| other.variable = "TZ=");
        says(&config, "config, blobs/sha256/", r#": /config/Env/1 is "TZ=UTC" and "TZ=""#);
        let manifest = said(|other| other.media_type = "other");
        says(&manifest, "manifest, blobs/sha256/", r#": /layers/0/mediaType is "layer" and "other""#);
        let index = said(|other| other.reference = "3.11");
        says(&index, "index.json, ", r#": /manifests/0/annotations is "3.9" and "3.11""#);
    }

    #[test]
    fn a_file_that_nothing_refers_to_is_a_difference() {
        says(&said(|other| other.stray = true), "blobs/sha256/stray", "only in the second");
    }
}
