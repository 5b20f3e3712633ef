//! Blocks of IPv4 addresses.

use std::fmt;
use std::net::Ipv4Addr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    first: u32,
    bits: u32,
}

impl Cidr {
    /// `10.0.0.0/8`; none for anything else, IPv6 too.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address: Ipv4Addr = address.parse().ok()?;
        let bits = bits.parse().ok().filter(|bits| *bits <= 32)?;
        Some(Self { first: u32::from(address) & mask(bits), bits })
    }

    pub fn contains(self, other: Self) -> bool {
        self.bits <= other.bits && other.first & mask(self.bits) == self.first
    }

    /// The narrower of two that contain something has more.
    pub fn bits(self) -> u32 {
        self.bits
    }
}

/// With the first address of the block.
impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.bits)
    }
}

fn mask(bits: u32) -> u32 {
    u32::MAX.checked_shl(32 - bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_contains_what_begins_like_it() {
        let contains = |outer: &str, inner: &str| {
            let cidr = |text: &str| Cidr::parse(text).expect("a block");
            cidr(outer).contains(cidr(inner))
        };
        for (outer, inner) in [
            ("0.0.0.0/0", "10.1.2.0/24"),
            ("10.0.0.0/8", "10.1.2.0/24"),
            ("10.1.2.0/24", "10.1.2.0/24"),
            ("10.1.2.99/24", "10.1.2.3/32"),
        ] {
            assert!(contains(outer, inner), "{outer} {inner}");
        }
        for (outer, inner) in
            [("10.1.2.0/24", "10.1.0.0/16"), ("10.1.2.0/24", "10.1.3.0/24"), ("10.0.0.0/8", "0.0.0.0/0")]
        {
            assert!(!contains(outer, inner), "{outer} {inner}");
        }
        assert_eq!(Cidr::parse("10.1.2.99/24").map(|cidr| cidr.to_string()).as_deref(), Some("10.1.2.0/24"));
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/0", "pl-1"] {
            assert_eq!(Cidr::parse(text), None, "{text}");
        }
    }
}
