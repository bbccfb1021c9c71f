//! Where each member goes, exactly as `pip install --target` puts it. Pure: names in, paths out.
//!
//! pip installs into a temporary home first: `purelib` and `platlib` to `lib/python`, `scripts` to `bin`, `headers`
//! to `include/python/NAME`, `data` to the home itself. Then it moves the entries of `lib/python`, and after them
//! those of the home, into the target, and does not merge: an entry whose name is taken stays behind. The same code
//! is in every pip from 20.3 to 25.3 (`pip/_internal/commands/install.py`, `_handle_target_dir`).

use std::collections::HashSet;

use lbx_archive::NameSet;

use crate::{EntryPoint, WheelError, WheelFilename};

/// What an installed file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Importable code and what lies beside it.
    Module,
    /// Part of the `.dist-info` directory.
    Metadata,
    /// From the `data` scheme.
    Data,
    /// From the `headers` scheme.
    Header,
    /// From the `scripts` scheme, in `bin/`.
    Script {
        /// The first line starts with `#!python`. pip replaces that line by one with its own interpreter's path, so
        /// the content is not what gets installed.
        shebang: bool,
    },
}

/// Why pip does not install a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeftOutReason {
    /// A script of the same name as an entry point: pip writes its own.
    EntryPointScript,
    /// Data under `lib/`: with `--target`, pip takes the whole directory for the home's library directory, which
    /// it has moved already.
    TargetLib,
    /// Data, a script or a header whose first component is also that of a module: pip does not merge.
    Shadowed,
}

/// A member that pip does not install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The member's name in the wheel.
    pub member: String,
    /// Why.
    pub reason: LeftOutReason,
}

/// Where one member goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    At { path: String, kind: Kind },
    Nowhere(LeftOutReason),
}

const SCHEMES: &str = "data, headers, platlib, purelib, scripts";
/// Where a home keeps its modules.
const HOME_LIB: &str = "lib/python";

/// A member in the temporary home.
enum InHome {
    /// In `lib/python`.
    Lib(String),
    /// Anywhere else.
    Outside(String, Kind),
    Nowhere(LeftOutReason),
}

/// Places every member; `members` are the names of files, in the order of the result.
pub(crate) fn place(
    members: &[&str],
    filename: &WheelFilename,
    dist_info: &str,
    scripts: &[&EntryPoint],
) -> Result<Vec<Place>, WheelError> {
    let in_home: Vec<InHome> =
        members.iter().map(|member| in_home(member, filename, scripts)).collect::<Result<_, _>>()?;
    let taken: HashSet<&str> = in_home
        .iter()
        .filter_map(|place| match place {
            InHome::Lib(path) => Some(first(path)),
            _ => None,
        })
        .collect();
    let moved = in_home.iter().map(|place| move_to_target(place, dist_info, &taken)).collect::<Vec<_>>();
    check_collisions(members, &moved)?;
    Ok(moved)
}

fn first(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

/// The first half: pip's `_install_wheel` with a home scheme.
fn in_home(member: &str, filename: &WheelFilename, scripts: &[&EntryPoint]) -> Result<InHome, WheelError> {
    let (root, rest) = member.split_once('/').unwrap_or((member, ""));
    if root.strip_suffix(".data").is_none() {
        return Ok(InHome::Lib(member.to_owned()));
    }
    let Some((scheme, path)) = rest.split_once('/') else { return Err(unknown_scheme(member)) };
    let (path, kind) = match scheme {
        "purelib" | "platlib" => return Ok(InHome::Lib(path.to_owned())),
        "data" => match path.strip_prefix(HOME_LIB).and_then(|path| path.strip_prefix('/')) {
            Some(path) => return Ok(InHome::Lib(path.to_owned())),
            None => (path.to_owned(), Kind::Data),
        },
        "headers" => {
            // pip up to 24 takes the name from the file name like this; later ones normalise it as well.
            let name = filename.name.replace('_', "-");
            (format!("include/python/{name}/{path}"), Kind::Header)
        }
        "scripts" if is_entry_point(path, scripts) => {
            return Ok(InHome::Nowhere(LeftOutReason::EntryPointScript));
        }
        // Whether it has such a first line is seen when it is read.
        "scripts" => (format!("bin/{path}"), Kind::Script { shebang: false }),
        _ => return Err(unknown_scheme(member)),
    };
    Ok(InHome::Outside(path, kind))
}

fn unknown_scheme(member: &str) -> WheelError {
    WheelError::Scheme { member: member.to_owned(), known: SCHEMES }
}

/// Whether pip takes a script for one that setuptools generated: EP, EP.exe, EP-script.py or EP.pya.
fn is_entry_point(path: &str, scripts: &[&EntryPoint]) -> bool {
    let base = path.rsplit('/').next().unwrap_or(path);
    let lower = base.to_ascii_lowercase();
    let suffix = [".exe", "-script.py", ".pya"].into_iter().find(|suffix| lower.ends_with(suffix));
    let name = &base[..base.len() - suffix.map_or(0, str::len)];
    scripts.iter().any(|script| script.name == name)
}

/// The second half: pip's `_handle_target_dir`.
fn move_to_target(place: &InHome, dist_info: &str, taken: &HashSet<&str>) -> Place {
    let reason = match place {
        InHome::Lib(path) => {
            let kind = if first(path) == dist_info { Kind::Metadata } else { Kind::Module };
            return Place::At { path: path.clone(), kind };
        }
        // pip compares with `startswith`, so names that begin like `lib/python` go the same way.
        InHome::Outside(path, _) if HOME_LIB.starts_with(first(path)) && !taken.is_empty() => {
            LeftOutReason::TargetLib
        }
        InHome::Outside(path, _) if taken.contains(first(path)) => LeftOutReason::Shadowed,
        InHome::Outside(path, kind) => return Place::At { path: path.clone(), kind: *kind },
        InHome::Nowhere(reason) => *reason,
    };
    Place::Nowhere(reason)
}

fn check_collisions(members: &[&str], places: &[Place]) -> Result<(), WheelError> {
    let mut paths = NameSet::with_capacity(places.len());
    for (member, place) in members.iter().zip(places) {
        let Place::At { path, .. } = place else { continue };
        paths.insert(path).map_err(|reason| WheelError::Collision {
            member: (*member).to_owned(),
            path: path.clone(),
            reason,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place_all(members: &[&str]) -> Result<Vec<Place>, WheelError> {
        let filename = "foo_bar-1.0-py3-none-any.whl".parse().unwrap();
        let script = EntryPoint { name: "tool".into(), target: "m:f".into() };
        place(members, &filename, "foo_bar-1.0.dist-info", &[&script])
    }

    fn place_one(member: &str) -> Place {
        place_all(&["m.py", member]).unwrap().pop().unwrap()
    }

    fn at(path: &str, kind: Kind) -> Place {
        Place::At { path: path.into(), kind }
    }

    #[test]
    fn every_scheme_has_its_place() {
        let script = Kind::Script { shebang: false };
        let cases = [
            ("pkg/a.py", at("pkg/a.py", Kind::Module)),
            ("pkg/a.data", at("pkg/a.data", Kind::Module)),
            ("pkg/a.data/data/x", at("pkg/a.data/data/x", Kind::Module)),
            ("foo_bar-1.0.dist-info/METADATA", at("foo_bar-1.0.dist-info/METADATA", Kind::Metadata)),
            ("foo_bar-1.0.data/purelib/p/a.py", at("p/a.py", Kind::Module)),
            ("foo_bar-1.0.data/platlib/p/a.so", at("p/a.so", Kind::Module)),
            ("foo_bar-1.0.data/data/share/x", at("share/x", Kind::Data)),
            ("foo_bar-1.0.data/data/lib/python/p/x", at("p/x", Kind::Module)),
            ("foo_bar-1.0.data/headers/x.h", at("include/python/foo-bar/x.h", Kind::Header)),
            ("foo_bar-1.0.data/scripts/run", at("bin/run", script)),
            ("foo_bar-1.0.data/scripts/d/run", at("bin/d/run", script)),
            ("foo_bar-1.0.data/scripts/tool", Place::Nowhere(LeftOutReason::EntryPointScript)),
            ("foo_bar-1.0.data/scripts/tool-script.py", Place::Nowhere(LeftOutReason::EntryPointScript)),
            ("foo_bar-1.0.data/scripts/tool.EXE", Place::Nowhere(LeftOutReason::EntryPointScript)),
            ("foo_bar-1.0.data/data/lib/x.so", Place::Nowhere(LeftOutReason::TargetLib)),
            ("foo_bar-1.0.data/data/li", Place::Nowhere(LeftOutReason::TargetLib)),
            ("foo_bar-1.0.data/data/lib64/x", at("lib64/x", Kind::Data)),
        ];
        for (member, expected) in cases {
            assert_eq!(place_one(member), expected, "{member}");
        }
    }

    #[test]
    fn modules_shadow_data_of_the_same_first_component() {
        let places = place_all(&["foo_bar-1.0.data/data/share/x", "share/y.py"]).unwrap();
        assert_eq!(places[0], Place::Nowhere(LeftOutReason::Shadowed));
        assert_eq!(places[1], at("share/y.py", Kind::Module));
    }

    #[test]
    fn an_unknown_scheme_is_an_error() {
        for member in ["a.data/x", "a.data/other/x", "a.data", "foo_bar-1.0.data/include/x"] {
            assert!(matches!(place_all(&[member]), Err(WheelError::Scheme { .. })), "{member}");
        }
    }

    #[test]
    fn two_members_for_one_path_are_an_error() {
        for member in [
            "foo_bar-1.0.data/purelib/a.py",
            "foo_bar-1.0.data/data/lib/python/a.py",
            "foo_bar-1.0.data/platlib/a.py/b",
        ] {
            assert!(matches!(place_all(&["a.py", member]), Err(WheelError::Collision { .. })), "{member}");
        }
        let both = ["foo_bar-1.0.data/data/bin/x", "foo_bar-1.0.data/scripts/x"];
        assert!(matches!(place_all(&both), Err(WheelError::Collision { .. })));
    }
}
