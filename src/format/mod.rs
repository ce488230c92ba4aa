//! The bytes of RocketMQ's files as values: pure, no I/O, no clock, no unsafe. FORMAT.md defines them.
