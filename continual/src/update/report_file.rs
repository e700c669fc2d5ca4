//! The report of an update on disk.

use std::path::Path;
use std::time::Instant;

use inarch_core::file;
use inarch_recipes::peak_memory_bytes;

use super::run::UpdateReport;
use super::version::Versions;
use crate::error::Result;

const REPORT: &str = "report.json";

impl UpdateReport {
    /// Writes it among the files of the version that is to be published, whose name is not known yet.
    pub(super) fn write_into(&mut self, folder: &Path, started: Instant) -> Result<()> {
        self.close(started);
        Ok(file::write_json(&folder.join(REPORT), self)?)
    }

    /// Ends it and writes it beside the versions, where that of the last update lies, whether it published one or not.
    pub(super) fn keep(mut self, started: Instant, versions: &dyn Versions, output: &str) -> Result<Self> {
        self.close(started);
        let work = versions.work(output)?;
        file::write_json(&work.with_file_name(REPORT), &self)?;
        Ok(self)
    }

    fn close(&mut self, started: Instant) {
        self.seconds = started.elapsed().as_secs_f64();
        self.head.peak_memory_bytes = peak_memory_bytes();
    }
}
