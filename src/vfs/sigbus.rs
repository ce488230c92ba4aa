//! What happens when a mapped file loses bytes under the process: a file cut short by somebody else, a page that the
//! disk cannot read, a full copy-on-write file system. The system then sends SIGBUS, and nothing that the process has
//! promised since can be trusted.
//!
//! Owns a table of mappings, which names the file, and the handler, which calls nothing that a signal handler may not.
#![allow(unsafe_code)]

use std::{
    io,
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering},
};

use parking_lot::Mutex;

/// The exit code after a mapped file lost bytes: the one of `sysexits.h` for input and output errors.
pub const SIGBUS_EXIT_CODE: i32 = 74;

/// Mappings that are known by name; more have none.
const SLOTS: usize = 4096;
/// Bytes of a path that are shown.
const NAME: usize = 512;

/// One mapping. `base` is set last and cleared first: a slot that covers an address is whole.
struct Slot {
    base: AtomicUsize,
    len: AtomicUsize,
    name: AtomicPtr<u8>,
    name_len: AtomicUsize,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        base: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        name: AtomicPtr::new(ptr::null_mut()),
        name_len: AtomicUsize::new(0),
    }
}; SLOTS];
/// Slots that were given back, and the first that was never used.
static FREE: Mutex<(Vec<usize>, usize)> = Mutex::new((Vec::new(), 0));
/// The handler before ours, as a number; 0 and 1 are the system's.
static BEFORE: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);

/// A mapping's place in the table, until dropped.
#[derive(Debug)]
pub(super) struct Known(Option<usize>);

impl Known {
    /// Takes note that `len` bytes at `base` are those of the file `path`.
    pub(super) fn new(base: *const u8, len: usize, path: &Path) -> Self {
        let mut free = FREE.lock();
        let number = free.0.pop().or_else(|| {
            let next = free.1;
            free.1 += usize::from(next < SLOTS);
            (next < SLOTS).then_some(next)
        });
        drop(free);
        if let Some(slot) = number.and_then(|number| TABLE.get(number)) {
            let bytes = path.as_os_str().as_bytes();
            let name: Box<[u8]> = bytes[..bytes.len().min(NAME)].into();
            slot.name_len.store(name.len(), Ordering::Relaxed);
            slot.name.store(Box::into_raw(name).cast(), Ordering::Relaxed);
            slot.len.store(len, Ordering::Relaxed);
            slot.base.store(base.addr(), Ordering::Release);
        }
        Self(number)
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        let Some((number, slot)) = self.0.and_then(|number| Some((number, TABLE.get(number)?))) else {
            return;
        };
        slot.base.store(0, Ordering::Release);
        let name = slot.name.swap(ptr::null_mut(), Ordering::Relaxed);
        if !name.is_null() {
            let len = slot.name_len.load(Ordering::Relaxed);
            // SAFETY: `name` and `len` came from a boxed slice in `new`, taken out of the slot just now, so once only. The
            // handler reads a name only when a fault lies in its mapping, and nobody uses this mapping any more.
            drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(name, len)) });
        }
        FREE.lock().0.push(number);
    }
}

/// Ends the process with a message and [`SIGBUS_EXIT_CODE`] when a file that it has mapped loses bytes, instead of by the
/// signal: `reput: FILE lost byte N under us, ...` on stderr. A handler that was installed before is called first;
/// signals for other memory are passed on to it, or to the system. Installs a handler for the whole process, so it is
/// for programs to call, not for libraries. Calling it again changes nothing.
///
/// # Errors
/// What `sigaction` says.
pub fn exit_on_sigbus() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock();
    if *installed {
        return Ok(());
    }
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a zeroed `sigaction` is valid; its handler has the signature that SA_SIGINFO asks for and touches only
    // atomics, memory that outlives it, and functions that are safe in handlers. Both structures live across the call.
    unsafe {
        let action = action.assume_init_mut();
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
        if libc::sigaction(libc::SIGBUS, ptr::from_ref(action), before.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        BEFORE.store(before.assume_init().sa_sigaction, Ordering::Release);
    }
    *installed = true;
    Ok(())
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system hands a valid `siginfo_t` of a memory fault to an SA_SIGINFO handler.
    let at = unsafe { (*info).si_addr() }.addr();
    let ours = TABLE.iter().find(|slot| {
        let base = slot.base.load(Ordering::Acquire);
        base != 0 && (base..base.saturating_add(slot.len.load(Ordering::Relaxed))).contains(&at)
    });
    if let Some(slot) = ours {
        tell(slot, at);
    }
    let before = BEFORE.load(Ordering::Acquire);
    if before != libc::SIG_DFL && before != libc::SIG_IGN {
        // SAFETY: the number is the address of the handler that was installed before ours. One that was installed
        // without SA_SIGINFO ignores the arguments beyond the first, which the calling convention allows.
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
            unsafe { std::mem::transmute(before) };
        handler(signal, info, context);
    } else if ours.is_none() {
        // SAFETY: both calls are safe in a handler. The access is tried again on return and ends the process.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
        return;
    }
    if ours.is_some() {
        // SAFETY: ends the process without running anything else of it.
        unsafe { libc::_exit(SIGBUS_EXIT_CODE) };
    }
}

/// Writes the message piece by piece: nothing here may allocate or lock.
fn tell(slot: &Slot, at: usize) {
    let put = |bytes: &[u8]| {
        // SAFETY: hands out a slice that lives across the call; a message that cannot be written is lost.
        unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
    };
    put(b"reput: ");
    let name = slot.name.load(Ordering::Relaxed);
    if !name.is_null() {
        // SAFETY: the fault lies in this slot's mapping, which is therefore alive, and its name with it.
        put(unsafe { std::slice::from_raw_parts(name, slot.name_len.load(Ordering::Relaxed)) });
    }
    put(b" lost byte ");
    let mut digits = [0; 20];
    let mut left = at.wrapping_sub(slot.base.load(Ordering::Relaxed));
    let mut first = digits.len();
    while first > 0 {
        first -= 1;
        digits[first] = b'0' + u8::try_from(left % 10).unwrap_or(0);
        left /= 10;
        if left == 0 {
            break;
        }
    }
    put(&digits[first..]);
    put(b" under us: it was cut short, or the disk cannot read or store it. Nothing more is acknowledged; check the disk \
         and start again.\n");
}
