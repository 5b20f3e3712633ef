//! What ECS says about a cluster.

use crate::errors::CallError;
use crate::fargate::CapacityProvider;
use crate::session::Session;

/// A cluster as DescribeClusters has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    pub name: String,
    /// `ACTIVE`, `INACTIVE` (deleted not long ago), `PROVISIONING`, …
    pub status: String,
    /// Those that tasks here may ask for.
    pub capacity_providers: Vec<String>,
    /// What RunTask takes that names neither providers nor a launch type.
    pub default_strategy: Vec<CapacityProvider>,
}

/// A cluster by its name or ARN; none if ECS does not know it. Needs `ecs:DescribeClusters`.
pub async fn cluster(session: &Session, cluster: &str) -> Result<Option<Cluster>, CallError> {
    let ecs = session.ecs();
    let asked = || async {
        let answer = ecs.describe_clusters().clusters(cluster).send().await;
        answer.map_err(|error| CallError::of_sdk(&error))
    };
    let answer = session.repeated(asked).await?;
    Ok(answer.clusters().first().map(|cluster| Cluster {
        name: cluster.cluster_name().unwrap_or_default().to_owned(),
        status: cluster.status().unwrap_or_default().to_owned(),
        capacity_providers: cluster.capacity_providers().to_vec(),
        default_strategy: cluster
            .default_capacity_provider_strategy()
            .iter()
            .map(|item| CapacityProvider {
                name: item.capacity_provider().to_owned(),
                weight: u16::try_from(item.weight()).unwrap_or_default(),
                base: u32::try_from(item.base()).unwrap_or_default(),
            })
            .collect(),
    }))
}
