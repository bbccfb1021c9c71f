//! Reading strangers' archives strictly: [`Archive::open`] accepts an archive only when its parts agree with
//! each other and account for every byte of the file. Inflating a member is in `member`.

mod end;
mod error;
mod headers;
mod member;

use std::fs::File;
use std::os::unix::fs::FileExt;

pub use error::ReadError;
pub use member::{Member, MemberError, MemberReader};

use crate::name::NameSet;
use end::End;
use headers::Links;

/// What an archive may cost before it is refused.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most members, directories included. 200,000 by default.
    pub members: u64,
    /// Most bytes of the central directory. 64 MiB by default.
    pub directory_size: u64,
    /// Most bytes of one member after inflating. 4 GiB by default.
    pub member_size: u64,
    /// Most bytes of all members after inflating. 8 GiB by default.
    pub total_size: u64,
    /// Most bytes after inflating per byte of archive, counted over the whole archive, once it is above
    /// [`Limits::ratio_from`]. 100 by default; real wheels stay below 20.
    pub ratio: u64,
    /// Below this total, in bytes after inflating, the ratio does not matter. 64 MiB by default.
    pub ratio_from: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            members: 200_000,
            directory_size: 64 << 20,
            member_size: 4 << 30,
            total_size: 8 << 30,
            ratio: 100,
            ratio_from: 64 << 20,
        }
    }
}

/// A list of the members of an archive that was found consistent.
#[derive(Debug, Clone)]
pub struct Archive {
    members: Vec<Member>,
}

impl Archive {
    /// Reads the central directory and every local header of `file`, and checks them against each other and
    /// against `limits`. Content is not inflated: [`Member::open`] does, and checks it.
    ///
    /// Refused are, each with its own [`ReadError`]: duplicate names and files that are also directories; names
    /// that are absolute, leave the root or read differently elsewhere; local headers that differ from the
    /// central directory; bytes before, between or after the members that belong to none; members that
    /// overlap; bytes after the end record; zip64 records and fields that contradict the others, or say again
    /// what these say, but for both sizes in a local header; encryption, other methods than stored and deflate,
    /// several disks, links and special files; and whatever exceeds `limits`.
    pub fn open(file: &File, limits: &Limits) -> Result<Self, ReadError> {
        Self::read(file, limits, Links::Refused)
    }

    /// The same for archives that may have symbolic links, such as those that `zip -y` writes: [`Member::is_link`] tells
    /// them apart. No member is below one, but where one leads is anybody's guess.
    pub fn open_with_links(file: &File, limits: &Limits) -> Result<Self, ReadError> {
        Self::read(file, limits, Links::Taken)
    }

    fn read(file: &File, limits: &Limits, links: Links) -> Result<Self, ReadError> {
        let end = End::read(file)?;
        if end.members > limits.members {
            return Err(ReadError::TooManyMembers { found: end.members, limit: limits.members });
        }
        if end.directory_size > limits.directory_size {
            return Err(ReadError::DirectoryTooLarge {
                found: end.directory_size,
                limit: limits.directory_size,
            });
        }
        let mut directory = vec![0; usize::try_from(end.directory_size).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut directory, end.directory_offset)?;
        let entries = headers::central(&directory, end.members, links)?;
        check_sizes(&entries, &end, limits)?;

        let mut names = NameSet::with_capacity(entries.len());
        for entry in &entries {
            names
                .insert(&entry.member.name)
                .map_err(|reason| ReadError::Name { name: entry.member.name.clone(), reason })?;
        }
        drop(names);
        let members = headers::locals(file, entries, end.directory_offset)?;
        Ok(Self { members })
    }

    /// The members in the order of the central directory.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member with exactly this name.
    pub fn find(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }
}

/// Refuses members and totals beyond the limits, and sizes that deflate cannot produce.
fn check_sizes(entries: &[headers::Central], end: &End, limits: &Limits) -> Result<(), ReadError> {
    let mut total = 0u64;
    for headers::Central { member, .. } in entries {
        if member.packed.size > limits.member_size {
            return Err(ReadError::MemberTooLarge {
                name: member.name.clone(),
                found: member.packed.size,
                limit: limits.member_size,
            });
        }
        total = total.saturating_add(member.packed.size);
    }
    if total > limits.total_size {
        return Err(ReadError::TooLarge { found: total, limit: limits.total_size });
    }
    if total > limits.ratio_from && total / limits.ratio.max(1) > end.file_size {
        return Err(ReadError::Ratio { size: total, archive: end.file_size, limit: limits.ratio });
    }
    Ok(())
}
