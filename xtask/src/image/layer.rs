//! A tree as a layer: a tar archive and its gzip form, whose bytes depend on the tree alone.

use std::collections::HashMap;
use std::io::{self, Write};

use libdeflater::{CompressionLvl, Compressor};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::tree::{Node, Tree};
use crate::Result;

/// Level 6 of libdeflate: its version is pinned in the workspace, it is called once for a whole
/// layer, and it gives the same bytes on every CPU. Streaming compressors depend on how they are fed.
const LEVEL: i32 = 6;

/// The longest path that the oldest tar header has room for.
const PATH_ROOM: usize = 100;

/// One compressed layer.
pub(crate) struct Blob {
    pub(crate) gzip: Vec<u8>,
    /// SHA-256 of the gzip bytes: how a registry names the layer.
    pub(crate) digest: String,
    /// SHA-256 of the tar bytes: how a config names it.
    pub(crate) diff_id: String,
}

/// The layer that holds this tree.
pub(crate) fn write(tree: &Tree) -> Result<Blob> {
    let tar = archive(tree)?;
    let diff_id = sha256(&tar);
    let gzip = compress(&tar)?;
    Ok(Blob { digest: sha256(&gzip), gzip, diff_id })
}

/// `sha256:…` of the bytes.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn archive(tree: &Tree) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    let mut first_names: HashMap<u64, &str> = HashMap::new();
    for (path, node) in tree.iter() {
        let (path, kind, mode, link, data): (_, _, _, &str, &[u8]) = match node {
            Node::Directory { mode } => (format!("{path}/"), EntryType::Directory, *mode, "", &[]),
            Node::Symlink(target) => (path.to_owned(), EntryType::Symlink, 0o777, target, &[]),
            Node::File { mode, data, number } => {
                let first = *first_names.entry(*number).or_insert(path);
                if first == path {
                    (path.to_owned(), EntryType::Regular, *mode, "", data)
                } else {
                    (path.to_owned(), EntryType::Link, *mode, first, &[])
                }
            }
        };
        append(&mut builder, &path, kind, mode, link, data)?;
    }
    Ok(builder.into_inner()?)
}

/// Adds one entry; names that the old header can't hold go into a PAX header, as Go's archiver and
/// so every image builder does it.
fn append(
    builder: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    link: &str,
    data: &[u8],
) -> io::Result<()> {
    let records = [("path", path), ("linkpath", link)];
    let long = records.into_iter().filter(|(_, value)| value.len() > PATH_ROOM || !value.is_ascii());
    builder.append_pax_extensions(long.map(|(key, value)| (key, value.as_bytes())))?;
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(data.len() as u64);
    let bytes = header.as_old_mut();
    fill(&mut bytes.name, path);
    fill(&mut bytes.linkname, link);
    header.set_cksum();
    builder.append(&header, data)
}

/// Writes as much of the text as fits; what doesn't fit has a PAX record.
fn fill(field: &mut [u8], text: &str) {
    let bytes = text.as_bytes();
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

fn compress(tar: &[u8]) -> Result<Vec<u8>> {
    let level =
        CompressionLvl::new(LEVEL).map_err(|error| format!("libdeflate: level {LEVEL}: {error:?}"))?;
    let mut compressor = Compressor::new(level);
    let mut gzip = vec![0; compressor.gzip_compress_bound(tar.len())];
    let length = compressor.gzip_compress(tar, &mut gzip).map_err(|error| format!("libdeflate: {error}"))?;
    gzip.truncate(length);
    Ok(gzip)
}

/// Writes the blob below `blobs/sha256`, under its own name.
pub(crate) fn store(folder: &std::path::Path, digest: &str, bytes: &[u8]) -> Result<()> {
    let name = digest.strip_prefix("sha256:").unwrap_or(digest);
    let mut file = fs_err::File::create(folder.join("blobs/sha256").join(name))?;
    file.write_all(bytes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const FILES: [(&str, u32, &[u8]); 3] =
        [("usr/bin/su", 0o4755, b"su"), ("имя", 0o644, b"name"), ("a/file", 0o600, &[7; 100_000])];

    fn example(reversed: bool) -> Tree {
        let mut tree = Tree::default();
        let mut files = FILES;
        if reversed {
            files.reverse();
        }
        for (path, mode, data) in files {
            tree.add_file(path, mode, data);
        }
        tree.add_file(&format!("long/{}", "x".repeat(200)), 0o600, *b"long");
        tree.add_symlink("lib", "usr/lib");
        tree.add_hardlink("usr/bin/also", "usr/bin/su").unwrap();
        tree.complete();
        tree
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes_in_whatever_order_it_was_built() {
        let (one, two) = (write(&example(false)).unwrap(), write(&example(true)).unwrap());
        assert_eq!(one.gzip, two.gzip);
        assert_eq!((one.digest, one.diff_id), (two.digest, two.diff_id));
    }

    #[test]
    fn a_layer_reads_back_with_names_modes_and_links() {
        let blob = write(&example(false)).unwrap();
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(blob.gzip.as_slice()).read_to_end(&mut tar).unwrap();
        assert_eq!(sha256(&tar), blob.diff_id);
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
            let link = entry.link_name().unwrap().map(|path| path.display().to_string());
            seen.push((entry.path().unwrap().display().to_string(), header.mode().unwrap(), link));
        }
        assert!(seen.contains(&("имя".into(), 0o644, None)));
        assert!(seen.contains(&("usr/bin/also".into(), 0o4755, None)));
        assert!(seen.contains(&("usr/bin/su".into(), 0o4755, Some("usr/bin/also".into()))));
        assert!(seen.contains(&(format!("long/{}", "x".repeat(200)), 0o600, None)));
        assert!(seen.contains(&("lib".into(), 0o777, Some("usr/lib".into()))));
    }
}
