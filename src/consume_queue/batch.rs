//! Batch queues.
