//! What a deployment costs: each month though no job runs, and for each minute of a job. Tasks are counted from list prices;
//! taxes, discounts and what depends on use are not.

use std::fmt;

use aws::stack::{Architecture, Deployment, Environment, ManagerOf, RunnerToken};
use serde::Serialize;

use super::regions::{self, PRICES_OF, Rate};

/// AWS counts a month as so many hours.
const HOURS: f64 = 730.0;
/// A public IPv4 address for an hour; a secret for a month; a GB of a task's disk beyond the first 20 for an hour
/// (AWS's price lists of September 2026; facts 7).
const ADDRESS: f64 = 0.005;
const SECRET: f64 = 0.40;
const DISK: f64 = 0.000_111;
/// ARM64 is sold for about four fifths of x86-64.
const ARM: f64 = 0.8;

#[derive(Debug, PartialEq, Serialize)]
pub struct Costs {
    /// Of what month the prices are.
    pub prices_of: &'static str,
    /// Dollars a month, whether jobs run or not.
    pub monthly: Vec<Fixed>,
    pub monthly_total: f64,
    /// Dollars for a minute of one job.
    pub job_minutes: Vec<JobMinute>,
    /// Regions whose prices are not known: what is there is not counted.
    pub unknown_regions: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Fixed {
    pub what: String,
    pub dollars: f64,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct JobMinute {
    pub environment: String,
    /// None where the environment has no such capacity.
    pub fargate: Option<f64>,
    pub fargate_spot: Option<f64>,
}

impl Costs {
    pub fn of(deployment: &Deployment) -> Self {
        let mut costs = Self {
            prices_of: PRICES_OF,
            monthly: Vec::new(),
            monthly_total: 0.0,
            job_minutes: Vec::new(),
            unknown_regions: Vec::new(),
        };
        for manager in deployment.managers() {
            costs.manager(deployment, manager);
        }
        for environment in &deployment.environments {
            costs.job(environment);
        }
        costs
    }

    fn add(&mut self, what: String, dollars: f64) {
        self.monthly_total += dollars;
        self.monthly.push(Fixed { what, dollars });
    }

    fn manager(&mut self, deployment: &Deployment, manager: ManagerOf) {
        let (service, place) = (&deployment.service, manager.place());
        let name = deployment.manager_name(manager);
        match regions::on_demand(&place.region) {
            Some(rate) => {
                let hour = task(rate, service.cpu, service.memory, service.architecture);
                let size = size(service.cpu, service.memory);
                self.add(format!("{name}: a task with {size}"), hour * HOURS);
            }
            None => self.unknown(&place.region),
        }
        if place.assign_public_ip {
            self.add(format!("{name}: its public address"), ADDRESS * HOURS);
        }
        let environments = deployment.environments_of(manager);
        let made = environments.iter().filter(|environment| environment.runner_token == RunnerToken::Made);
        for environment in made {
            let secret = deployment.token_secret(environment);
            self.add(format!("{name}: the secret {secret}"), SECRET);
        }
    }

    fn job(&mut self, environment: &Environment) {
        let Environment { name, place, cpu, memory, architecture, .. } = environment;
        let disk = f64::from(environment.ephemeral_storage_gib.unwrap_or(20).saturating_sub(20)) * DISK;
        let address = if place.assign_public_ip { ADDRESS } else { 0.0 };
        let has = |provider: &str| environment.capacity_providers.iter().any(|known| known.name == provider);
        let minute = |rate: Rate| (task(rate, *cpu, *memory, *architecture) + disk + address) / 60.0;
        let mut price = |provider: &str, rate: Option<Rate>| {
            if !has(provider) {
                return None;
            }
            if rate.is_none() {
                self.unknown(&place.region);
            }
            rate.map(minute)
        };
        let fargate = price("FARGATE", regions::on_demand(&place.region));
        let fargate_spot = price("FARGATE_SPOT", regions::spot(&place.region));
        self.job_minutes.push(JobMinute { environment: name.clone(), fargate, fargate_spot });
    }

    fn unknown(&mut self, region: &str) {
        if !self.unknown_regions.iter().any(|known| known == region) {
            self.unknown_regions.push(region.to_owned());
        }
    }
}

/// Dollars for an hour.
fn task(rate: Rate, cpu: u32, memory: u32, architecture: Architecture) -> f64 {
    let x86 = f64::from(cpu) / 1024.0 * rate.vcpu + f64::from(memory) / 1024.0 * rate.gb;
    match architecture {
        Architecture::X86_64 => x86,
        Architecture::Arm64 => x86 * ARM,
    }
}

fn size(cpu: u32, memory: u32) -> String {
    format!("{} vCPU and {} GB", f64::from(cpu) / 1024.0, f64::from(memory) / 1024.0)
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Cost without any job, in US dollars a month (prices of {}):", self.prices_of)?;
        let width = self.monthly.iter().map(|fixed| fixed.what.len()).max().unwrap_or(0).max("total".len());
        for Fixed { what, dollars } in &self.monthly {
            writeln!(f, "  {what:width$}  {dollars:8.2}")?;
        }
        writeln!(f, "  {:width$}  {:8.2}", "total", self.monthly_total)?;
        writeln!(f, "A minute of a job:")?;
        for JobMinute { environment, fargate, fargate_spot } in &self.job_minutes {
            let dollars = |price: &Option<f64>| price.map(|dollars| format!("{dollars:.5}"));
            let prices: Vec<_> = [(dollars(fargate), "FARGATE"), (dollars(fargate_spot), "FARGATE_SPOT, which varies")]
                .into_iter()
                .filter_map(|(dollars, name)| dollars.map(|dollars| format!("{dollars} on {name}")))
                .collect();
            let prices = if prices.is_empty() { "not known".to_owned() } else { prices.join(", ") };
            writeln!(f, "  {environment}: {prices}")?;
        }
        if !self.unknown_regions.is_empty() {
            let regions = self.unknown_regions.join(", ");
            writeln!(f, "Prices in {regions} are not known here: what runs there is not counted.")?;
        }
        write!(f, "Not counted: NAT gateways and endpoints of the VPC, traffic, logs, images, caches.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::file;

    #[test]
    fn a_month_and_a_minute_are_the_sums_of_list_prices() {
        let text = "assign_public_ip = true\ncpu = 2048\nmemory = 4096\nephemeral_storage_gib = 30\n\
                    capacity_providers = [{ name = \"FARGATE\" }, { name = \"FARGATE_SPOT\" }]\n";
        let costs = Costs::of(&file::tests::dev(text).deployment);
        // 730 h of 0.25 vCPU and 0.5 GB, an address, a secret.
        let expected = 730.0 * (0.25 * 0.04048 + 0.5 * 0.004445) + 730.0 * 0.005 + 0.4;
        assert!((costs.monthly_total - expected).abs() < 1e-9, "{costs}");
        let minute = costs.job_minutes[0].fargate.expect("a price");
        let expected = (2.0 * 0.04048 + 4.0 * 0.004445 + 10.0 * 0.000_111 + 0.005) / 60.0;
        assert!((minute - expected).abs() < 1e-9, "{costs}");
        assert!(costs.job_minutes[0].fargate_spot.expect("a price") < minute / 2.0);
    }

    #[test]
    fn what_plan_shows_of_it() {
        let costs: Vec<_> = file::tests::every_mode()
            .iter()
            .map(|text| Costs::of(&file::tests::usable(text).deployment).to_string())
            .collect();
        insta::assert_snapshot!(costs.join("\n\n"));
    }

    #[test]
    fn a_region_without_known_prices_is_named_and_arm_is_cheaper() {
        let costs = Costs::of(&file::tests::dev("region = \"cn-north-1\"\n").deployment);
        assert_eq!((costs.unknown_regions.join(","), costs.job_minutes[0].fargate), ("cn-north-1".into(), None));
        assert!(costs.to_string().contains("Prices in cn-north-1 are not known here"));
        let minute = |text| Costs::of(&file::tests::dev(text).deployment).job_minutes[0].fargate.expect("a price");
        assert!(minute("architecture = \"arm64\"") < minute(""));
    }
}
