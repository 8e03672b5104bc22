//! A thread that the engine cannot do without takes the process with it when it panics: the others would wait for it for ever, and what
//! a start finds is all that is needed to go on. Threads that answer requests, and those of tests, unwind as ever.

use std::sync::Once;

/// Workers, and those who carry bytes between processes.
const TIMELY: &str = "timely:";
/// What timely says when a connection breaks.
const LOST: &str = "timely communication error:";
/// The others whose work nobody else can do.
const VITAL: [&str; 6] = ["feed", "collector", "writer", "keeper", "epoch-log", "watch"];

/// From now on for this process.
pub fn arm() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let what = panic.payload_as_str().unwrap_or("it did not say why");
            let current = std::thread::current();
            let vital = current.name().filter(|name| is_vital(name));
            if vital.is_some() && what.starts_with(LOST) {
                tracing::error!(what, "the connection to another process is lost: this one ends too, to be started again");
                std::process::abort(); // at once: where in timely this was noticed helps nobody
            }
            before(panic);
            if let Some(thread) = vital {
                tracing::error!(thread, what, "a thread of the engine panicked: the process ends, to be started again");
                std::process::abort();
            }
        }));
    });
}

fn is_vital(thread: &str) -> bool {
    thread.starts_with(TIMELY) || VITAL.contains(&thread)
}

#[cfg(test)]
mod tests {
    use super::is_vital;

    #[test]
    fn workers_and_those_around_them_are_vital_and_requests_are_not() {
        assert!(["timely:work-0", "timely:recv-1", "feed", "epoch-log"].into_iter().all(is_vital));
        assert!(!["main", "shim", "feed::tests::a_test", "tokio-runtime-worker"].into_iter().any(is_vital));
    }
}
