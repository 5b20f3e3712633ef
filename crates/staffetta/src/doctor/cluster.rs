//! The cluster, and what its tasks may run on.

use aws::Session;
use aws::fargate::{CapacityProvider, FargateConfig};
use aws::inspect::{self, Cluster};

use super::finding::MADE_ANEW;
use super::{Finding, Subject};

const CLUSTER: &str = "cluster";
const PROVIDERS: &str = "cluster-providers";
const DEFAULT: &str = "cluster-default-strategy";

pub async fn check(subject: &Subject, session: &Session) -> Vec<Finding> {
    let fargate = &subject.runner.fargate;
    match inspect::cluster(session, &fargate.cluster).await {
        Ok(cluster) => judge(fargate, session.region(), cluster.as_ref()),
        Err(error) => vec![Finding::not_seen(CLUSTER, "ecs:DescribeClusters", &error)],
    }
}

fn judge(fargate: &FargateConfig, region: &str, cluster: Option<&Cluster>) -> Vec<Finding> {
    let refused = "Every job fails: RunTask is refused with ClusterNotFoundException.";
    let Some(cluster) = cluster else {
        let evidence = format!("{} is not there in {region}", fargate.cluster);
        let fix = format!(
            "Correct cluster and region in [runners.fargate] (Cluster and Region in ecs.toml); or make it: {}; or, {MADE_ANEW}.",
            create(&fargate.cluster, region)
        );
        return vec![Finding::bad(CLUSTER, evidence, refused, fix)];
    };
    if cluster.status != "ACTIVE" {
        let evidence = format!("{} is {}", cluster.name, cluster.status);
        let fix = format!("Make it again: {}; or, {MADE_ANEW}.", create(&cluster.name, region));
        return vec![Finding::bad(CLUSTER, evidence, refused, fix)];
    }
    vec![
        Finding::good(CLUSTER, format!("{} is ACTIVE in {region}", cluster.name)),
        providers(fargate, region, cluster),
        default_strategy(fargate, region, cluster),
    ]
}

fn create(name: &str, region: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or(name);
    format!(
        "`aws ecs create-cluster --cluster-name {name} --capacity-providers FARGATE FARGATE_SPOT \
         --default-capacity-provider-strategy capacityProvider=FARGATE,weight=1 --region {region}`"
    )
}

fn providers(fargate: &FargateConfig, region: &str, cluster: &Cluster) -> Finding {
    let wanted: Vec<_> = fargate.capacity_providers.iter().map(|provider| provider.name.as_str()).collect();
    let has = |name: &str| cluster.capacity_providers.iter().any(|provider| provider == name);
    let missing: Vec<_> = wanted.iter().copied().filter(|name| !has(name)).collect();
    if missing.is_empty() {
        return Finding::good(
            PROVIDERS,
            match wanted[..] {
                [] => "none are asked for: tasks are started with launch type FARGATE".to_owned(),
                _ => format!("the cluster has {}", wanted.join(" and ")),
            },
        );
    }
    Finding::bad(
        PROVIDERS,
        format!(
            "{} does not have {}, only {}",
            cluster.name,
            missing.join(" and "),
            listed(&cluster.capacity_providers)
        ),
        "Every job fails: RunTask is refused, for capacity_providers names what the cluster does not have.",
        put_providers(fargate, region, cluster),
    )
}

fn default_strategy(fargate: &FargateConfig, region: &str, cluster: &Cluster) -> Finding {
    let text = cluster.default_strategy.iter().map(item).collect::<Vec<_>>().join(" ");
    let on_fargate = |item: &&CapacityProvider| item.name == "FARGATE" || item.name == "FARGATE_SPOT";
    // All weights 0 is no strategy: RunTask fails with it.
    if cluster.default_strategy.iter().filter(on_fargate).any(|item| item.weight > 0) {
        return Finding::good(DEFAULT, text);
    }
    let evidence = match text.as_str() {
        "" => format!("{} has none", cluster.name),
        text => format!("{} has one that starts nothing on Fargate: {text}", cluster.name),
    };
    Finding::warning(
        DEFAULT,
        evidence,
        "Jobs of Staffetta run, for each RunTask says on what. Other clients that do not (a Fargate driver without \
         LaunchType, `aws ecs run-task`) fail: \"No Container Instances were found in your cluster.\"",
        put_providers(fargate, region, cluster),
    )
}

/// The call replaces what is there, so that is named too.
fn put_providers(fargate: &FargateConfig, region: &str, cluster: &Cluster) -> String {
    let on_demand = [CapacityProvider { name: "FARGATE".into(), weight: 1, base: 0 }];
    let wanted = if fargate.capacity_providers.is_empty() { &on_demand[..] } else { &fargate.capacity_providers };
    let mut names = cluster.capacity_providers.clone();
    names.extend(
        wanted.iter().map(|provider| provider.name.clone()).filter(|name| !cluster.capacity_providers.contains(name)),
    );
    let starts = cluster.default_strategy.iter().any(|item| item.weight > 0 && item.name.starts_with("FARGATE"));
    let strategy = if starts { &cluster.default_strategy[..] } else { wanted };
    format!(
        "`aws ecs put-cluster-capacity-providers --cluster {} --capacity-providers {} \
         --default-capacity-provider-strategy {} --region {region}`",
        cluster.name,
        names.join(" "),
        strategy.iter().map(item).collect::<Vec<_>>().join(" "),
    )
}

/// As the AWS CLI writes it.
fn item(provider: &CapacityProvider) -> String {
    let CapacityProvider { name, weight, base } = provider;
    format!("capacityProvider={name},weight={weight},base={base}")
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(" and ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict::{Bad, Good, Warning};

    fn provider(name: &str, weight: u16) -> CapacityProvider {
        CapacityProvider { name: name.into(), weight, base: 0 }
    }

    fn healthy() -> Cluster {
        Cluster {
            name: "ci-dev".into(),
            status: "ACTIVE".into(),
            capacity_providers: vec!["FARGATE".into(), "FARGATE_SPOT".into()],
            default_strategy: vec![provider("FARGATE", 1)],
        }
    }

    fn wanting(providers: &[&str]) -> FargateConfig {
        let capacity_providers = providers.iter().map(|name| provider(name, 1)).collect();
        FargateConfig { cluster: "ci-dev".into(), capacity_providers, ..FargateConfig::default() }
    }

    #[test]
    fn a_healthy_cluster_is_good_by_each_check() {
        for wanted in [&[][..], &["FARGATE"], &["FARGATE_SPOT", "FARGATE"]] {
            let findings = judge(&wanting(wanted), "eu-west-1", Some(&healthy()));
            let seen: Vec<_> = findings.iter().map(|finding| (finding.check, finding.verdict)).collect();
            assert_eq!(seen, [(CLUSTER, Good), (PROVIDERS, Good), (DEFAULT, Good)]);
        }
    }

    #[test]
    fn each_fault_is_its_own_finding() {
        let spot = wanting(&["FARGATE_SPOT"]);
        let mut faults: Vec<(Option<Cluster>, _, _, &[&str])> = vec![
            (None, CLUSTER, Bad, &["ci-dev is not there in eu-west-1", "deploy apply"]),
            (
                Some(Cluster { status: "INACTIVE".into(), ..healthy() }),
                CLUSTER,
                Bad,
                &["INACTIVE", "create-cluster --cluster-name ci-dev --capacity-providers FARGATE"],
            ),
            (
                Some(Cluster { capacity_providers: vec!["FARGATE".into()], ..healthy() }),
                PROVIDERS,
                Bad,
                &[
                    "does not have FARGATE_SPOT, only FARGATE",
                    "--cluster ci-dev --capacity-providers FARGATE FARGATE_SPOT",
                    "--default-capacity-provider-strategy capacityProvider=FARGATE,weight=1,base=0 --region eu-west-1",
                ],
            ),
        ];
        for strategy in [vec![], vec![provider("FARGATE", 0)], vec![provider("of-instances", 1)]] {
            let words: &[&str] = &[
                "No Container Instances were found",
                "--capacity-providers FARGATE FARGATE_SPOT --default-capacity-provider-strategy capacityProvider=FARGATE_SPOT,weight=1",
            ];
            faults.push((Some(Cluster { default_strategy: strategy, ..healthy() }), DEFAULT, Warning, words));
        }
        for (cluster, check, verdict, words) in faults {
            let findings = judge(&spot, "eu-west-1", cluster.as_ref());
            let wrong: Vec<_> = findings.iter().filter(|finding| finding.verdict != Good).collect();
            assert_eq!(wrong.len(), 1, "{findings:?}");
            assert_eq!((wrong[0].check, wrong[0].verdict), (check, verdict));
            let text = format!("{} {} {}", wrong[0].evidence, wrong[0].breaks, wrong[0].fix);
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
    }
}
