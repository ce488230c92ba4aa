//! The asking end of a connection: for registering at name servers, and for tests.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::net::{TcpStream, ToSocketAddrs};

use super::{
    CallError, Command, Connection, Limits, Service,
    codes::response,
    connection::{attach, run},
    server::NEXT_CONNECTION,
};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(3);

/// A connection to a server. Dropping the client ends it; requests that wait for an answer then fail.
#[derive(Debug)]
pub struct Client {
    connection: Arc<Connection>,
}

/// Answers what a server asks when the client has no service: that it is not supported.
struct Nothing;

impl Service for Nothing {
    fn serve(&self, connection: &Arc<Connection>, batch: Vec<Command>) {
        for request in batch.into_iter().filter(|request| !request.is_oneway()) {
            let remark = format!(" request type {} not supported", request.code);
            connection.send(request.reply(response::REQUEST_CODE_NOT_SUPPORTED).with_remark(remark));
        }
    }
}

impl Client {
    /// Connects to `addr`.
    ///
    /// # Errors
    /// When nothing listens there or it takes longer than 3 s.
    pub async fn connect(addr: impl ToSocketAddrs) -> io::Result<Self> {
        Self::connect_with(addr, Arc::new(Nothing), Limits::default()).await
    }

    /// Connects to `addr`; requests that the server sends go to `service`.
    ///
    /// # Errors
    /// When nothing listens there or it takes longer than 3 s.
    pub async fn connect_with(
        addr: impl ToSocketAddrs,
        service: Arc<dyn Service>,
        limits: Limits,
    ) -> io::Result<Self> {
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect(addr)).await??;
        let connection = attach(NEXT_CONNECTION.fetch_add(1, Ordering::Relaxed), &stream, limits)?;
        let running = Arc::clone(&connection);
        tokio::spawn(async move {
            run(Arc::clone(&running), stream, Arc::clone(&service)).await;
            service.closed(&running);
        });
        Ok(Self { connection })
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// [`CallError`] when there is none.
    pub async fn call(&self, command: Command, timeout: Duration) -> Result<Command, CallError> {
        self.connection.call(command, timeout).await
    }

    /// Sends a command that is not answered; whether the connection took it.
    pub fn oneway(&self, mut command: Command) -> bool {
        if !command.is_response() {
            command.flag |= 2;
        }
        self.connection.send(command)
    }

    /// The connection.
    #[must_use]
    pub const fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.end();
    }
}
