//! Whether a file's bytes can be read, found out before a mapping of it is: a sector that the disk does not give back
//! is an error here, and a signal there.
#![allow(unsafe_code)]

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, ptr::NonNull};

/// What a mapping has or lacks as a whole.
const PAGE: usize = 4096;
/// Bytes asked for at once where the system does not look for itself.
const PIECE: usize = 64 << 10;

/// The first byte of `range` that cannot be read, and why. The pages of `range` are in memory otherwise. `base` is where
/// `file` is mapped, for at least `range.end` bytes.
pub(super) fn first_unreadable(
    base: NonNull<u8>,
    file: &File,
    range: Range<usize>,
) -> Option<(usize, io::Error)> {
    if range.is_empty() {
        return None;
    }
    let start = range.start / PAGE * PAGE;
    // SAFETY: the pages lie in the mapping that the caller vouches for; the call brings them to memory and changes
    // nothing.
    let done = unsafe {
        libc::madvise(base.as_ptr().add(start).cast(), range.end - start, libc::MADV_POPULATE_READ)
    };
    // Kernels before 5.14 do not know the call, and it does not say which page failed.
    if done == 0 { None } else { by_reading(file, start..range.end, PIECE) }
}

fn by_reading(file: &File, range: Range<usize>, piece: usize) -> Option<(usize, io::Error)> {
    let mut bytes = vec![0; piece.min(range.len())];
    let mut at = range.start;
    while at < range.end {
        let want = piece.min(range.end - at);
        match file.read_at(&mut bytes[..want], at as u64) {
            Ok(0) => return Some((at, io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => at += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if piece == PAGE => return Some((at, error)),
            Err(_) => {
                // One page of it at least; what comes before can be read.
                let found = by_reading(file, at..at + want, PAGE);
                if found.is_some() {
                    return found;
                }
                at += want;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_lost_is_found_by_its_first_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![7; 40 * PAGE]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let map = memmap2::MmapOptions::new().len(40 * PAGE).map_raw(&file).unwrap();
        let base = NonNull::new(map.as_mut_ptr()).unwrap();
        assert!(first_unreadable(base, &file, 5..40 * PAGE).is_none());
        assert!(first_unreadable(base, &file, 9..9).is_none());
        file.set_len(10 * PAGE as u64).unwrap();
        assert!(first_unreadable(base, &file, 0..10 * PAGE).is_none());
        for range in [0..40 * PAGE, 10 * PAGE - 1..10 * PAGE + 1, 10 * PAGE..11 * PAGE] {
            let (at, error) = first_unreadable(base, &file, range).unwrap();
            assert_eq!((at, error.kind()), (10 * PAGE, io::ErrorKind::UnexpectedEof));
        }
    }
}
