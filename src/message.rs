//! Messages as users of the store write and read them.
