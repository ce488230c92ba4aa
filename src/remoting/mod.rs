//! RocketMQ's remoting protocol: frames, headers, codes, a server and a client. It knows nothing of the store.
//!
//! A frame is a length, a header and a body. [`frame`] cuts and decodes frames, [`Command`] is what they say,
//! [`Connection`] is one peer, [`Server`] accepts peers and hands every batch of requests to a [`Service`], and
//! [`Client`] is the other end. All of them are used by the broker and the name server.
//!
//! What arrives is not trusted: nothing is allocated by a length prefix, every count has a bound in [`Limits`], a
//! frame that breaks the rules ends its connection and no other, and a peer that neither sends nor reads is closed.

mod client;
pub mod codes;
mod command;
mod connection;
pub mod frame;
mod header;
mod outbox;
mod server;

use std::{sync::Arc, time::Duration};

pub use client::Client;
pub use command::{Body, Command, Encoding, FieldError, Fields, Language, VERSION};
pub use connection::{CallError, Connection};
pub use server::Server;

/// What is done with requests.
pub trait Service: Send + Sync + 'static {
    /// Takes all requests that one read brought, in their order. Answers go through [`Connection::send`], now or
    /// later, from any thread. Runs on the connection's task: reading goes on when it returns.
    fn serve(&self, connection: &Arc<Connection>, batch: Vec<Command>);

    /// The connection has ended; called once, after the last [`Self::serve`].
    fn closed(&self, _connection: &Arc<Connection>) {}
}

/// The bounds of a connection and of a server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes in a frame, with its length.
    pub max_frame: usize,
    /// Connections at a time; more are closed at once.
    pub max_connections: usize,
    /// A connection on which nothing moves for this long is closed.
    pub idle: Duration,
    /// How long a new connection may take for its first whole frame.
    pub first_frame: Duration,
    /// How long a frame may take from its first byte to its last.
    pub partial_frame: Duration,
    /// How long a peer may leave bytes that wait for it unread.
    pub unread: Duration,
    /// Bytes waiting to be sent above which no more requests are read from that peer.
    pub outbound_pause: usize,
    /// Bytes waiting to be sent above which the peer is closed.
    pub max_outbound: usize,
    /// How long a shutdown waits for answers to go out.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame: 16 << 20,
            max_connections: 16_384,
            idle: Duration::from_secs(120),
            first_frame: Duration::from_secs(10),
            partial_frame: Duration::from_secs(30),
            unread: Duration::from_secs(30),
            outbound_pause: 8 << 20,
            max_outbound: 128 << 20,
            drain: Duration::from_secs(5),
        }
    }
}
