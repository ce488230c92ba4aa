//! The files below `config/` of a store: RocketMQ's own, in its shapes.
//!
//! Owns [`ConfigFile`], which replaces a file in one step, keeps the content before as `<name>.bak`, and sets aside
//! what it cannot read; and [`DataVersion`], which every such file carries. Called by the tables that outlive a restart.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::json::Json;
use crate::{
    error::{Error, Result},
    vfs::Vfs,
};

/// A config file larger than this is not read.
const MAX_FILE: u64 = 256 << 20;

/// RocketMQ's `dataVersion`: how its tables tell that another copy is newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DataVersion {
    pub(crate) state_version: i64,
    pub(crate) timestamp: i64,
    pub(crate) counter: i64,
}

impl DataVersion {
    /// A version that starts at `now` in milliseconds.
    pub(crate) const fn new(now: i64) -> Self {
        Self { state_version: 0, timestamp: now, counter: 0 }
    }

    /// One change more.
    pub(crate) const fn step(&mut self, now: i64) {
        self.timestamp = now;
        self.counter += 1;
    }

    pub(crate) fn to_json(self) -> Json {
        Json::map([
            ("counter", Json::Int(self.counter)),
            ("stateVersion", Json::Int(self.state_version)),
            ("timestamp", Json::Int(self.timestamp)),
        ])
    }

    /// What a file says; `None` when the field is missing or something else.
    pub(crate) fn from_json(json: Option<&Json>) -> Option<Self> {
        let json = json?;
        Some(Self {
            state_version: json.int_of("stateVersion").unwrap_or(0),
            timestamp: json.int_of("timestamp")?,
            counter: json.int_of("counter").unwrap_or(0),
        })
    }
}

/// One file below `config/`.
///
/// A save first keeps the old content as `<name>.bak`, then replaces the file in one step. A file that cannot be read
/// is renamed to `<name>.damaged-<n>`, never deleted, and its `.bak` is taken instead.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    /// What the file holds, so that an unchanged table costs no write.
    last: Mutex<Option<String>>,
}

impl ConfigFile {
    /// The file `name` in the directory `dir`, which is made.
    pub(crate) fn new(vfs: Arc<dyn Vfs>, dir: &Path, name: &str) -> Result<Self> {
        vfs.create_dir_all(dir).map_err(Error::io("create", dir))?;
        Ok(Self { vfs, path: dir.join(name), last: Mutex::new(None) })
    }

    fn sibling(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    /// Reads the file through `read`; its `.bak` when the file is missing, torn or not what `read` wants.
    pub(crate) fn load<T>(&self, read: impl Fn(&Json) -> Result<T, String>) -> Result<Option<T>> {
        for path in [self.path.clone(), self.sibling(".bak")] {
            let Some(bytes) = self.vfs.read(&path, MAX_FILE).map_err(Error::io("read", &path))? else {
                continue;
            };
            match Json::parse(&bytes).and_then(|json| read(&json)) {
                Ok(value) => {
                    if path == self.path {
                        *self.last.lock() = String::from_utf8(bytes).ok();
                    }
                    return Ok(Some(value));
                }
                Err(why) => self.set_aside(&path, &why)?,
            }
        }
        Ok(None)
    }

    fn set_aside(&self, path: &Path, why: &str) -> Result<()> {
        for n in 1..=10_000 {
            let mut aside = path.to_path_buf().into_os_string();
            aside.push(format!(".damaged-{n}"));
            let aside = PathBuf::from(aside);
            if self.vfs.stat(&aside).map_err(Error::io("look at", &aside))?.is_none() {
                tracing::warn!(file = %path.display(), kept_as = %aside.display(), why, "unreadable config file set aside");
                return self.vfs.rename(path, &aside).map_err(Error::io("rename", path));
            }
        }
        Err(Error::Config {
            key: "storePathRootDir".into(),
            value: path.display().to_string(),
            why: "10000 damaged copies of this file lie beside it: look at them and move them away".into(),
        })
    }

    /// Keeps the file as it is in the directory `dir` as well, once.
    pub(crate) fn keep_in(&self, dir: &Path) -> Result<()> {
        let read = |path: &Path| self.vfs.read(path, MAX_FILE).map_err(Error::io("read", path));
        let Some((name, bytes)) = self.path.file_name().zip(read(&self.path)?) else { return Ok(()) };
        self.vfs.create_dir_all(dir).map_err(Error::io("create", dir))?;
        for n in 1.. {
            let mut kept = dir.join(name).into_os_string();
            if n > 1 {
                kept.push(format!("-{n}"));
            }
            let kept = PathBuf::from(kept);
            match read(&kept)? {
                None => {
                    tracing::warn!(file = %self.path.display(), kept_as = %kept.display(), "kept as it was");
                    return self.vfs.replace(&kept, &bytes).map_err(Error::io("write", &kept));
                }
                Some(there) if there == bytes => break,
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Whether this process read or wrote the file.
    pub(crate) fn is_written(&self) -> bool {
        self.last.lock().is_some()
    }

    /// Writes `json` unless the file holds exactly that already.
    pub(crate) fn save(&self, json: &Json) -> Result<()> {
        self.save_with(|| json.clone())
    }

    /// [`ConfigFile::save`] of what `make` gives. It is called once no other save is under way, so that of two saves
    /// the later one has the newer content.
    pub(crate) fn save_with(&self, make: impl FnOnce() -> Json) -> Result<()> {
        self.try_save_with(|| Ok(make()))
    }

    /// [`ConfigFile::save_with`] of what `make` gives, if it gives something.
    pub(crate) fn try_save_with(&self, make: impl FnOnce() -> Result<Json>) -> Result<()> {
        let mut last = self.last.lock();
        let text = make()?.pretty();
        if last.as_ref() == Some(&text) {
            return Ok(());
        }
        if let Some(old) = last.take() {
            let bak = self.sibling(".bak");
            self.vfs.replace(&bak, old.as_bytes()).map_err(Error::io("replace", bak))?;
            *last = Some(old);
        }
        self.vfs.replace(&self.path, text.as_bytes()).map_err(Error::io("replace", &self.path))?;
        *last = Some(text);
        Ok(())
    }
}

/// The tables below `dir` that cannot be read, each with the reason; `.bak` files too. Changes nothing.
///
/// # Errors
/// [`Error::Io`].
pub fn unreadable_tables(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut bad = Vec::new();
    for entry in vfs.list(dir).map_err(Error::io("list", dir))? {
        if entry.is_dir || !(entry.name.ends_with(".json") || entry.name.ends_with(".json.bak")) {
            continue;
        }
        let path = dir.join(&entry.name);
        let why = match vfs.read(&path, MAX_FILE) {
            Ok(bytes) => Json::parse(&bytes.unwrap_or_default()).err(),
            Err(error) => Some(error.to_string()),
        };
        bad.extend(why.map(|why| (path, why)));
    }
    Ok(bad)
}

/// Sets each unreadable table below `dir` aside and puts its `.bak` in its place, as a broker does when it starts. Says
/// which were.
///
/// # Errors
/// [`Error::Io`].
pub fn mend_tables(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<Vec<PathBuf>> {
    let bad = unreadable_tables(&**vfs, dir)?;
    let mut mended = Vec::new();
    for (path, why) in &bad {
        let file = ConfigFile { vfs: Arc::clone(vfs), path: path.clone(), last: Mutex::new(None) };
        file.set_aside(path, why)?;
        let bak = file.sibling(".bak");
        if !bad.iter().any(|(other, _)| *other == bak)
            && let Some(bytes) = vfs.read(&bak, MAX_FILE).map_err(Error::io("read", &bak))?
        {
            vfs.replace(path, &bytes).map_err(Error::io("replace", path))?;
        }
        mended.push(path.clone());
    }
    Ok(mended)
}

/// A config file as Java wrote it.
#[cfg(test)]
pub(crate) fn golden(name: &str) -> Json {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/broker-config").join(name);
    Json::parse(&std::fs::read(path).unwrap()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::OsVfs;

    #[test]
    fn each_of_java_s_config_files_comes_back_to_the_byte() {
        for name in ["topics.json", "subscriptionGroup.json", "consumerOffset.json", "delayOffset.json"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/broker-config").join(name);
            assert_eq!(golden(name).pretty(), std::fs::read_to_string(path).unwrap(), "{name}");
        }
    }

    #[test]
    fn a_save_keeps_the_content_before_and_a_load_falls_back_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = || ConfigFile::new(Arc::new(OsVfs), dir.path(), "x.json").unwrap();
        let content = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let read = |json: &Json| json.int().ok_or_else(|| "no number".to_owned());
        let first = file();
        assert_eq!(first.load(read).unwrap(), None);
        first.save(&Json::Int(1)).unwrap();
        first.save(&Json::Int(1)).unwrap();
        assert!(!dir.path().join("x.json.bak").exists());
        first.save(&Json::Int(2)).unwrap();
        assert_eq!((content("x.json"), content("x.json.bak")), ("2".into(), "1".into()));
        assert_eq!(file().load(read).unwrap(), Some(2));
        // Whole JSON that is not what the table wants is as bad as a torn file.
        for (n, bad) in [(1, "\"two\""), (2, "{")] {
            std::fs::write(dir.path().join("x.json"), bad).unwrap();
            assert_eq!(file().load(read).unwrap(), Some(1));
            assert_eq!(content(&format!("x.json.damaged-{n}")), bad);
        }
        let next = file();
        assert_eq!(next.load(read).unwrap(), Some(1));
        next.save(&Json::Int(3)).unwrap();
        assert_eq!((content("x.json"), content("x.json.bak")), ("3".into(), "1".into()));
    }
}
