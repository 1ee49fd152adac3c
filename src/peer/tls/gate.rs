//! How many connections may wait to be authenticated.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts the connections that have not shown yet who they are: so many in all, so many of one address. A network of IPv6
/// that one customer gets (/64) is one address.
#[derive(Clone, Debug)]
pub struct Gate {
    waiting: Arc<Mutex<HashMap<IpAddr, u32>>>,
    all: u32,
    each: u32,
}

/// One connection's place at the [`Gate`]: to be dropped once it is authenticated, or gone.
#[derive(Debug)]
pub struct Pass {
    gate: Gate,
    from: IpAddr,
}

impl Gate {
    /// Lets `all` wait, `each` of one address.
    pub fn new(all: u32, each: u32) -> Self {
        Self { waiting: Arc::default(), all, each }
    }

    /// A place for a connection from there; without one it is to be closed at once.
    pub fn enter(&self, from: IpAddr) -> Option<Pass> {
        let from = neighbourhood(from);
        let mut waiting = self.waiting();
        let all: u32 = waiting.values().sum();
        let of_it = waiting.get(&from).copied().unwrap_or(0);
        if all >= self.all || of_it >= self.each {
            return None;
        }
        waiting.insert(from, of_it + 1);
        drop(waiting);
        Some(Pass { gate: self.clone(), from })
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Gate {
    /// 64 in all, 8 of one address: each takes up to 100 KiB until its handshake is through.
    fn default() -> Self {
        Self::new(64, 8)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut waiting = self.gate.waiting();
        match waiting.get_mut(&self.from) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(waiting.remove(&self.from)),
        }
    }
}

fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_cannot_keep_the_others_out() {
        let gate = Gate::new(5, 3);
        let one: Vec<_> = (0..3).map(|_| gate.enter(address("10.0.0.1")).expect("a place")).collect();
        assert!(gate.enter(address("10.0.0.1")).is_none());
        assert!(gate.enter(address("::ffff:10.0.0.1")).is_none(), "the same, as a socket for both families has it");
        let two = gate.enter(address("10.0.0.2")).expect("a place");
        drop(one);
        assert!(gate.enter(address("10.0.0.1")).is_some());
        drop(two);
        assert!(gate.waiting().is_empty());
    }

    #[test]
    fn there_is_a_limit_for_all() {
        let gate = Gate::new(2, 2);
        let first = gate.enter(address("10.0.0.1"));
        let second = gate.enter(address("10.0.0.2"));
        assert!(first.is_some() && second.is_some() && gate.enter(address("10.0.0.3")).is_none());
        drop(first);
        assert!(gate.enter(address("10.0.0.3")).is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let gate = Gate::new(9, 1);
        let _one = gate.enter(address("2001:db8::1")).expect("a place");
        assert!(gate.enter(address("2001:db8::ffff:1")).is_none());
        assert!(gate.enter(address("2001:db8:0:1::1")).is_some());
    }
}
