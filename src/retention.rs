//! Deletes what is old or in the way.
