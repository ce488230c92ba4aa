//! RocketMQ's remoting protocol: frames, headers, codes. Knows nothing of the store.
