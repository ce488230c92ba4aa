//! One peer: what waits to be sent to it, what it is asked, and how long it has been silent.
//!
//! Two tasks drive a connection. The read task decodes every whole frame of one read and hands the requests to the
//! service in one call; the write task sends everything that waits with vectored writes. [`Connection::send`] may be
//! called from any thread: it puts the frame's pieces into the outbox and wakes the writer.
//!
//! ```text
//! read task                          any thread                    write task
//! read, decode, complete calls
//! service.serve(batch)  -----------> send: lock outbox, push
//! (outbox too full: wait for room)   unlock, notify  ------------> lock, take all, unlock
//!                                                                  writev .. until empty, notify room
//! ```
//! States go one way, open -> stopping -> ending -> closed. A stopping connection (its server shuts down) reads no
//! more and waits for the answers that are owed; an ending one (the peer sends no more) sends what waits and closes.
//! Every bound is in [`Limits`]; timers are kept by one sweep over all connections, not per read.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, IoSlice},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, oneshot, watch},
};
use tracing::debug;

use super::{
    Body, Command, Limits, Service, frame,
    outbox::{Outbox, encoded},
};

/// Free space that a read is offered.
const READ: usize = 64 << 10;
/// Pieces in one vectored write.
const SLICES: usize = 64;
/// Requests to one peer that may wait for their answers.
const MAX_CALLS: usize = 1 << 16;

/// Why a request got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// None came in time.
    #[error("{peer} did not answer within {} ms", timeout.as_millis())]
    Timeout {
        /// Who was asked.
        peer: SocketAddr,
        /// How long the answer was waited for.
        timeout: Duration,
    },
    /// The connection ended first.
    #[error("the connection to {peer} ended")]
    Closed {
        /// Who was asked.
        peer: SocketAddr,
    },
    /// Too many requests wait for answers of that peer.
    #[error("{peer} leaves too many requests unanswered")]
    Busy {
        /// Who was asked.
        peer: SocketAddr,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Open,
    Stopping,
    Ending,
    Closed,
}

/// One peer: what waits to be sent to it and what it is asked. Made by a server or a client, shared by reference
/// count; sending is possible from any thread for as long as the connection lasts.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    peer: SocketAddr,
    local: SocketAddr,
    limits: Limits,
    state: watch::Sender<State>,
    outbox: Mutex<Outbox>,
    /// Bytes in the outbox and in the writer's hands.
    outbound: AtomicUsize,
    to_write: Notify,
    room: Notify,
    /// `None` once the connection has ended.
    calls: Mutex<Option<HashMap<i32, oneshot::Sender<Command>>>>,
    next_opaque: AtomicI32,
    /// Requests that were served and not answered yet.
    owed: AtomicI64,
    opened: Instant,
    /// Milliseconds since `opened`; 0 stands for never.
    last_moved: AtomicU64,
    partial_since: AtomicU64,
    unread_since: AtomicU64,
    first_frame: AtomicU64,
}

impl Connection {
    fn new(id: u64, peer: SocketAddr, local: SocketAddr, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            id,
            peer,
            local,
            limits,
            state: watch::Sender::new(State::Open),
            outbox: Mutex::default(),
            outbound: AtomicUsize::new(0),
            to_write: Notify::new(),
            room: Notify::new(),
            calls: Mutex::new(Some(HashMap::new())),
            next_opaque: AtomicI32::new(1),
            owed: AtomicI64::new(0),
            opened: Instant::now(),
            last_moved: AtomicU64::new(0),
            partial_since: AtomicU64::new(0),
            unread_since: AtomicU64::new(0),
            first_frame: AtomicU64::new(0),
        })
    }

    /// A connection without a socket: what is sent stays, to be looked at with [`Self::take_sent`]. For tests of
    /// services.
    #[must_use]
    pub fn detached(id: u64, peer: SocketAddr) -> Arc<Self> {
        Self::new(id, peer, peer, Limits::default())
    }

    /// Everything sent through a [`Self::detached`] connection since the last call.
    #[must_use]
    pub fn take_sent(&self) -> Vec<Command> {
        let mut bytes = BytesMut::new();
        let mut pieces = VecDeque::new();
        self.outbox.lock().take(&mut pieces);
        pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
        self.outbound.store(0, Ordering::Release);
        std::iter::from_fn(|| frame::decode(&mut bytes, usize::MAX).ok().flatten()).collect()
    }

    /// A number that no other connection of this process has.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The other end.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// This end.
    #[must_use]
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.outbound.load(Ordering::Relaxed)
    }

    /// Whether nothing can be sent any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        *self.state.borrow() == State::Closed
    }

    /// Queues a command to be sent; whether it was. A peer that leaves more than [`Limits::max_outbound`] bytes
    /// unread is closed.
    pub fn send(&self, command: Command) -> bool {
        let code = command.code;
        if command.is_response() {
            self.owed.fetch_sub(1, Ordering::Relaxed);
        }
        match encoded(command, |head, body| self.put(head, body)) {
            Ok(taken) => taken,
            Err(error) => {
                debug!(peer = %self.peer, code, %error, "cannot send");
                false
            }
        }
    }

    fn put(&self, head: &[u8], body: Body) -> bool {
        let len = head.len() + body.len();
        {
            let mut outbox = self.outbox.lock();
            if self.is_closed() {
                return false;
            }
            let before = self.outbound.fetch_add(len, Ordering::AcqRel);
            if before.saturating_add(len) > self.limits.max_outbound && before > 0 {
                drop(outbox);
                debug!(peer = %self.peer, "closed: it does not read what is sent to it");
                self.close();
                return false;
            }
            outbox.push(head, body);
        }
        self.to_write.notify_one();
        true
    }

    /// Sends a request and gives its answer. The request is sent by this call, not by the first poll.
    pub fn call(
        self: &Arc<Self>,
        mut command: Command,
        timeout: Duration,
    ) -> impl Future<Output = Result<Command, CallError>> + Send + use<> {
        let waiting = self.expect_answer().inspect(|(opaque, _)| {
            command.opaque = *opaque;
            self.send(command);
        });
        let connection = Arc::clone(self);
        async move {
            let (opaque, answer) = waiting?;
            let _forget = Forget { connection: &connection, opaque };
            let peer = connection.peer;
            match tokio::time::timeout(timeout, answer).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(_)) => Err(CallError::Closed { peer }),
                Err(_) => Err(CallError::Timeout { peer, timeout }),
            }
        }
    }

    fn expect_answer(&self) -> Result<(i32, oneshot::Receiver<Command>), CallError> {
        let mut calls = self.calls.lock();
        let calls = calls.as_mut().ok_or(CallError::Closed { peer: self.peer })?;
        if calls.len() >= MAX_CALLS {
            return Err(CallError::Busy { peer: self.peer });
        }
        // At most MAX_CALLS numbers are taken, so a free one is near.
        let opaque = loop {
            let opaque = self.next_opaque.fetch_add(1, Ordering::Relaxed);
            if !calls.contains_key(&opaque) {
                break opaque;
            }
        };
        let (sender, receiver) = oneshot::channel();
        calls.insert(opaque, sender);
        Ok((opaque, receiver))
    }

    /// Ends the connection at once; what waits to be sent is dropped.
    pub fn close(&self) {
        self.state.send_replace(State::Closed);
        self.to_write.notify_one();
        self.room.notify_one();
        self.calls.lock().take();
        self.outbox.lock().clear();
    }

    /// Reads no more, waits for the answers that are owed, sends them, then closes.
    pub(super) fn stop(&self) {
        self.leave_open(State::Stopping);
    }

    /// Reads no more, sends what waits, then closes.
    pub(super) fn end(&self) {
        self.leave_open(State::Ending);
    }

    fn leave_open(&self, next: State) {
        self.state.send_if_modified(|state| {
            let open = *state == State::Open;
            if open {
                *state = next;
            }
            open
        });
        self.to_write.notify_one();
        self.room.notify_one();
    }

    /// Milliseconds since the connection was made, at least 1.
    fn age(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Closes the connection when one of its times is up; called about every second.
    pub(super) fn sweep(&self) {
        let now = self.age();
        let over = |since: &AtomicU64, limit: Duration, unset_counts: bool| {
            let since = since.load(Ordering::Relaxed);
            (since > 0 || unset_counts) && Duration::from_millis(now.saturating_sub(since)) > limit
        };
        let why = if over(&self.last_moved, self.limits.idle, true) {
            "it was idle"
        } else if over(&self.partial_since, self.limits.partial_frame, false) {
            "it did not finish a frame"
        } else if over(&self.unread_since, self.limits.unread, false) {
            "it does not read what is sent to it"
        } else if self.first_frame.load(Ordering::Relaxed) == 0
            && Duration::from_millis(now) > self.limits.first_frame
        {
            "it sent nothing"
        } else {
            return;
        };
        debug!(peer = %self.peer, "closed: {why}");
        self.close();
    }
}

/// Forgets a call whose caller no longer waits.
struct Forget<'a> {
    connection: &'a Connection,
    opaque: i32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(calls) = self.connection.calls.lock().as_mut() {
            calls.remove(&self.opaque);
        }
    }
}

/// Makes the connection for a socket, without starting it.
pub(super) fn attach(id: u64, stream: &TcpStream, limits: Limits) -> io::Result<Arc<Connection>> {
    stream.set_nodelay(true)?;
    Ok(Connection::new(id, stream.peer_addr()?, stream.local_addr()?, limits))
}

/// Runs a connection to its end; the caller then tells the service.
pub(super) async fn run(connection: Arc<Connection>, stream: TcpStream, service: Arc<dyn Service>) {
    let (read, write) = stream.into_split();
    let writer = tokio::spawn(write_task(Arc::clone(&connection), write));
    if let Err(error) = read_task(&connection, read, service.as_ref()).await {
        debug!(peer = %connection.peer, %error, "closed");
        connection.close();
    }
    // A peer that sends no more may still read its last answers.
    connection.end();
    if let Err(error) = writer.await {
        debug!(peer = %connection.peer, %error, "the write task ended early");
    }
    connection.close();
}

async fn read_task(
    connection: &Arc<Connection>,
    mut read: OwnedReadHalf,
    service: &dyn Service,
) -> io::Result<()> {
    let mut state = connection.state.subscribe();
    let mut buffer = BytesMut::new();
    while *state.borrow_and_update() == State::Open {
        if buffer.capacity() - buffer.len() < READ / 4 {
            // Doubles while a large frame arrives: never more than was received already.
            buffer.reserve(buffer.len().max(READ));
        }
        if !buffer.is_empty() && connection.partial_since.load(Ordering::Relaxed) == 0 {
            connection.partial_since.store(connection.age(), Ordering::Relaxed);
        }
        let received = tokio::select! {
            received = read.read_buf(&mut buffer) => received?,
            _ = state.changed() => continue,
        };
        if received == 0 {
            return Ok(());
        }
        let broken = receive(connection, &mut buffer, service).err();
        if let Some(error) = broken {
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        while connection.outbound.load(Ordering::Acquire) > connection.limits.outbound_pause
            && *state.borrow() == State::Open
        {
            connection.room.notified().await;
        }
    }
    Ok(())
}

/// Takes all whole frames out of `buffer`. Those before a broken one are served, too.
fn receive(
    connection: &Arc<Connection>,
    buffer: &mut BytesMut,
    service: &dyn Service,
) -> Result<(), frame::FrameError> {
    let now = connection.age();
    connection.last_moved.store(now, Ordering::Relaxed);
    let mut batch = Vec::new();
    let mut owed = 0;
    let mut whole = false;
    let result = loop {
        match frame::decode(buffer, connection.limits.max_frame) {
            Ok(Some(command)) => {
                whole = true;
                if command.is_response() {
                    complete(connection, command);
                } else {
                    owed += i64::from(!command.is_oneway());
                    batch.push(command);
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if whole {
        connection.first_frame.store(now, Ordering::Relaxed);
        connection.partial_since.store(0, Ordering::Relaxed);
    }
    if !batch.is_empty() {
        connection.owed.fetch_add(owed, Ordering::Relaxed);
        service.serve(connection, batch);
    }
    result
}

fn complete(connection: &Connection, answer: Command) {
    let waiting = connection.calls.lock().as_mut().and_then(|calls| calls.remove(&answer.opaque));
    match waiting {
        // The caller may have gone in between; then nobody wants the answer.
        Some(waiting) => drop(waiting.send(answer)),
        None => debug!(peer = %connection.peer, opaque = answer.opaque, "an answer that nobody waits for"),
    }
}

async fn write_task(connection: Arc<Connection>, mut write: OwnedWriteHalf) {
    let mut state = connection.state.subscribe();
    let mut pieces = VecDeque::new();
    loop {
        connection.outbox.lock().take(&mut pieces);
        if pieces.is_empty() {
            let owes = connection.owed.load(Ordering::Relaxed) > 0;
            match *state.borrow_and_update() {
                State::Ending | State::Closed => break,
                State::Stopping if !owes => break,
                State::Open | State::Stopping => {}
            }
            tokio::select! {
                () = connection.to_write.notified() => {}
                _ = state.changed() => {}
            }
            continue;
        }
        if let Err(error) = write_all(&connection, &mut write, &mut pieces, &mut state).await {
            debug!(peer = %connection.peer, %error, "cannot write");
            break;
        }
    }
    // Nothing more goes out; the reader learns it by the state.
    let _ = write.shutdown().await;
    connection.close();
}

/// Writes all pieces, or stops when the connection is closed.
async fn write_all(
    connection: &Connection,
    write: &mut OwnedWriteHalf,
    pieces: &mut VecDeque<Bytes>,
    state: &mut watch::Receiver<State>,
) -> io::Result<()> {
    connection.unread_since.store(connection.age(), Ordering::Relaxed);
    while !pieces.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces.iter()) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        let written = tokio::select! {
            written = write.write_vectored(&slices[..count]) => written?,
            _ = state.wait_for(|state| *state == State::Closed) => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        advance(pieces, written);
        let now = connection.age();
        connection.last_moved.store(now, Ordering::Relaxed);
        let left = connection.outbound.fetch_sub(written, Ordering::AcqRel).saturating_sub(written);
        connection.unread_since.store(now, Ordering::Relaxed);
        if left <= connection.limits.outbound_pause {
            connection.room.notify_one();
        }
    }
    connection.unread_since.store(0, Ordering::Relaxed);
    Ok(())
}

fn advance(pieces: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(piece) = pieces.front_mut() {
        if piece.len() > written {
            piece.advance(written);
            return;
        }
        written -= piece.len();
        pieces.pop_front();
    }
}
