//! IndexFiles: messages by key.
