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

pub(super) fn create_cluster(state: &mut State, request: CreateCluster) -> Result<Value, Failure> {
    let name = request.cluster_name.unwrap_or_else(|| "default".into());
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if name.is_empty() || name.len() > 255 || !name.bytes().all(valid) {
        return Err(Failure::invalid("Identifier is not valid: clusterName"));
    }
    known_providers(&request.capacity_providers)?;
    // Creating a cluster that exists gives the one that exists.
    if !state.clusters.contains_key(&name) {
        add_cluster(state, &name, request.capacity_providers, request.default_capacity_provider_strategy);
    }
    Ok(json!({"cluster": shape(state, &state.clusters[&name])}))
}

fn add_cluster(state: &mut State, name: &str, providers: Vec<String>, strategy: Vec<StrategyItem>) {
    let arn = state.arn(&format!("cluster/{name}"));
    let cluster = Cluster { arn, name: name.into(), capacity_providers: providers, default_strategy: strategy };
    state.clusters.insert(name.into(), cluster);
}

#[derive(Deserialize)]
pub(super) struct DescribeClusters {
    #[serde(default)]
    clusters: Vec<String>,
}

pub(super) fn describe_clusters(state: &mut State, request: DescribeClusters) -> Result<Value, Failure> {
    let asked = if request.clusters.is_empty() { vec!["default".to_owned()] } else { request.clusters };
    let (mut clusters, mut failures) = (Vec::new(), Vec::new());
    for name in asked {
        match state.cluster(Some(&name)) {
            Ok(cluster) => clusters.push(shape(state, cluster)),
            Err(_) => {
                let arn = if name.starts_with("arn:") { name } else { state.arn(&format!("cluster/{name}")) };
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

pub(super) fn list_clusters(state: &mut State, request: ListClusters) -> Result<Value, Failure> {
    let clusters = state.clusters.values().map(|cluster| (cluster.name.clone(), cluster.arn.clone())).collect();
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
    request: PutClusterCapacityProviders,
) -> Result<Value, Failure> {
    let name = state.cluster(Some(&request.cluster))?.name.clone();
    known_providers(&request.capacity_providers)?;
    add_cluster(state, &name, request.capacity_providers, request.default_capacity_provider_strategy);
    Ok(json!({"cluster": shape(state, &state.clusters[&name])}))
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
