//! The names in a directory. `std::fs::read_dir` panics where the system says that closing the directory has failed,
//! which means nothing of one that was only read.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, OsString},
    io,
    os::unix::ffi::OsStringExt,
    ptr::NonNull,
};

/// An open directory.
struct Open(NonNull<libc::DIR>);

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: `opendir` gave the stream, and nobody else has it.
        unsafe { libc::closedir(self.0.as_ptr()) };
    }
}

/// The names in `dir` without `.` and `..`, in no order.
pub(super) fn names_in(dir: &CString) -> io::Result<Vec<OsString>> {
    // SAFETY: `dir` ends in 0 and lives across the call.
    let stream = unsafe { libc::opendir(dir.as_ptr()) };
    let open = Open(NonNull::new(stream).ok_or_else(io::Error::last_os_error)?);
    let mut names = Vec::new();
    loop {
        // SAFETY: errno is this thread's own. Without this the end cannot be told from an error.
        unsafe { *libc::__errno_location() = 0 };
        // SAFETY: the stream is open.
        let Some(entry) = NonNull::new(unsafe { libc::readdir64(open.0.as_ptr()) }) else {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(0) { Ok(names) } else { Err(error) };
        };
        // SAFETY: the entry is valid until the next call with this stream, and its name ends in 0.
        let name = unsafe { CStr::from_ptr((&raw const (*entry.as_ptr()).d_name).cast()) }.to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
}
