//! Whether a container runs, from what the host says of it.

use super::{Init, Runtime};

/// What has been read of the host about one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The start time of the process that has the first process's PID, if there is one that is neither a zombie nor dead.
    pub started: Option<u64>,
    /// Whether the state directory holds `exec.fifo`: the process waits for `start`.
    pub exec_fifo: bool,
    /// Whether the container's cgroup is frozen (`FROZEN` in v1's freezer.state, `frozen 1` in v2's cgroup.events).
    pub frozen: bool,
}

/// What a container is doing, in the runtime's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Phase {
    Created,
    Running,
    Paused,
    Stopped,
}

impl Phase {
    /// What `runtime` itself calls it, by the same questions in the same order (libcontainer's `refreshState`, crun's
    /// `libcrun_container_state`).
    pub fn of(runtime: Runtime, init: Init, facts: Facts) -> Self {
        let alive = init.pid > 0 && facts.started == Some(init.start);
        match runtime {
            Runtime::Runc if facts.frozen => Self::Paused,
            _ if !alive => Self::Stopped,
            _ if facts.exec_fifo => Self::Created,
            _ if facts.frozen => Self::Paused,
            _ => Self::Running,
        }
    }

    /// The runtime's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_what_its_runtime_calls_it() {
        let init = Init { pid: 7, start: 42 };
        let started = Some(42);
        let facts = |started, exec_fifo, frozen| Facts { started, exec_fifo, frozen };
        for (facts, runc, crun) in [
            (facts(started, false, false), Phase::Running, Phase::Running),
            (facts(started, true, false), Phase::Created, Phase::Created),
            (facts(started, false, true), Phase::Paused, Phase::Paused),
            (facts(started, true, true), Phase::Paused, Phase::Created),
            (facts(None, false, false), Phase::Stopped, Phase::Stopped),
            // The PID is another's meanwhile.
            (facts(Some(43), false, false), Phase::Stopped, Phase::Stopped),
            (facts(None, true, false), Phase::Stopped, Phase::Stopped),
            (facts(None, false, true), Phase::Paused, Phase::Stopped),
        ] {
            assert_eq!(Phase::of(Runtime::Runc, init, facts), runc, "{facts:?}");
            assert_eq!(Phase::of(Runtime::Crun, init, facts), crun, "{facts:?}");
        }
        // A container that never had a process.
        let none = Init { pid: 0, start: 0 };
        assert_eq!(Phase::of(Runtime::Runc, none, facts(Some(0), false, false)), Phase::Stopped);
    }
}
