//! The fuzz targets as plain functions, so that a fuzzer and an ordinary test run the same code.

pub mod targets;
