//! The key-value table of a name server: small settings by namespace and key, such as the order configuration of
//! topics.
//!
//! Kept in a file of RocketMQ's shape, `{"configTable":{"<namespace>":{"<key>":"<value>"}}}`, replaced as a whole
//! at every change. The path comes from whoever started the server, never from a request.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::vfs::Vfs;

/// The namespace that holds `brokerName:queues;…` of ordered topics.
pub(super) const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

/// Entries that are kept at most.
const MAX_ENTRIES: usize = 100_000;
/// Bytes of one namespace, key and value together at most.
const MAX_ENTRY_LEN: usize = 1 << 20;
/// Bytes of the file that are read at most.
const MAX_FILE: u64 = 256 << 20;

type Table = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    config_table: Table,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct KvTable {
    table: Mutex<Table>,
    file: Option<(Arc<dyn Vfs>, PathBuf)>,
}

impl KvTable {
    /// The table in the file at `path`, or an empty one that stays in memory.
    pub(super) fn load(vfs: Arc<dyn Vfs>, path: Option<PathBuf>) -> io::Result<Self> {
        let Some(path) = path else {
            return Ok(Self { table: Mutex::default(), file: None });
        };
        let table = match vfs.read(&path, MAX_FILE)? {
            Some(bytes) => serde_json::from_slice::<File>(&bytes)?.config_table,
            None => Table::new(),
        };
        Ok(Self { table: Mutex::new(table), file: Some((vfs, path)) })
    }

    /// Sets a value.
    pub(super) fn put(&self, namespace: &str, key: &str, value: &str) -> Result<(), String> {
        if namespace.len() + key.len() + value.len() > MAX_ENTRY_LEN {
            return Err(format!("namespace, key and value together have more than {MAX_ENTRY_LEN} bytes"));
        }
        let mut table = self.table.lock();
        let there = table.get(namespace).is_some_and(|keys| keys.contains_key(key));
        let entries = table.values().map(|keys| keys.len().max(1)).sum::<usize>();
        if !there && entries >= MAX_ENTRIES {
            return Err(format!("the table has {MAX_ENTRIES} entries, delete some first"));
        }
        table.entry(namespace.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
        self.save(&table)
    }

    /// Removes a value. Its namespace stays, as in RocketMQ.
    pub(super) fn delete(&self, namespace: &str, key: &str) -> Result<(), String> {
        let mut table = self.table.lock();
        if let Some(keys) = table.get_mut(namespace) {
            keys.remove(key);
        }
        self.save(&table)
    }

    /// A value.
    pub(super) fn get(&self, namespace: &str, key: &str) -> Option<String> {
        self.table.lock().get(namespace)?.get(key).cloned()
    }

    /// All of a namespace as `{"table":{…}}`.
    pub(super) fn list(&self, namespace: &str) -> Option<String> {
        let table = self.table.lock();
        Some(serde_json::json!({ "table": table.get(namespace)? }).to_string())
    }

    fn save(&self, table: &Table) -> Result<(), String> {
        let Some((vfs, path)) = &self.file else { return Ok(()) };
        let text =
            serde_json::to_vec(&serde_json::json!({ "configTable": table })).map_err(|e| e.to_string())?;
        if let Some(dir) = path.parent() {
            vfs.create_dir_all(dir).map_err(|e| format!("cannot make the directory of the table: {e}"))?;
        }
        vfs.replace(path, &text).map_err(|e| format!("cannot write the table: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::OsVfs;

    #[test]
    fn values_outlive_the_server_when_there_is_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("namesrv/kvConfig.json");
        let open = || KvTable::load(Arc::new(OsVfs), Some(path.clone())).unwrap();
        let table = open();
        table.put("n", "k", "v").unwrap();
        table.put("n", "gone", "v").unwrap();
        table.delete("n", "gone").unwrap();
        let again = open();
        assert_eq!(again.get("n", "k").as_deref(), Some("v"));
        assert_eq!(again.get("n", "gone"), None);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), r#"{"configTable":{"n":{"k":"v"}}}"#);
    }

    #[test]
    fn a_namespace_is_listed_once_it_had_a_key() {
        let table = KvTable::load(Arc::new(OsVfs), None).unwrap();
        assert_eq!(table.list("n"), None);
        table.put("n", "k", "a\"b").unwrap();
        assert_eq!(table.list("n").as_deref(), Some(r#"{"table":{"k":"a\"b"}}"#));
        table.delete("n", "k").unwrap();
        assert_eq!(table.list("n").as_deref(), Some(r#"{"table":{}}"#));
    }

    #[test]
    fn a_value_of_any_length_is_not_taken() {
        let table = KvTable::load(Arc::new(OsVfs), None).unwrap();
        assert!(table.put("n", "k", &"x".repeat(MAX_ENTRY_LEN)).is_err());
        assert_eq!(table.get("n", "k"), None);
    }
}
