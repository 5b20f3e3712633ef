//! Clusters and the capacity providers that are associated with them.

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::failure::Failure;
use super::super::state::{Cluster, State, Status, StrategyItem};
use super::page;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateCluster {
    cluster_name: Option<String>,
    #[serde(default)]
    capacity_providers: Vec<String>,
    #[serde(default)]
    default_capacity_provider_strategy: Vec<StrategyItem>,
}

pub(super) fn create_cluster(state: &mut State, account: &str, request: CreateCluster) -> Result<Value, Failure> {
    let name = request.cluster_name.unwrap_or_else(|| "default".into());
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if name.is_empty() || name.len() > 255 || !name.bytes().all(valid) {
        return Err(Failure::invalid("Identifier is not valid: clusterName"));
    }
    known_providers(&request.capacity_providers)?;
    // Creating a cluster that exists gives the one that exists.
    let arn = state.arn(account, &format!("cluster/{name}"));
    if !state.clusters.contains_key(&arn) {
        let CreateCluster { capacity_providers, default_capacity_provider_strategy: default_strategy, .. } = request;
        let cluster = Cluster { arn: arn.clone(), name, capacity_providers, default_strategy };
        state.clusters.insert(arn.clone(), cluster);
    }
    Ok(json!({"cluster": shape(state, &state.clusters[&arn])}))
}

#[derive(Deserialize)]
pub(super) struct DescribeClusters {
    #[serde(default)]
    clusters: Vec<String>,
}

pub(super) fn describe_clusters(state: &mut State, account: &str, request: DescribeClusters) -> Result<Value, Failure> {
    let asked = if request.clusters.is_empty() { vec!["default".to_owned()] } else { request.clusters };
    let (mut clusters, mut failures) = (Vec::new(), Vec::new());
    for name in asked {
        match state.cluster(account, Some(&name)) {
            Ok(cluster) => clusters.push(shape(state, cluster)),
            Err(_) => {
                let arn = if name.starts_with("arn:") { name } else { state.arn(account, &format!("cluster/{name}")) };
                failures.push(json!({"arn": arn, "reason": "MISSING"}));
            }
        }
    }
    Ok(json!({"clusters": clusters, "failures": failures}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListClusters {
    max_results: Option<i64>,
    next_token: Option<String>,
}

pub(super) fn list_clusters(state: &mut State, account: &str, request: ListClusters) -> Result<Value, Failure> {
    let own = state.clusters.values().filter(|cluster| cluster.account() == account);
    let clusters = own.map(|cluster| (cluster.name.clone(), cluster.arn.clone())).collect();
    page("clusterArns", clusters, request.max_results, request.next_token.as_deref())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PutClusterCapacityProviders {
    cluster: String,
    capacity_providers: Vec<String>,
    default_capacity_provider_strategy: Vec<StrategyItem>,
}

pub(super) fn put_cluster_capacity_providers(
    state: &mut State,
    account: &str,
    request: PutClusterCapacityProviders,
) -> Result<Value, Failure> {
    let found = state.cluster(account, Some(&request.cluster))?.clone();
    known_providers(&request.capacity_providers)?;
    let cluster = Cluster {
        capacity_providers: request.capacity_providers,
        default_strategy: request.default_capacity_provider_strategy,
        ..found
    };
    let shape = shape(state, &cluster);
    state.clusters.insert(cluster.arn.clone(), cluster);
    Ok(json!({"cluster": shape}))
}

fn known_providers(names: &[String]) -> Result<(), Failure> {
    match names.iter().find(|name| !["FARGATE", "FARGATE_SPOT"].contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Failure::invalid(format!(
            "The specified capacity provider '{name}' was not found. Specify a valid name or ARN and try again."
        ))),
    }
}

fn shape(state: &State, cluster: &Cluster) -> Value {
    let tasks = || state.tasks.values().filter(|task| task.cluster_arn == cluster.arn);
    let strategy = cluster
        .default_strategy
        .iter()
        .map(|item| json!({"capacityProvider": item.capacity_provider, "weight": item.weight, "base": item.base}));
    json!({
        "clusterArn": cluster.arn,
        "clusterName": cluster.name,
        "status": "ACTIVE",
        "registeredContainerInstancesCount": 0,
        "runningTasksCount": tasks().filter(|task| task.status == Status::Running).count(),
        "pendingTasksCount": tasks().filter(|task| task.status < Status::Running).count(),
        "activeServicesCount": 0,
        "statistics": [],
        "tags": [],
        "settings": [],
        "capacityProviders": cluster.capacity_providers,
        "defaultCapacityProviderStrategy": strategy.collect::<Vec<_>>(),
    })
}
