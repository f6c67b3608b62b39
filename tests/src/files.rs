//! Files that are quick to make and to compare, and what a transfer may leave behind.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use brigade_store::synthetic;

/// Bytes made, written and compared at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// A file of `size_bytes` that is the same in every run, and another one for every `seed`. No
/// part of it repeats within a part's usual size, so bytes in the wrong place show.
pub fn make(path: &Path, size_bytes: u64, seed: u64) {
    let mut file = File::create(path).expect("the file can be made");
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    while offset < size_bytes {
        let left = usize::try_from(size_bytes - offset).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        // Seeds start far apart in one endless pattern.
        synthetic::fill(offset + seed * 7_919, &mut chunk[..left]);
        file.write_all(&chunk[..left]).expect("the file can be written");
        offset += left as u64;
    }
}

/// Fails unless both files hold the same bytes.
pub fn assert_same(one: &Path, other: &Path) {
    let open = |path: &Path| {
        File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let (mut left, mut right) = (open(one), open(other));
    let mut offset = 0;
    loop {
        let (a, b) = (chunk_of(&mut left), chunk_of(&mut right));
        if a != b {
            let at = offset + a.iter().zip(&b).take_while(|(a, b)| a == b).count();
            panic!("{} and {} differ from byte {at} on", one.display(), other.display());
        }
        if a.is_empty() {
            return;
        }
        offset += a.len();
    }
}

/// Partial files of transfers anywhere below `folder`.
pub fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().contains(".brigade-") {
            found.push(path.clone());
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(leftovers(&path));
        }
    }
    found
}

fn chunk_of(file: &mut File) -> Vec<u8> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    file.take(CHUNK_BYTES as u64).read_to_end(&mut chunk).expect("the file can be read");
    chunk
}
