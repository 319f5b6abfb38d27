//! Ctrl-C: the first asks a run to end with what it has, the second ends the process.

use std::sync::{
    Once,
    atomic::{AtomicBool, Ordering},
};

static ASKED: AtomicBool = AtomicBool::new(false);
static LISTENS: Once = Once::new();

/// The code that shells give for a process that Ctrl-C ended.
pub(crate) const INTERRUPTED: i32 = 130;

/// From now on the first Ctrl-C is noted, see [`asked`].
pub(crate) fn listen() {
    LISTENS.call_once(|| {
        std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                if tokio::signal::ctrl_c().await.is_err() {
                    return;
                }
                ASKED.store(true, Ordering::Relaxed);
                eprintln!("interrupted: ending with what was measured; once more to end at once");
                if tokio::signal::ctrl_c().await.is_ok() {
                    std::process::exit(INTERRUPTED);
                }
            });
        });
    });
}

/// Whether the run is asked to end.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
