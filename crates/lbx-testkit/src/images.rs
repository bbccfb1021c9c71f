//! Tar streams, layers and images made in memory, well-formed or not.
//!
//! The tar writer is deliberately naive: it writes the headers it is told to write, so that a test can say
//! exactly what a hostile layer contains. Upload is left to [`crate::registry`].

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The media type of an OCI image manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an OCI image index.
pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of an OCI image configuration.
pub const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of a gzip-compressed layer.
pub const GZIP_LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The media type of an uncompressed layer.
pub const TAR_LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
/// The modification time of every entry, in seconds since 1970: 2020-01-01.
pub const MODIFIED: u64 = 1_577_836_800;

/// The digest of some bytes, as `sha256:…`.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A tar stream under construction. Every method appends one entry and returns the stream.
#[derive(Debug, Default, Clone)]
pub struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// A regular file.
    #[must_use]
    pub fn file(self, path: impl AsRef<[u8]>, mode: u32, data: &[u8]) -> Self {
        self.entry(b'0', path.as_ref(), b"", mode, data)
    }

    /// A directory.
    #[must_use]
    pub fn dir(self, path: impl AsRef<[u8]>, mode: u32) -> Self {
        self.entry(b'5', path.as_ref(), b"", mode, b"")
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(b'2', path.as_ref(), target.as_ref(), 0o777, b"")
    }

    /// A hard link to an entry of the archive.
    #[must_use]
    pub fn hard_link(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(b'1', path.as_ref(), target.as_ref(), 0o644, b"")
    }

    /// A whiteout: `path`'s last component is removed from the layers below.
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let joint = if parent.is_empty() { "" } else { "/" };
        self.file(format!("{parent}{joint}.wh.{name}"), 0o644, b"")
    }

    /// An opaque marker: nothing of the layers below shows in this directory.
    #[must_use]
    pub fn opaque(self, directory: &str) -> Self {
        let joint = if directory.is_empty() { "" } else { "/" };
        self.file(format!("{directory}{joint}.wh..wh..opq"), 0o644, b"")
    }

    /// Any entry. A path or target over 100 bytes goes into GNU long-name records.
    #[must_use]
    pub fn entry(mut self, kind: u8, path: &[u8], target: &[u8], mode: u32, data: &[u8]) -> Self {
        for (record, name) in [(b'K', target), (b'L', path)] {
            if name.len() > 100 {
                let mut name = name.to_vec();
                name.push(0);
                self.push(&header(record, b"././@LongLink", b"", 0o644, name.len() as u64), &name);
            }
        }
        let size = data.len() as u64;
        self.push(&header(kind, cut(path), cut(target), mode, size), data);
        self
    }

    /// A PAX extended header for the next entry.
    #[must_use]
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
        self.entry(b'x', b"PaxHeaders/entry", b"", 0o644, &body)
    }

    /// Bytes as they are, without padding.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// The stream with its end marker.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }

    fn push(&mut self, header: &[u8; 512], data: &[u8]) {
        self.bytes.extend_from_slice(header);
        self.bytes.extend_from_slice(data);
        let padded = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(padded, 0);
    }
}

/// One ustar header with a right checksum; `path` and `target` are at most 100 bytes.
pub fn header(kind: u8, path: &[u8], target: &[u8], mode: u32, size: u64) -> [u8; 512] {
    let mut header = [0_u8; 512];
    header[..path.len()].copy_from_slice(path);
    header[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[136..148].copy_from_slice(format!("{MODIFIED:011o}\0").as_bytes());
    header[156] = kind;
    header[157..157 + target.len()].copy_from_slice(target);
    header[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut header);
    header
}

/// Writes the checksum of a header that was changed by hand.
pub fn seal(header: &mut [u8; 512]) {
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn cut(name: &[u8]) -> &[u8] {
    &name[..name.len().min(100)]
}

fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits, so it may grow by one while it is written.
    let length = (1..20).map(|digits| rest + digits).find(|length| length.to_string().len() == length - rest);
    let mut record = format!("{} {key}=", length.expect("some length fits")).into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// A layer: what the registry stores, and what it is when inflated.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The bytes as stored and transferred.
    pub blob: Vec<u8>,
    /// The digest of the uncompressed bytes.
    pub diff_id: String,
    /// The media type the manifest gives.
    pub media_type: String,
}

impl Layer {
    /// A gzip-compressed layer.
    pub fn gzip(tar: &[u8]) -> Self {
        Self { blob: gzip(tar), diff_id: sha256(tar), media_type: GZIP_LAYER_TYPE.to_owned() }
    }

    /// An uncompressed layer.
    pub fn plain(tar: &[u8]) -> Self {
        Self { blob: tar.to_vec(), diff_id: sha256(tar), media_type: TAR_LAYER_TYPE.to_owned() }
    }

    /// The digest of the stored bytes.
    pub fn digest(&self) -> String {
        sha256(&self.blob)
    }

    /// What a manifest says about this layer.
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest(), "size": self.blob.len()})
    }
}

/// Compresses as a registry client would.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes every byte");
    encoder.finish().expect("memory takes every byte")
}

/// An image: layers, configuration and manifest, as bytes.
#[derive(Debug, Clone)]
pub struct Image {
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// The configuration's bytes.
    pub config: Vec<u8>,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The manifest's media type.
    pub manifest_type: String,
}

impl Image {
    /// A `linux` image for an architecture (`amd64`, `arm64`), with a plausible configuration.
    pub fn new(architecture: &str, layers: Vec<Layer>) -> Self {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = json!({
            "os": "linux",
            "architecture": architecture,
            "config": {
                "Env": ["PATH=/var/lang/bin:/usr/bin:/bin", "LAMBDA_TASK_ROOT=/var/task"],
                "Entrypoint": ["/lambda-entrypoint.sh"],
                "WorkingDir": "/var/task",
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        Self::with_config(&config, layers)
    }

    /// An image with this configuration, right or wrong.
    pub fn with_config(config: &Value, layers: Vec<Layer>) -> Self {
        let config = config.to_string().into_bytes();
        let descriptors: Vec<Value> = layers.iter().map(Layer::descriptor).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": sha256(&config), "size": config.len()},
            "layers": descriptors,
        });
        Self {
            layers,
            config,
            manifest: manifest.to_string().into_bytes(),
            manifest_type: MANIFEST_TYPE.to_owned(),
        }
    }

    /// The digest of the manifest.
    pub fn digest(&self) -> String {
        sha256(&self.manifest)
    }

    /// What an index says about this image.
    pub fn descriptor(&self, architecture: &str) -> Value {
        json!({
            "mediaType": self.manifest_type,
            "digest": self.digest(),
            "size": self.manifest.len(),
            "platform": {"os": "linux", "architecture": architecture},
        })
    }
}

/// An image index over descriptors, as bytes.
pub fn index(descriptors: &[Value]) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": descriptors}).to_string().into_bytes()
}
