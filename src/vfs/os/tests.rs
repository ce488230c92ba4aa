//! The real file system in a temporary directory.

use std::{os::unix::process::ExitStatusExt, process::Command};

use super::*;

#[test]
fn a_new_file_has_all_its_blocks_before_it_is_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let made = OsVfs.create(&path, 1 << 20, Reserve::All).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((made.len(), meta.len()), (1 << 20, 1 << 20));
    assert!(meta.blocks() * 512 >= 1 << 20, "{} blocks", meta.blocks());
    assert_eq!(OsVfs.create(&path, 1, Reserve::All).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 20, "a failed creation left the old file alone");

    let sparse = dir.path().join("queue");
    let made = OsVfs.create(&sparse, 1 << 20, Reserve::None).unwrap();
    assert!(fs::metadata(&sparse).unwrap().blocks() * 512 < 1 << 20);
    made.reserve(4096..8192).unwrap();
    assert!(fs::metadata(&sparse).unwrap().blocks() * 512 >= 4096);
}

#[test]
fn where_space_can_only_be_claimed_by_writing_a_file_keeps_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let made = OsVfs.create(&dir.path().join("f"), 3 << 20, Reserve::None).unwrap();
    made.write(5, b"one").unwrap();
    made.write((1 << 20) + 7, b"two").unwrap();
    let path = dir.path().join("f");
    let before = fs::read(&path).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    claim_by_writing(&file, 0, 3 << 20).unwrap();
    assert!(fs::read(&path).unwrap() == before, "no byte changed");
    assert!(fs::metadata(&path).unwrap().blocks() * 512 >= 3 << 20);
}

#[test]
fn what_was_reserved_and_never_written_needs_no_reading() {
    let dir = tempfile::tempdir().unwrap();
    let made = OsVfs.create(&dir.path().join("f"), 4 << 20, Reserve::All).unwrap();
    made.write((1 << 20) + 5, b"one").unwrap();
    made.write((2 << 20) + 5, b"two").unwrap();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(range) = made.data_from(at) {
        assert!(range.start >= at && range.end > range.start && range.end <= 4 << 20);
        at = range.end;
        found.push(range);
    }
    for place in [(1 << 20) + 5, (2 << 20) + 7] {
        assert!(found.iter().any(|range| range.contains(&place)), "{place} is in none of {found:?}");
    }
    assert_eq!(made.data_from(4 << 20), None);
}

#[test]
fn a_creation_that_cannot_get_its_space_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    // Larger than any file system here: what the system says differs, that nothing is left does not.
    assert!(OsVfs.create(&path, 1 << 60, Reserve::All).is_err());
    assert!(!path.exists());
}

#[test]
fn writes_through_the_file_and_the_mapping_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let made = OsVfs.create(&path, 10_000, Reserve::All).unwrap();
    made.write(4090, b"across pages").unwrap();
    // SAFETY: inside the mapping, which lives as long as `made`; nothing writes meanwhile.
    let seen = unsafe { std::slice::from_raw_parts(made.base().as_ptr().add(4090), 12) };
    assert_eq!(seen, b"across pages");
    made.populate(0..10_000);
    made.populate(5_000..5_001);
    made.start_writeback(0..10_000);
    made.advise(Advice::Sequential);
    made.sync(0..10_000).unwrap();
    assert_eq!(fs::read(&path).unwrap()[4090..4102], *b"across pages");
    assert!(made.write(9_990, b"across the end").is_err());
    assert!(made.sync(0..10_001).is_err());
    assert_eq!(fs::metadata(&path).unwrap().len(), 10_000);
}

#[test]
fn a_second_store_of_this_process_and_of_another_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let first = OsVfs.lock(&path).unwrap().expect("nobody holds it");
    // Not read here: closing any descriptor of the file in this process would give the lock up.
    assert_eq!(fs::metadata(&path).unwrap().len(), 4);
    assert!(OsVfs.lock(&path).unwrap().is_none());
    // Another process asks with `fcntl`, as Java does; the refused attempt above must not have given the lock up.
    assert!(!other_process_can_lock(&path));
    drop(first);
    assert_eq!(fs::read(&path).unwrap(), b"lock");
    assert!(other_process_can_lock(&path));
    let again = OsVfs.lock(&path).unwrap();
    assert!(again.is_some());
}

/// Forks, for a lock is asked about from another process only; the child calls nothing but `fcntl` and `_exit`.
fn other_process_can_lock(path: &Path) -> bool {
    let name = c_path(path).unwrap();
    // SAFETY: between fork and _exit the child makes three async-signal-safe calls on its own memory.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above; `name` was copied with the process.
        unsafe {
            let fd = libc::open(name.as_ptr(), libc::O_RDWR);
            let range = libc::flock { l_type: 1, l_whence: 0, l_start: 0, l_len: 1, l_pid: 0 };
            let done = libc::fcntl(fd, libc::F_SETLK, &raw const range);
            libc::_exit(i32::from(done != 0));
        }
    }
    let mut status = 0;
    // SAFETY: waits for the child made above; `status` lives across the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    std::process::ExitStatus::from_raw(status).success()
}

#[test]
fn a_replaced_file_is_old_or_new_and_leaves_no_temporary() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    assert_eq!(OsVfs.read(&path, 10).unwrap(), None);
    OsVfs.replace(&path, b"one").unwrap();
    OsVfs.replace(&path, b"two").unwrap();
    assert_eq!(OsVfs.read(&path, 3).unwrap().unwrap(), b"two");
    assert_eq!(OsVfs.read(&path, 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    assert!(OsVfs.replace(dir.path(), b"a directory").is_err());
    let names: Vec<_> = OsVfs.list(dir.path()).unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["checkpoint"]);
    OsVfs.remove(&path).unwrap();
    OsVfs.remove(&path).unwrap();
    assert_eq!(OsVfs.stat(&path).unwrap(), None);
}

#[test]
fn directories_are_made_with_their_parents_and_absent_ones_are_empty() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b/c");
    assert!(OsVfs.list(&deep).unwrap().is_empty());
    OsVfs.create_dir_all(&deep).unwrap();
    OsVfs.create_dir_all(&deep).unwrap();
    fs::write(deep.join("z"), b"1").unwrap();
    fs::create_dir(deep.join("d")).unwrap();
    let found: Vec<_> = OsVfs.list(&deep).unwrap().into_iter().map(|e| (e.name, e.is_dir, e.len)).collect();
    assert_eq!((found.len(), found[0].0.as_str(), found[0].1), (2, "d", true));
    assert_eq!(found[1], ("z".to_owned(), false, 1));
    assert!(OsVfs.create_dir_all(&deep.join("z")).is_err(), "a file is not a directory");
    OsVfs.sync_all(&deep).unwrap();
}

#[test]
fn disk_use_is_that_of_df() {
    let dir = tempfile::tempdir().unwrap();
    let usage = OsVfs.usage(dir.path()).unwrap();
    assert!(usage.total > 0 && usage.free <= usage.total);
    let df = Command::new("df").args(["-B1", "--output=used,avail"]).arg(dir.path()).output();
    let Ok(df) = df else { return };
    let text = String::from_utf8(df.stdout).unwrap();
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    if let [used, free] = numbers[..] {
        let ratio = used / (used + free);
        assert!((ratio - usage.used_ratio()).abs() < 0.02, "df says {ratio}, we say {}", usage.used_ratio());
    }
}

#[test]
fn a_mapped_file_takes_bytes_at_its_ends_and_refuses_those_beyond() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mapped");
    let mut file = MappedFile::create(&path, 8192, Reserve::All).unwrap();
    file.populate(0..8192);
    file.store(0, b"first");
    file.store(8188, b"last");
    file.store(8192, b"");
    file.sync(0..8192).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!((&bytes[..5], &bytes[8188..]), (&b"first"[..], &b"last"[..]));
    for (at, len) in [(8189, 4), (8193, 0), (usize::MAX, 1), (0, 8193)] {
        let mut file = std::panic::AssertUnwindSafe(&mut file);
        let refused = std::panic::catch_unwind(move || file.store(at, &vec![b'x'; len]));
        assert!(refused.is_err(), "{len} bytes at {at}");
    }
    assert!(MappedFile::create(&path, 8192, Reserve::All).is_err(), "it exists");
}

#[test]
fn a_file_that_is_dropped_from_the_cache_keeps_what_was_stored_through_its_mapping() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cached");
    let mut file = MappedFile::create(&path, 1 << 20, Reserve::All).unwrap();
    for at in (0..1 << 20).step_by(4096) {
        file.store(at, &u32::try_from(at).unwrap().to_be_bytes());
    }
    forget_cached(&path).unwrap();
    file.store(4, b"x");
    let bytes = fs::read(&path).unwrap();
    assert!(
        (0..1 << 20).step_by(4096).all(|at| bytes[at..at + 4] == u32::try_from(at).unwrap().to_be_bytes())
    );
    assert_eq!(bytes[4], b'x');
    assert!(forget_cached(&dir.path().join("absent")).is_err());
}

#[test]
fn processor_time_grows_with_work() {
    let before = process_cpu_time();
    let mut sum = 0_u64;
    while process_cpu_time() == before {
        sum = std::hint::black_box(sum.wrapping_add(1));
    }
    assert!(process_cpu_time() > before);
}

/// A pipe gives what it has: of three pieces each read gets one.
#[test]
fn a_read_that_falls_short_goes_on_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let writer = std::thread::spawn({
        let path = path.clone();
        move || {
            let mut pipe = OpenOptions::new().write(true).open(path).unwrap();
            for piece in [&b"one "[..], b"two ", b"three"] {
                pipe.write_all(piece).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    assert_eq!(OsVfs.read(&path, 100).unwrap().unwrap(), b"one two three");
    writer.join().unwrap();
}

/// The kernel's own files say 4096 bytes and have a few: what is there is not taken for the whole.
#[test]
fn a_file_that_ends_before_its_length_is_an_error_that_says_where() {
    let path = Path::new("/sys/devices/system/cpu/online");
    let there = fs::read(path).unwrap().len();
    assert!((there as u64) < fs::metadata(path).unwrap().len());
    let error = OsVfs.read(path, 1 << 20).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(error.to_string().contains(&format!("no bytes from {there} on")), "{error}");
}

#[test]
fn what_is_written_again_ends_where_somebody_cut_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let made = OsVfs.create(&path, 4096, Reserve::All).unwrap();
    made.write(0, b"kept").unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
    let error = made.rewrite(0..4096).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(error.to_string().contains("from 100 on, and should have them up to 4096"), "{error}");
    assert_eq!(fs::metadata(&path).unwrap().len(), 100, "nothing is written");
}
