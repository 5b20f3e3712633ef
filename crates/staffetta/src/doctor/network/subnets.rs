//! The subnets of the tasks: there, in one VPC, and with room.

use aws::inspect::Subnet;

use crate::doctor::Finding;

pub const SUBNETS: &str = "subnets";
const ADDRESSES: &str = "subnet-addresses";

/// `wanted` are the ids of the configuration, `found` those that exist.
pub fn check(wanted: &[String], found: &[Subnet], concurrent: usize, region: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let missing: Vec<_> =
        wanted.iter().filter(|id| !found.iter().any(|subnet| subnet.id == **id)).map(String::as_str).collect();
    if !missing.is_empty() {
        findings.push(Finding::bad(
            SUBNETS,
            format!("not there in {region}: {}", missing.join(", ")),
            "Jobs fail: RunTask is refused with InvalidSubnetID.NotFound.",
            format!(
                "Name subnets of this account in {region}: `aws ec2 describe-subnets --region {region}` lists them."
            ),
        ));
    }
    let vpcs: Vec<_> = found.iter().map(|subnet| format!("{} in {}", subnet.id, subnet.vpc)).collect();
    if found.iter().any(|subnet| subnet.vpc != found[0].vpc) {
        findings.push(Finding::bad(
            SUBNETS,
            format!("they are of different VPCs: {}", vpcs.join(", ")),
            "Jobs fail: RunTask takes subnets and security groups of one VPC only.",
            "Name subnets of one VPC.",
        ));
    }
    if let (Some(first), true) = (found.first(), findings.is_empty()) {
        let zones: Vec<_> = found.iter().map(|subnet| format!("{} ({})", subnet.id, subnet.zone)).collect();
        findings.push(Finding::good(SUBNETS, format!("{} in {}", zones.join(", "), first.vpc)));
    }
    findings.extend((!found.is_empty()).then(|| addresses(found, concurrent)));
    findings
}

/// A task has an address for its whole life, and for a while after it (facts 8: half as many again as jobs at once).
fn addresses(subnets: &[Subnet], concurrent: usize) -> Finding {
    let wanted = (concurrent as u64).saturating_mul(3).div_ceil(2);
    let free: u64 = subnets.iter().map(|subnet| subnet.free_addresses).sum();
    let each: Vec<_> = subnets.iter().map(|subnet| format!("{} {}", subnet.id, subnet.free_addresses)).collect();
    let evidence = format!("free: {}; {concurrent} jobs at once want {wanted}", each.join(", "));
    let full: Vec<_> =
        subnets.iter().filter(|subnet| subnet.free_addresses == 0).map(|subnet| subnet.id.as_str()).collect();
    let fix = "Add a subnet to `subnets`, or take out a full one; or let the runner have fewer jobs at once (`limit`).";
    if free == 0 {
        let breaks = "No task starts: \"InsufficientFreeAddressesInSubnet\".";
        return Finding::bad(ADDRESSES, evidence, breaks, fix);
    }
    if !full.is_empty() {
        let breaks = format!("Tasks that ECS puts into {} do not start.", full.join(", "));
        return Finding::warning(ADDRESSES, evidence, breaks, fix);
    }
    if free < wanted {
        let breaks = "When many jobs run, tasks do not start: \"InsufficientFreeAddressesInSubnet\".";
        return Finding::warning(ADDRESSES, evidence, breaks, fix);
    }
    Finding::good(ADDRESSES, evidence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict::{Bad, Good, Warning};

    fn subnet(id: &str, vpc: &str, free_addresses: u64) -> Subnet {
        Subnet { id: id.into(), vpc: vpc.into(), free_addresses, ..Subnet::default() }
    }

    #[test]
    fn subnets_are_there_in_one_vpc_with_room() {
        let [first, second] = ["subnet-1", "subnet-2"].map(str::to_owned);
        let both = [first.clone(), second];
        for (wanted, found, verdicts, words) in [
            (
                &both[..],
                vec![subnet("subnet-1", "vpc-1", 8), subnet("subnet-2", "vpc-1", 7)],
                vec![Good, Good],
                "want 15",
            ),
            (&both[..], vec![subnet("subnet-1", "vpc-1", 20)], vec![Bad, Good], "not there in eu-west-1: subnet-2"),
            (&both[..], vec![], vec![Bad], "subnet-1, subnet-2"),
            (
                &both[..],
                vec![subnet("subnet-1", "vpc-1", 8), subnet("subnet-2", "vpc-2", 8)],
                vec![Bad, Good],
                "subnet-1 in vpc-1, subnet-2 in vpc-2",
            ),
            (&both[..1], vec![subnet("subnet-1", "vpc-1", 14)], vec![Good, Warning], "free: subnet-1 14"),
            (
                &both[..],
                vec![subnet("subnet-1", "vpc-1", 99), subnet("subnet-2", "vpc-1", 0)],
                vec![Good, Warning],
                "subnet-2 0",
            ),
            (&both[..1], vec![subnet("subnet-1", "vpc-1", 0)], vec![Good, Bad], "subnet-1 0"),
        ] {
            let findings = check(wanted, &found, 10, "eu-west-1");
            assert_eq!(findings.iter().map(|finding| finding.verdict).collect::<Vec<_>>(), verdicts, "{findings:?}");
            assert!(findings.iter().any(|finding| finding.evidence.contains(words)), "{findings:?}");
        }
    }
}
