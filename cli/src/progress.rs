//! Progress bars on stderr, when it is a terminal; otherwise only the lines worth keeping.

use std::sync::atomic::AtomicBool;
use std::sync::{LazyLock, Mutex};

use inarch_recipes::{Control, FeatureStore, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Set by Ctrl-C; every long run looks at it between steps.
static STOP: AtomicBool = AtomicBool::new(false);

static HANDLER: LazyLock<()> = LazyLock::new(|| {
    let installed = ctrlc::set_handler(|| {
        // The second time the user means it.
        if STOP.swap(true, std::sync::atomic::Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
    // Without a handler Ctrl-C ends the process at once, and the last saved state is what remains.
    let _ = installed;
});

/// What Ctrl-C and a termination signal set.
pub(crate) fn stop_signal() -> &'static AtomicBool {
    LazyLock::force(&HANDLER);
    &STOP
}

/// The bar of the current stage, and where runs keep frozen work.
pub(crate) struct Bars {
    bar: Mutex<Option<ProgressBar>>,
    store: Option<FeatureStore>,
}

impl Bars {
    pub(crate) fn new(store: Option<FeatureStore>) -> Self {
        Self { bar: Mutex::new(None), store }
    }

    /// What runs are given to report to and to be stopped by.
    pub(crate) fn control(&self) -> Control<'_> {
        Control { progress: self, stop: stop_signal(), store: self.store.as_ref() }
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&self) {
        if let Some(bar) = self.current().take() {
            bar.finish_and_clear();
        }
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Progress for Bars {
    fn start(&self, stage: &str, total: u64) {
        // `stderr` draws nothing when it is not a terminal.
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{prefix:<9} {bar:30} {pos}/{len}  {eta} left  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(stage.to_string());
        *self.current() = Some(bar);
    }

    fn advance(&self, units: u64, note: &str) {
        if let Some(bar) = self.current().as_ref() {
            bar.inc(units);
            if !note.is_empty() {
                bar.set_message(note.to_string());
            }
        }
    }

    fn resume(&self, units: u64) {
        if let Some(bar) = self.current().as_ref() {
            bar.inc(units);
            // The time left is told by the units that follow: these took none.
            bar.tick();
            bar.reset_eta();
        }
    }

    #[expect(clippy::print_stderr, reason = "messages go to stderr")]
    fn say(&self, line: &str) {
        match self.current().as_ref() {
            Some(bar) if !bar.is_hidden() => bar.suspend(|| eprintln!("{line}")),
            _ => eprintln!("{line}"),
        }
    }

    fn finish(&self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Bars, Progress};

    #[test]
    fn what_was_done_before_does_not_shorten_the_time_left() {
        let bars = Bars::new(None);
        bars.start("compare", 100);
        bars.resume(50);
        std::thread::sleep(Duration::from_millis(30));
        bars.advance(1, "");
        let (done, left) = bars.current().as_ref().map(|bar| (bar.position(), bar.eta())).expect("a stage");
        assert_eq!(done, 51);
        // 49 units at 30 ms or more each; were the first 50 counted, it would be 30 ms in all.
        assert!(left > Duration::from_millis(700), "{left:?}");
    }
}
