//! Why a zip, or a folder in the place of one, cannot be read.

use std::io;
use std::path::PathBuf;

use lbx_archive::ReadError;

/// Why a zip, or a folder in the place of one, cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZipError {
    /// It is a folder, a device or a pipe.
    #[error("`{path}` is not a file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// It is a device or a pipe.
    #[error("`{path}` is neither a zip nor a folder")]
    NoArtifact {
        /// The path.
        path: PathBuf,
    },
    /// A name in a folder is no text.
    #[error("the name of {path:?} is not UTF-8, which names in zips are")]
    Name {
        /// The path.
        path: PathBuf,
    },
    /// A folder has more in it than any artifact.
    #[error("`{path}` has more in it than lbx takes from a zip")]
    TooLarge {
        /// The folder.
        path: PathBuf,
    },
    /// It has more symbolic links than any artifact needs.
    #[error("`{path}` has more than {limit} symbolic links")]
    TooManyLinks {
        /// The zip or the folder.
        path: PathBuf,
        /// How many there may be.
        limit: usize,
    },
    /// It is no zip, or one that unzippers may read in different ways, or one that is too large.
    #[error("cannot read the zip `{path}`")]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ReadError,
    },
    /// The system does not give its bytes, or there are fewer of them than before.
    #[error("cannot read `{path}`")]
    Bytes {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The content of a file in it is not what its header says.
    #[error("cannot read {member:?} of `{path}`")]
    Member {
        /// The zip.
        path: PathBuf,
        /// The path in it.
        member: String,
        /// What is wrong.
        source: io::Error,
    },
}

impl ZipError {
    /// What the user can do, where there is something to say.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::NotAFile { .. } => Some("two zips are compared: name files".to_owned()),
            Self::Archive { source: ReadError::Io(_) | ReadError::NoEnd, .. }
            | Self::Bytes { .. }
            | Self::NoArtifact { .. }
            | Self::TooManyLinks { .. }
            | Self::Name { .. } => None,
            Self::Archive { source: ReadError::NameEncoding { .. }, .. } => Some(
                "names that are not ASCII need the flag that says that they are UTF-8: `zip -UN=UTF8` writes it"
                    .to_owned(),
            ),
            Self::Archive { .. } => {
                Some("lbx reads only zips that all unzippers read alike: make it anew".to_owned())
            }
            Self::Member { source, .. } if source.kind() != io::ErrorKind::InvalidData => None,
            Self::Member { .. } => Some("the zip is damaged: make it anew".to_owned()),
            Self::TooLarge { .. } => {
                Some("name the folder that is the function or the layer itself".to_owned())
            }
        }
    }
}
