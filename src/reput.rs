//! Follows the log and builds ConsumeQueues and IndexFiles.
