//! CPU capabilities.

use serde::{Deserialize, Serialize};

use crate::proto::rpc::Criu_opts;

use super::images::{ImageDirectory, Log};

/// What of the CPU is recorded at dump and compared at restore: `--cpu-cap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CpuCapabilities {
    /// Nothing.
    None,
    /// The floating-point unit.
    Fpu,
    /// All CPU features.
    Cpu,
    /// Instructions that matter to programs. The option's word; records of before have the whole one.
    #[serde(rename = "ins", alias = "instructions")]
    Instructions,
    /// All of these.
    All,
}

impl CpuCapabilities {
    /// The bits of CRIU's `cpu_cap`. Where the field is sent at all CRIU adds "image" (8) by itself.
    const fn bits(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Fpu => 1,
            Self::Cpu => 2,
            Self::Instructions => 4,
            Self::All => 7,
        }
    }

    pub(super) fn write(self, opts: &mut Criu_opts) {
        opts.set_cpu_cap(self.bits());
    }
}

/// Options of "write the CPU's features to cpuinfo.img" and "compare them with cpuinfo.img".
#[derive(Debug)]
pub struct CpuInfoOptions {
    /// What is compared; `None`: CRIU's default, floating point and instructions.
    pub capabilities: Option<CpuCapabilities>,
    /// CRIU's log.
    pub log: Log,
}

impl CpuInfoOptions {
    pub(crate) fn to_proto(&self, directory: &ImageDirectory) -> crate::Result<Criu_opts> {
        let Self { capabilities, log } = self;
        log.check()?;
        let mut opts = Criu_opts::new();
        directory.write(&mut opts);
        log.write(&mut opts);
        if let Some(capabilities) = capabilities {
            capabilities.write(&mut opts);
        }
        Ok(opts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_options_words_and_older_ones_are_read() {
        let written = |capabilities| serde_json::to_string(&capabilities).unwrap();
        use CpuCapabilities::{All, Cpu, Fpu, Instructions, None};
        assert_eq!([None, Fpu, Cpu, Instructions, All].map(written).join(" "), r#""none" "fpu" "cpu" "ins" "all""#);
        for old in [r#""ins""#, r#""instructions""#] {
            assert_eq!(serde_json::from_str::<CpuCapabilities>(old).unwrap(), Instructions);
        }
    }
}
