//! What there is on the two hosts, and what an operation does to it.

use crr::migrate::machine::{SourceOperation, TargetOperation};

/// A host: its place in every array here.
pub(crate) type Host = usize;
/// A migration: 0 from host 0 to host 1, 1 back.
pub(crate) type Id = usize;

/// A copy of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Life {
    Absent,
    Runs,
    /// In the cgroup of this migration.
    Frozen(Id),
    /// By CRIU alone, at `post-restore` or `pre-resume`: whoever kills CRIU or its client lets it run.
    Held(Id),
    /// It runs behind the fence of this migration because CRIU or crr died: the documented window.
    Loose(Id),
}

/// Both hosts. The arrays of arrays are by host, then migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) copies: [Life; 2],
    pub(crate) address: [bool; 2],
    pub(crate) fence: [[bool; 2]; 2],
    /// CRIU's network lock, the drop for new connections and sockets in repair mode.
    pub(crate) lock: [[bool; 2]; 2],
    pub(crate) images: [[bool; 2]; 2],
    pub(crate) guard: [[bool; 2]; 2],
}

/// What became of an operation for a reason in the world: no fault is needed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Failed,
    /// It goes on, until the other side has done its part.
    Waits,
}

impl World {
    pub(crate) const START: Self = Self {
        copies: [Life::Runs, Life::Absent],
        address: [true, false],
        fence: [[false; 2]; 2],
        lock: [[false; 2]; 2],
        images: [[false; 2]; 2],
        guard: [[false; 2]; 2],
    };

    pub(crate) fn running(&self) -> usize {
        self.copies.iter().filter(|life| **life == Life::Runs).count()
    }

    /// Exactly one copy runs, has the address, and nothing is left of any migration.
    pub(crate) fn is_clean(&self) -> bool {
        let home = self.copies.iter().position(|life| *life == Life::Runs);
        home.is_some_and(|home| self.copies[1 - home] == Life::Absent && self.address[home] && !self.address[1 - home])
            && self.is_without_leftovers()
    }

    pub(crate) fn is_without_leftovers(&self) -> bool {
        let left = [self.fence, self.lock, self.images, self.guard];
        let frozen = |life: &Life| !matches!(life, Life::Absent | Life::Runs);
        left.iter().flatten().flatten().all(|there| !there) && !self.copies.iter().any(frozen)
    }

    /// What must hold always, whoever has died.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.running() > 1 {
            return Err("two copies run");
        }
        for host in 0..2 {
            let fenced = self.fence[host].contains(&true);
            match self.copies[host] {
                Life::Runs if fenced => return Err("a copy runs behind a fence"),
                Life::Runs if !self.address[host] => return Err("a copy runs without its address"),
                Life::Runs if self.lock[host].contains(&true) => {
                    return Err("a copy runs with its sockets in repair mode");
                }
                Life::Loose(id) | Life::Held(id) if !self.fence[host][id] => {
                    return Err("a copy that may run is not behind its fence");
                }
                _ => {}
            }
        }
        let open = |host: Host| self.address[host] && !self.fence[host].contains(&true);
        if open(0) && open(1) {
            return Err("both hosts have the address, and no fence");
        }
        Ok(())
    }

    pub(crate) fn source(&mut self, id: Id, operation: SourceOperation) -> Outcome {
        use SourceOperation as Op;
        let here = id;
        let frozen = self.copies[here] == Life::Frozen(id);
        match operation {
            Op::Examine if self.copies[here] != Life::Runs => return Outcome::Failed,
            Op::Examine | Op::Deliver => {}
            Op::Dump => {
                if self.copies[here] != Life::Runs {
                    return Outcome::Failed;
                }
                self.copies[here] = Life::Frozen(id);
                self.lock[here][id] = true;
            }
            Op::Withdraw => self.address[here] = false,
            Op::ReturnAddress => self.address[here] = true,
            Op::PutRight => self.lock[here][id] = false,
            Op::Thaw if frozen => self.copies[here] = Life::Runs,
            Op::Thaw => {}
            Op::End => {
                if frozen {
                    self.copies[here] = Life::Absent;
                }
                self.lock[here][id] = false;
            }
        }
        Outcome::Done
    }

    /// `busy`: another migration has a record here that concerns the tree.
    pub(crate) fn target(&mut self, id: Id, operation: TargetOperation, busy: bool) -> Result<Outcome, &'static str> {
        use TargetOperation as Op;
        let here = 1 - id;
        let copy = self.copies[here];
        match operation {
            Op::Check if copy != Life::Absent || busy => return Ok(Outcome::Failed),
            Op::Check | Op::Receive | Op::Announce => {}
            Op::Fence => self.fence[here][id] = true,
            Op::RaiseAddress => self.address[here] = true,
            Op::Restore => {
                if copy != Life::Absent {
                    return Err("a restore where there is a copy");
                }
                if !self.images[here][id] {
                    return Err("a restore without images");
                }
                self.guard[here][id] = true;
                self.copies[here] = Life::Held(id);
            }
            Op::Freeze if copy != Life::Held(id) => return Ok(Outcome::Failed),
            Op::Freeze => self.copies[here] = Life::Frozen(id),
            Op::DismissGuard => self.guard[here][id] = false,
            Op::FindCopy if copy != Life::Frozen(id) => return Ok(Outcome::Failed),
            Op::FindCopy => {}
            Op::Unfence => self.fence[here][id] = false,
            Op::Answer if self.fence[here][id] => return Err("CRIU is answered before the fence is down"),
            Op::Answer => {}
            Op::Thaw if copy == Life::Frozen(id) => self.copies[here] = Life::Runs,
            Op::Thaw => {}
            Op::Destroy => {
                if matches!(copy, Life::Frozen(of) | Life::Held(of) | Life::Loose(of) if of == id) {
                    self.copies[here] = Life::Absent;
                }
                self.guard[here][id] = false;
            }
            Op::DropAddress => self.address[here] = false,
            Op::Discard => self.images[here][id] = false,
        }
        Ok(Outcome::Done)
    }

    /// CRIU or its client is gone on a migration's target.
    pub(crate) fn let_go(&mut self, id: Id) {
        if self.copies[1 - id] == Life::Held(id) {
            self.copies[1 - id] = Life::Loose(id);
        }
    }
}
