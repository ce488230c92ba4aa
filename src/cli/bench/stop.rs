//! Ctrl-C, SIGTERM and a closed terminal: asked once, a run ends where it stands and tidies up; asked again, it
//! removes its files and ends at once.

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
};

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;

/// Says whether a run was asked to stop. Clones ask the same question.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The number of the first signal; 0 before.
    signal: AtomicU8,
    /// What goes when there is no time to tidy up.
    debris: OnceLock<Vec<PathBuf>>,
}

/// A run ended because it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("stopped before the end")]
pub struct Interrupted;

impl Stop {
    /// Listens from now on.
    pub fn listen() -> Result<Self, Failure> {
        let stop = Self::default();
        let told = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Registered before this returns: a signal that comes early is not lost.
        let (mut interrupt, mut terminate, mut hangup) = {
            let _entered = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            )
        };
        std::thread::Builder::new().name("reput-signals".into()).spawn(move || {
            runtime.block_on(async {
                loop {
                    let number = tokio::select! {
                        _ = interrupt.recv() => 2,
                        _ = terminate.recv() => 15,
                        _ = hangup.recv() => 1,
                    };
                    told.signalled(number);
                }
            });
        })?;
        Ok(stop)
    }

    fn signalled(&self, number: u8) {
        if self.shared.signal.swap(number, Ordering::AcqRel) == 0 {
            eprintln!("\nstopping, and removing what was written ...");
            return;
        }
        for path in self.shared.debris.get().into_iter().flatten() {
            // What does not go now is taken over by the next run.
            let _ = super::place::remove(path);
        }
        std::process::exit(i32::from(128 + number));
    }

    /// Names what goes when a run is asked twice.
    pub fn remove_in_haste(&self, debris: Vec<PathBuf>) {
        // A run has one place; a second one changes nothing.
        let _ = self.shared.debris.set(debris);
    }

    /// The exit code for a run that was asked to stop, if it was.
    pub fn exit_code(&self) -> Option<u8> {
        let number = self.shared.signal.load(Ordering::Acquire);
        (number != 0).then_some(128 + number)
    }

    /// Whether to stop.
    pub fn asked(&self) -> bool {
        self.exit_code().is_some()
    }

    /// An error when a stop was asked for.
    pub fn check(&self) -> Result<(), Failure> {
        if self.asked() { Err(Interrupted.into()) } else { Ok(()) }
    }
}
