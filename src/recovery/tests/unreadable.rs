//! A disk that does not give some bytes back while a store is opened.

use std::{collections::BTreeSet, io, path::PathBuf, sync::Arc};

use super::Written;
use crate::{
    clock::SystemClock,
    error::Error,
    store::Store,
    vfs::faulty::{Call, FaultyVfs},
};

/// Whatever file it is of which bytes cannot be read: an error names it, and once they can be everything is there.
#[test]
fn what_cannot_be_read_is_an_error_and_costs_nothing() {
    for aborted in [true, false] {
        let mut named = BTreeSet::new();
        for good in 0.. {
            let written = Written::new(60);
            if aborted {
                std::fs::write(written.path("abort"), "4711").unwrap();
            } else {
                // Everything is read where nothing proves that nobody has touched it.
                std::fs::remove_file(written.path("cleanStop")).unwrap();
            }
            let vfs = FaultyVfs::default();
            vfs.faults.fail(Call::Probe, good, 1, io::ErrorKind::Other);
            let open =
                || Store::open_with(written.config(), Arc::new(vfs.clone()), Arc::new(SystemClock::new()));
            match open() {
                Ok(store) => {
                    store.close().unwrap();
                    assert!(vfs.faults.made(Call::Probe) <= good, "a failed read was passed over");
                    break;
                }
                Err(Error::Unreadable { path, .. }) => {
                    let below = path.strip_prefix(written.dir.path()).unwrap();
                    named.insert(
                        below.components().next().map(|part| PathBuf::from(part.as_os_str())).unwrap(),
                    );
                }
                Err(other) => panic!("{other}"),
            }
            vfs.faults.heal();
            open().unwrap().close().unwrap();
            written.lost_is([]);
        }
        let dirs = ["commitlog", "consumequeue", "index"].map(PathBuf::from);
        assert!(named.iter().eq(dirs.iter()), "aborted {aborted}: {named:?}");
    }
}

/// Files of zeros that led into a missing log go, and what keeps them is an error.
#[test]
fn a_file_of_zeros_that_cannot_be_removed_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let config = crate::config::Config::new(dir.path());
    let file = dir.path().join("consumequeue/a/0/00000000000000000000");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, [0; 40]).unwrap();
    let vfs = FaultyVfs::default();
    vfs.faults.fail(Call::Remove, 0, 1, io::ErrorKind::PermissionDenied);
    let set_aside = || super::super::without_log::set_aside(&vfs, &config, crate::types::StoreTimestamp(1));
    assert!(matches!(set_aside(), Err(Error::Io { path, .. }) if path == file));
    assert_eq!(set_aside().unwrap(), [] as [PathBuf; 0]);
    assert!(!file.exists());
}
