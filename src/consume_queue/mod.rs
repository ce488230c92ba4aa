//! ConsumeQueues: per topic and queue, where each message lies.
