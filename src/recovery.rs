//! Brings log, queues and index into agreement at open.
