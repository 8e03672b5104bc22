//! What a person or a machine tells a process by signals.

use crossbeam_channel::{Receiver, unbounded};
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Every Ctrl-C and SIGTERM from now on; neither ends the process by itself any more.
pub fn hear() -> Result<Receiver<Signal>, String> {
    let (tell, heard) = unbounded();
    on_each(move |signal| tell.send(signal).unwrap_or_default())?;
    Ok(heard)
}

/// Becomes true at the first Ctrl-C or SIGTERM; the second one ends the process.
pub fn stop() -> Result<Arc<AtomicBool>, String> {
    let asked = Arc::new(AtomicBool::new(false));
    let told = asked.clone();
    on_each(move |_| {
        if told.swap(true, Ordering::AcqRel) {
            end_at_once(130);
        }
    })?;
    Ok(asked)
}

/// Ends this process and cleans nothing away. For whoever asks twice: nothing is lost, because the log has it. And for one in which
/// a library still computes: what it works on would be taken from it.
pub fn end_at_once(code: u8) -> ! {
    // SAFETY: it does not return, and no code of ours or of a library runs after it
    unsafe { libc::_exit(i32::from(code)) }
}

/// When this returns, no signal is missed.
fn on_each(mut told: impl FnMut(Signal) + Send + 'static) -> Result<(), String> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e: std::io::Error| format!("signals cannot be heard: {e}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let inside = runtime.enter();
    let mut interrupts = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terms = signal(SignalKind::terminate()).map_err(failed)?;
    drop(inside);
    let hear = move || {
        runtime.block_on(async {
            loop {
                told(tokio::select! {
                    _ = interrupts.recv() => Signal::INT,
                    _ = terms.recv() => Signal::TERM,
                });
            }
        })
    };
    std::thread::Builder::new().name("signals".into()).spawn(hear).map_err(failed).map(drop)
}
