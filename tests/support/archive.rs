//! Golden stores for integration tests: archives of `tests/golden` unpacked into temporary directories.
//!
//! [`unpack`] gives one store of an archive, [`unpack_all`] all of them in one pass, [`broker`] the directory of a
//! whole broker with default file sizes. Files are written sparse: blocks of zeros are skipped, so the broker's
//! gigabytes cost a few pages.
#![allow(dead_code, reason = "each user takes its own part of this module")]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Component, Path, PathBuf},
};

use ruzstd::decoding::StreamingDecoder;
use serde_json::Value;
use tempfile::TempDir;

/// The archives with a directory per store.
pub const ARCHIVES: [&str; 5] = ["written", "live", "crash", "crashcp", "clean"];

const BROKER: &str = "broker-default-sizes";

/// A golden store in a temporary directory, which goes when this is dropped.
pub struct Golden {
    /// Its name in the archive.
    pub name: String,
    dir: TempDir,
}

impl Golden {
    /// The store's directory: what to open. It is the test's own and may be written.
    pub fn store_dir(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// A file or directory of the store.
    pub fn path(&self, name: &str) -> PathBuf {
        self.store_dir().join(name)
    }

    /// Keys and values of the configuration that the store was written with.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let manifest = self.manifest();
        let settings = manifest["config"].as_object().expect("a golden store's manifest has a config");
        settings.iter().map(|(key, value)| (key.clone(), text_of(value))).collect()
    }

    /// One setting as a number.
    pub fn setting(&self, key: &str) -> Option<u64> {
        self.settings().get(key).map(|value| value.parse().expect("a number"))
    }

    /// What was written down about the store: `config`, `files`, `about`, `change`.
    pub fn manifest(&self) -> Value {
        let path = self.dir.path().join("MANIFEST.json");
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).expect("a manifest is JSON"),
            Err(_) => serde_json::json!({ "config": {}, "files": [] }),
        }
    }

    /// What the Java store made of it, line by line.
    pub fn expected(&self) -> Vec<Value> {
        self.expected_lines("")
    }

    /// The expected lines of one kind (`t`).
    pub fn expected_of(&self, kind: &str) -> Vec<Value> {
        self.expected_lines(&format!("{{\"t\":\"{kind}\","))
    }

    /// The lines with a beginning, which each has as written by Java; only those are parsed.
    fn expected_lines(&self, beginning: &str) -> Vec<Value> {
        let file =
            File::open(self.dir.path().join("expected.jsonl")).expect("a golden store has expected lines");
        BufReader::new(file)
            .lines()
            .map(|line| line.expect("text"))
            .filter(|line| line.starts_with(beginning))
            .map(|line| serde_json::from_str(&line).expect("an expected line is JSON"))
            .collect()
    }

    /// The names in a directory of the store in order; none when it does not exist.
    pub fn list(&self, name: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(name)) else { return Vec::new() };
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("listable").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// The files below a directory with two levels under it, as `(topic, queue, path)` in order.
    pub fn queue_files(&self, kind: &str) -> Vec<(String, i32, PathBuf)> {
        let mut files = Vec::new();
        for topic in self.list(kind) {
            for queue in self.list(&format!("{kind}/{topic}")) {
                for file in self.list(&format!("{kind}/{topic}/{queue}")) {
                    let path = self.path(&format!("{kind}/{topic}/{queue}/{file}"));
                    files.push((topic.clone(), queue.parse().expect("a queue id"), path));
                }
            }
        }
        files
    }
}

/// The names of the stores in an archive, in its order.
pub fn stores(archive: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    each_entry(archive, |path, _| {
        if let (Some(store), _) = split(path)
            && names.last() != Some(&store)
        {
            names.push(store);
        }
        Ok(true)
    });
    names
}

/// One store of an archive.
///
/// # Panics
/// When the archive has no store of that name.
pub fn unpack(archive: &str, store: &str) -> Golden {
    let mut golden: Option<Golden> = None;
    each_entry(archive, |path, entry| match split(path) {
        (Some(name), rest) if name == store => {
            let golden = golden.get_or_insert_with(|| Golden::empty(&name));
            write_entry(&golden.dir.path().join(rest), entry)?;
            Ok(true)
        }
        // The entries of a store stand together.
        _ => Ok(golden.is_none()),
    });
    golden.unwrap_or_else(|| panic!("{archive} has no store {store}"))
}

/// Every store of an archive.
pub fn unpack_all(archive: &str) -> Vec<Golden> {
    let mut all: Vec<Golden> = Vec::new();
    each_entry(archive, |path, entry| {
        let (Some(name), rest) = split(path) else { return Ok(true) };
        if all.last().is_none_or(|golden| golden.name != name) {
            all.push(Golden::empty(&name));
        }
        let golden = all.last().expect("just added");
        write_entry(&golden.dir.path().join(rest), entry)?;
        Ok(true)
    });
    all
}

/// The directory of a whole broker with default file sizes and its `config`. Apparent size 1.7 GB, nearly all holes.
pub fn broker() -> Golden {
    let golden = Golden::empty(BROKER);
    each_entry(BROKER, |path, entry| {
        write_entry(&golden.dir.path().join(path), entry)?;
        Ok(true)
    });
    let expected = open(&format!("{BROKER}.expected.jsonl.zst"));
    let mut file = File::create(golden.dir.path().join("expected.jsonl")).expect("a temporary file");
    io::copy(&mut BufReader::new(expected), &mut file).expect("expected lines unpack");
    golden
}

impl Golden {
    fn empty(name: &str) -> Self {
        Self { name: name.to_owned(), dir: TempDir::new().expect("a temporary directory") }
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn open(file: &str) -> impl Read + use<> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    StreamingDecoder::new(BufReader::new(file)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Calls `visit` for the entries of an archive until it answers `false`.
fn each_entry(archive: &str, mut visit: impl FnMut(&Path, &mut dyn Entry) -> io::Result<bool>) {
    let mut tar = tar::Archive::new(open(&format!("{archive}.tar.zst")));
    for entry in tar.entries().expect("a tar archive") {
        let mut entry = entry.expect("a tar entry");
        let path = entry.path().expect("an entry's path").into_owned();
        assert!(
            path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)),
            "{} leaves its directory",
            path.display()
        );
        if !visit(&path, &mut entry).unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
            return;
        }
    }
}

/// A tar entry, whatever it is read from.
trait Entry: Read {
    fn is_dir(&self) -> bool;
    fn len(&self) -> u64;
}

impl<R: Read> Entry for tar::Entry<'_, R> {
    fn is_dir(&self) -> bool {
        self.header().entry_type().is_dir()
    }

    fn len(&self) -> u64 {
        self.size()
    }
}

/// The store that an entry belongs to and its path below it.
fn split(path: &Path) -> (Option<String>, PathBuf) {
    let mut parts = path.components().filter(|part| *part != Component::CurDir);
    let store = parts.next().map(|part| part.as_os_str().to_string_lossy().into_owned());
    (store, parts.collect())
}

/// Writes one entry, leaving holes where whole blocks are zero.
fn write_entry(to: &Path, entry: &mut dyn Entry) -> io::Result<()> {
    if entry.is_dir() {
        return fs::create_dir_all(to);
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let mut file = File::create(to)?;
    file.set_len(entry.len())?;
    let mut block = vec![0; ZEROS.len()];
    let mut at = 0;
    loop {
        let n = entry.read(&mut block)?;
        if n == 0 {
            return if at == entry.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        // Slices compare by memcmp, also in a build without optimization.
        if block[..n] != ZEROS[..n] {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&block[..n])?;
        }
        at += n as u64;
    }
}
