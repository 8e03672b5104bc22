//! Work that can wait stands back behind whoever computes or answers.

/// How far; 19 is the most, and it would never get a turn on a busy machine.
const NICE: i32 = 10;

/// The calling thread stands back from now on. It cannot come forward again.
pub fn stand_back() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "work that can wait runs at the priority of everything else");
    }
}
