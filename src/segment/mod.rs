//! Mapped files of fixed size that follow one another: the log's and the queues' bodies.
