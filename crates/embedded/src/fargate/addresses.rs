//! A loopback address for each task: 127.x.y.z, so that every task has its own port 22.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// The addresses of one server: a block 127.x.0.0/16 that no other server on this machine uses.
#[derive(Debug)]
pub(super) struct Addresses {
    /// Bound on the block's first address as long as the server lives: that is what makes the block ours.
    _claim: TcpListener,
    block: u8,
    port: u16,
    last: u16,
    used: HashSet<Ipv4Addr>,
}

impl Addresses {
    /// Takes a free block. Tasks listen on port 22 if this process may bind it and no server of the machine has it.
    pub(super) fn claim() -> io::Result<Addresses> {
        let start: u8 = rand::random();
        // 127.0.x.x belongs to localhost and resolvers.
        for block in (0..=u8::MAX).map(|step| start.wrapping_add(step)).filter(|block| *block != 0) {
            let Ok(claim) = TcpListener::bind((Ipv4Addr::new(127, block, 0, 1), 2222)) else { continue };
            let port = if free(Ipv4Addr::new(127, block, 0, 1), 22) { 22 } else { 2222 };
            return Ok(Addresses { _claim: claim, block, port, last: 1, used: HashSet::new() });
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "every loopback block has port 2222 in use"))
    }

    /// The port of every task's SSH server.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// An address that no living task has. The last ones given are the last ones given again.
    pub(super) fn take(&mut self) -> Option<Ipv4Addr> {
        for _ in 0..u16::MAX {
            self.last = self.last.checked_add(1).unwrap_or(2);
            let [high, low] = self.last.to_be_bytes();
            let address = Ipv4Addr::new(127, self.block, high, low);
            if !self.used.contains(&address) && free(address, self.port) {
                self.used.insert(address);
                return Some(address);
            }
        }
        None
    }

    pub(super) fn give_back(&mut self, address: Ipv4Addr) {
        self.used.remove(&address);
    }
}

fn free(address: Ipv4Addr, port: u16) -> bool {
    TcpListener::bind((address, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_servers_never_share_an_address() {
        let (mut one, mut two) = (Addresses::claim().unwrap(), Addresses::claim().unwrap());
        let first: HashSet<_> = (0..300).map(|_| one.take().unwrap()).collect();
        assert_eq!(first.len(), 300);
        assert!((0..300).all(|_| !first.contains(&two.take().unwrap())));
    }

    #[test]
    fn an_address_in_use_by_somebody_else_is_passed_over() {
        let mut addresses = Addresses::claim().unwrap();
        let taken = Ipv4Addr::new(127, addresses.block, 0, 2);
        let _listener = TcpListener::bind((taken, addresses.port())).unwrap();
        assert_ne!(addresses.take(), Some(taken));
    }
}
