//! `gitlab_runner_errors_total`: what the log says at warning and above.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::families::Families;

static WARNINGS: AtomicU64 = AtomicU64::new(0);
static ERRORS: AtomicU64 = AtomicU64::new(0);

/// Hears of every event that is logged. There is one log for each process, and so one count.
pub struct Count;

impl<S: Subscriber> Layer<S> for Count {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        match *event.metadata().level() {
            Level::ERROR => ERRORS.fetch_add(1, Ordering::Relaxed),
            Level::WARN => WARNINGS.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

pub fn count_into(families: &Families) {
    families.errors.reset();
    for (level, count) in [
        ("warning", WARNINGS.load(Ordering::Relaxed)),
        ("error", ERRORS.load(Ordering::Relaxed)),
        // Levels that only GitLab's runner has.
        ("fatal", 0),
        ("panic", 0),
    ] {
        families.errors.with_label_values(&[level]).inc_by(count);
    }
}
