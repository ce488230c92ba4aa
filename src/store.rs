//! The store: open, put, get, query, close.
