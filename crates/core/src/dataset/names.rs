//! Keys as files below a folder, and files as keys.
//!
//! A key is any text, and comes from a store: a file of that name may be impossible, or lie outside the folder. So each
//! is judged by itself, and what cannot be a file is said with its reason while the rest goes on. Control characters
//! may be in a Linux file's name, and are kept; whoever prints a name escapes them.
//!
//! A name that is harmless by itself leads outside where one of its folders is a link. [`Names::path_of`] asks the kernel to find the
//! folder and never to leave the root (`openat2` with `RESOLVE_BENEATH`, Linux 5.6), so that links that stay inside are fine. Where it cannot,
//! no folder on the way may be a link. What it found holds at that moment: somebody who may write in the target
//! folder can put a link there between the check and the writing. That is what no one else should be able to do in a folder
//! that is written to; it is not guarded against.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::fs::{openat, openat2, statx};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// The longest part of a path that the usual Linux file systems take, bytes.
const MAX_PART_BYTES: usize = 255;

/// The longest path that the kernel takes, bytes, the NUL at its end left out.
const MAX_PATH_BYTES: usize = 4095;

/// The longest key that S3 takes, bytes.
const MAX_KEY_BYTES: usize = 1024;

/// Folders that are remembered to be safe, at most. Names come sorted, so that those of the last name suffice.
const FOLDERS_REMEMBERED: usize = 1024;

/// Why a name cannot be a file below a folder, or a file no object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadName {
    /// It ends in a `/`: some tools make such objects to show a folder. It is not worth more than a note.
    FolderMarker,
    /// It is empty.
    Empty,
    /// It begins with a `/`.
    Absolute,
    /// There is nothing between two slashes.
    EmptyPart,
    /// A part is `.` or `..`.
    Dots,
    /// It holds a NUL.
    Nul,
    /// A part has more than 255 bytes.
    LongPart,
    /// The path would have more than 4095 bytes.
    LongPath,
    /// A folder on the way is a link that leads out of the target folder.
    Outside {
        /// The name up to that folder.
        folder: String,
    },
    /// What should be a folder on the way is a file.
    NotAFolder {
        /// Its name.
        file: String,
    },
    /// What should be the file is a folder.
    IsAFolder,
    /// A file's path is not UTF-8, and no key can be.
    NotUtf8,
    /// A key would have more than 1024 bytes.
    LongKey,
}

impl std::fmt::Display for BadName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::FolderMarker => f.write_str("it ends in a slash and only marks a folder"),
            Self::Empty => f.write_str("it is empty"),
            Self::Absolute => f.write_str("it begins with a slash"),
            Self::EmptyPart => f.write_str("there is nothing between two slashes"),
            Self::Dots => f.write_str("a part of it is . or .."),
            Self::Nul => f.write_str("it holds a NUL character"),
            Self::LongPart => f.write_str("a part of it has more than 255 bytes"),
            Self::LongPath => f.write_str("its path would have more than 4095 bytes"),
            Self::Outside { folder } => {
                write!(f, "{folder} is a link that leads out of the target folder")
            }
            Self::NotAFolder { file } => write!(f, "{file} is a file and no folder"),
            Self::IsAFolder => f.write_str("there is a folder of that name"),
            Self::NotUtf8 => f.write_str("it is not UTF-8, and keys are"),
            Self::LongKey => f.write_str("its key would have more than 1024 bytes"),
        }
    }
}

impl BadName {
    /// Whether nothing is lost by leaving it out, so that it is no failure.
    pub fn is_only_a_note(&self) -> bool {
        *self == Self::FolderMarker
    }
}

/// Judges `name` by itself: whether a file can be called so below some folder.
///
/// # Errors
///
/// The first reason why not.
pub fn check_name(name: &str) -> Result<(), BadName> {
    if name.is_empty() {
        return Err(BadName::Empty);
    }
    if name.starts_with('/') {
        return Err(BadName::Absolute);
    }
    if name.contains('\0') {
        return Err(BadName::Nul);
    }
    let (parts, is_marker) = match name.strip_suffix('/') {
        Some(parts) => (parts, true),
        None => (name, false),
    };
    for part in parts.split('/') {
        match part {
            "" => return Err(BadName::EmptyPart),
            "." | ".." => return Err(BadName::Dots),
            part if part.len() > MAX_PART_BYTES => return Err(BadName::LongPart),
            _ => {}
        }
    }
    if is_marker { Err(BadName::FolderMarker) } else { Ok(()) }
}

/// The key of the file at `path`, which is relative, under `prefix`.
///
/// ```
/// use brigade::dataset::{BadName, key_of};
///
/// assert_eq!(key_of("backup/", "2026/a.gz".as_ref()), Ok("backup/2026/a.gz".to_owned()));
/// assert_eq!(key_of(&"x".repeat(1024), "a".as_ref()), Err(BadName::LongKey));
/// ```
///
/// # Errors
///
/// [`BadName::NotUtf8`], [`BadName::LongKey`], and [`BadName::Empty`] for an empty key.
pub fn key_of(prefix: &str, path: &Path) -> Result<String, BadName> {
    let path = path.to_str().ok_or(BadName::NotUtf8)?;
    match prefix.len() + path.len() {
        0 => Err(BadName::Empty),
        length if length > MAX_KEY_BYTES => Err(BadName::LongKey),
        _ => Ok(format!("{prefix}{path}")),
    }
}

/// A folder that files of given names are to be put in.
///
/// ```
/// use brigade::dataset::{BadName, Names};
///
/// let folder = tempfile::tempdir()?;
/// let mut names = Names::new(folder.path())?;
/// assert_eq!(names.path_of("a/b.txt")?, Ok(folder.path().join("a/b.txt")));
/// assert_eq!(names.path_of("../b.txt")?, Err(BadName::Dots));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Names {
    root: PathBuf,
    open: File,
    /// Folders, without a `/` at the end, that were found to be inside the root, or not there.
    safe: HashSet<String>,
    /// Unset once the kernel said that it cannot.
    resolves_beneath: bool,
}

impl Names {
    /// For the folder `root`, which has to exist and may be a link itself.
    ///
    /// # Errors
    ///
    /// Where it cannot be opened.
    pub fn new(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = openat(CWD, &root, flags, Mode::empty())
            .map_err(|errno| Error::io("write to the folder", &root, errno.into()))?;
        Ok(Self { root, open: open.into(), safe: HashSet::new(), resolves_beneath: true })
    }

    /// The path for `name`, when a file may be written there. Its folders need not exist yet; what is there already is looked at,
    /// folder by folder, once for names that follow one another.
    ///
    /// # Errors
    ///
    /// The outer one is of the file system: a folder could not be looked at. The inner one says why the name is no good.
    pub fn path_of(&mut self, name: &str) -> Result<Result<PathBuf, BadName>> {
        Ok(match self.check(name)? {
            Ok(()) => Ok(self.root.join(name)),
            Err(bad) => Err(bad),
        })
    }

    fn check(&mut self, name: &str) -> Result<Result<(), BadName>> {
        if let Err(bad) = check_name(name) {
            return Ok(Err(bad));
        }
        if self.root.as_os_str().as_bytes().len() + 1 + name.len() > MAX_PATH_BYTES {
            return Ok(Err(BadName::LongPath));
        }
        if let Some((folder, _)) = name.rsplit_once('/')
            && let Err(bad) = self.check_folder(folder)?
        {
            return Ok(Err(bad));
        }
        // What the last part is, a link not followed: that one is replaced, not written through.
        match statx(&self.open, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
            Ok(there) if FileType::from_raw_mode(there.stx_mode.into()) == FileType::Directory => {
                Ok(Err(BadName::IsAFolder))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(Ok(())),
            Err(errno) => Err(self.failed(name, errno)),
        }
    }

    /// Whether `folder`, as far as it is there, is inside the root.
    fn check_folder(&mut self, folder: &str) -> Result<Result<(), BadName>> {
        if self.safe.contains(folder) {
            return Ok(Ok(()));
        }
        // The outermost first: where that is not there, nothing below it is.
        let ends = folder.match_indices('/').map(|(at, _)| at).chain([folder.len()]);
        for end in ends {
            let outer = &folder[..end];
            if self.safe.contains(outer) {
                continue;
            }
            match self.resolve(outer) {
                Ok(()) => {}
                // Nor is anything below it there. It is remembered as one that is to be made.
                Err(Errno::NOENT) => {
                    let missing = self.missing(outer);
                    if missing.is_ok() {
                        self.remember(folder);
                    }
                    return Ok(missing);
                }
                Err(Errno::XDEV | Errno::LOOP) => {
                    return Ok(Err(BadName::Outside { folder: outer.to_owned() }));
                }
                Err(Errno::NOTDIR) => {
                    return Ok(Err(BadName::NotAFolder { file: outer.to_owned() }));
                }
                Err(errno) => return Err(self.failed(outer, errno)),
            }
            self.remember(outer);
        }
        Ok(Ok(()))
    }

    fn remember(&mut self, folder: &str) {
        if self.safe.len() >= FOLDERS_REMEMBERED {
            self.safe.clear();
        }
        self.safe.insert(folder.to_owned());
    }

    /// A folder that is not there is fine, unless it is a link to nothing, which could point to anywhere.
    fn missing(&self, folder: &str) -> Result<(), BadName> {
        match statx(&self.open, folder, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
            Ok(_) => Err(BadName::Outside { folder: folder.to_owned() }),
            Err(_) => Ok(()),
        }
    }

    /// Opens `folder` without leaving the root.
    fn resolve(&mut self, folder: &str) -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if self.resolves_beneath {
            // It asks to try again where something was renamed meanwhile.
            for _ in 0..16 {
                let beneath = ResolveFlags::BENEATH;
                match openat2(&self.open, folder, flags, Mode::empty(), beneath) {
                    Err(Errno::AGAIN) => {}
                    Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => {
                        self.resolves_beneath = false;
                        return self.resolve(folder);
                    }
                    opened => return opened.map(drop),
                }
            }
            return Err(Errno::AGAIN);
        }
        // Its outer folders were looked at before. A link is told from a file by its own error.
        let flags = flags | OFlags::NOFOLLOW;
        match openat(&self.open, folder, flags, Mode::empty()) {
            Err(Errno::NOTDIR) => {
                let there = statx(&self.open, folder, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)?;
                let kind = FileType::from_raw_mode(there.stx_mode.into());
                Err(if kind == FileType::Symlink { Errno::LOOP } else { Errno::NOTDIR })
            }
            opened => opened.map(drop),
        }
    }

    fn failed(&self, name: &str, errno: Errno) -> Error {
        Error::io("look at", &self.root.join(name), errno.into())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_be_a_file_is_refused_with_its_reason() {
        for (name, expected) in [
            ("a", Ok(())),
            ("a/b\n\u{1b}[2J/…", Ok(())),
            ("...", Ok(())),
            ("a\\..\\b", Ok(())),
            ("", Err(BadName::Empty)),
            ("/", Err(BadName::Absolute)),
            ("/a", Err(BadName::Absolute)),
            ("a//b", Err(BadName::EmptyPart)),
            ("a//", Err(BadName::EmptyPart)),
            ("a/", Err(BadName::FolderMarker)),
            ("../", Err(BadName::Dots)),
            ("..", Err(BadName::Dots)),
            ("a/../b", Err(BadName::Dots)),
            ("a/./b", Err(BadName::Dots)),
            ("a\0b", Err(BadName::Nul)),
        ] {
            assert_eq!(check_name(name), expected, "{name:?}");
        }
        assert_eq!(check_name(&"é".repeat(127)), Ok(()));
        assert_eq!(check_name(&"é".repeat(128)), Err(BadName::LongPart));
        assert!(BadName::FolderMarker.is_only_a_note() && !BadName::Dots.is_only_a_note());
    }

    fn names_of(root: &Path, resolves_beneath: bool) -> Names {
        Names { resolves_beneath, ..Names::new(root).expect("there") }
    }

    #[test]
    fn nothing_leads_outside_through_a_link() {
        let outside = tempfile::tempdir().expect("a folder");
        let root = tempfile::tempdir().expect("a folder");
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("real/inner")).expect("writable");
        fs::write(at("file"), "x").expect("writable");
        symlink(outside.path(), at("out")).expect("writable");
        symlink("../..", at("real/up")).expect("writable");
        symlink("gone", at("dangling")).expect("writable");
        symlink("real", at("inside")).expect("writable");
        symlink(outside.path().join("target"), at("link")).expect("writable");
        let led_by = |folder: &str| Err(BadName::Outside { folder: folder.into() });
        for resolves_beneath in [true, false] {
            let mut names = names_of(root.path(), resolves_beneath);
            for (name, expected) in [
                ("real/inner/x", Ok(())),
                ("new/folder/x", Ok(())),
                ("real/new/x", Ok(())),
                ("out/x", led_by("out")),
                ("out/deep/x", led_by("out")),
                ("real/up/x", led_by("real/up")),
                ("dangling/x", led_by("dangling")),
                ("inside/x", if resolves_beneath { Ok(()) } else { led_by("inside") }),
                ("file/x", Err(BadName::NotAFolder { file: "file".into() })),
                ("file/x/y", Err(BadName::NotAFolder { file: "file".into() })),
                ("file", Ok(())),
                // It is replaced, not followed.
                ("link", Ok(())),
                ("real", Err(BadName::IsAFolder)),
            ] {
                let found = names.path_of(name).expect("readable");
                assert_eq!(found, expected.map(|()| at(name)), "{name} {resolves_beneath}");
            }
        }
        let long = format!("{}x", "x/".repeat(2047));
        let found = names_of(root.path(), true).path_of(&long).expect("readable");
        assert_eq!(found, Err(BadName::LongPath));
    }

    #[test]
    fn a_root_that_is_not_there_is_named() {
        let error = Names::new("/nonexistent").expect_err("not there").to_string();
        assert!(error.starts_with("write to the folder /nonexistent: no such file"), "{error}");
    }

    #[test]
    fn a_path_becomes_a_key_when_it_is_utf8_and_short() {
        let latin = Path::new(std::ffi::OsStr::from_bytes(b"a\xff"));
        assert_eq!(key_of("p/", latin), Err(BadName::NotUtf8));
        assert_eq!(key_of("", Path::new("")), Err(BadName::Empty));
        assert_eq!(key_of("p", Path::new("é/a")), Ok("pé/a".to_owned()));
        let (fits, long) = ("x".repeat(1022), "x".repeat(1023));
        assert_eq!(key_of("p/", Path::new(&fits)).map(|key| key.len()), Ok(1024));
        assert_eq!(key_of("p/", Path::new(&long)), Err(BadName::LongKey));
    }

    proptest! {
        #[test]
        fn a_name_that_passes_stays_below_and_comes_back(name in "[a.é/\\\\\0\n]{0,8}") {
            if check_name(&name).is_ok() {
                let parts: Vec<_> = Path::new(&name).components().collect();
                prop_assert!(parts.iter().all(|part| matches!(part, std::path::Component::Normal(_))));
                prop_assert_eq!(parts.len(), name.split('/').count());
                prop_assert_eq!(key_of("", Path::new(&name)), Ok(name));
            }
        }
    }
}
