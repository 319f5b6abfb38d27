//! On what and with what a result was measured.

use super::memory;
use procfs::Current;
use serde::{Deserialize, Serialize};

/// The machine of a result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The processor, as it names itself.
    pub(crate) cpu: String,
    /// Processors that this process may use.
    pub(crate) cores: u64,
    /// Bytes of memory.
    pub(crate) memory_bytes: u64,
    /// Bytes of memory that were free for use when the run began.
    pub(crate) available_bytes: u64,
    /// Version of the kernel.
    pub(crate) kernel: String,
    /// Load of the last minute when the run began: above zero somebody else was computing.
    pub(crate) load: f32,
}

impl Machine {
    /// This one, now.
    pub(crate) fn this() -> Machine {
        let cpu = procfs::CpuInfo::current().ok();
        let cpu = cpu.and_then(|it| it.model_name(0).map(str::to_owned));
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease");
        Machine {
            cpu: cpu.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, |it| it.get() as u64),
            memory_bytes: memory::total().unwrap_or(0),
            available_bytes: memory::available().unwrap_or(0),
            kernel: kernel.unwrap_or_default().trim().to_owned(),
            load: procfs::LoadAverage::current().map_or(0.0, |it| it.one),
        }
    }
}

/// The versions of a result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Versions {
    /// Of the harness and all that it links.
    pub(crate) tepui: String,
    /// The commit, where it was built from a repository.
    pub(crate) commit: String,
    /// `release` or `debug`.
    pub(crate) profile: String,
}

impl Versions {
    /// This build's.
    pub(crate) fn this() -> Versions {
        let profile = if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        };
        Versions {
            tepui: env!("CARGO_PKG_VERSION").to_owned(),
            commit: option_env!("TEPUI_COMMIT").unwrap_or("").to_owned(),
            profile: profile.to_owned(),
        }
    }
}
