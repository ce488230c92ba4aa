//! The files of a queue.
