//! What AWS has where, and what it costs there.

/// Dollars for an hour of one vCPU and of one GB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    pub vcpu: f64,
    pub gb: f64,
}

/// A region with Fargate for Linux.
struct Region {
    name: &'static str,
    /// Linux on x86-64; none is not known in dollars.
    on_demand: Option<Rate>,
    /// It moves: of the day on which it was looked up. None: AWS has published none, or this table does not know it.
    spot: Option<Rate>,
}

/// When the prices below were looked up.
pub const PRICES_OF: &str = "September 2026";

const fn region(name: &'static str) -> Region {
    Region { name, on_demand: None, spot: None }
}

const fn priced(name: &'static str, on_demand: (f64, f64), spot: (f64, f64)) -> Region {
    let on_demand = Some(Rate { vcpu: on_demand.0, gb: on_demand.1 });
    Region { name, on_demand, spot: Some(Rate { vcpu: spot.0, gb: spot.1 }) }
}

/// The regions: Amazon ECS Developer Guide, "Supported Regions for Amazon ECS on AWS Fargate", 2026. On-demand prices: AWS's
/// price list of Amazon ECS, as published on 2026-09-11. Spot prices: what the page "AWS Fargate Pricing" showed until then.
const REGIONS: [Region; 38] = [
    priced("af-south-1", (0.0546, 0.006), (0.01638, 0.0018)),
    priced("ap-east-1", (0.0556, 0.0061), (0.01668, 0.00183)),
    region("ap-east-2"),
    priced("ap-northeast-1", (0.05056, 0.00553), (0.01981009, 0.00216673)),
    priced("ap-northeast-2", (0.04656, 0.00511), (0.01422902, 0.00156165)),
    region("ap-northeast-3"),
    priced("ap-south-1", (0.04256, 0.004655), (0.0133282, 0.00145777)),
    Region { name: "ap-south-2", on_demand: None, spot: Some(Rate { vcpu: 0.012768, gb: 0.0013965 }) },
    priced("ap-southeast-1", (0.05056, 0.00553), (0.015168, 0.001659)),
    priced("ap-southeast-2", (0.04856, 0.00532), (0.014568, 0.001596)),
    region("ap-southeast-3"),
    region("ap-southeast-4"),
    region("ap-southeast-5"),
    region("ap-southeast-6"),
    region("ap-southeast-7"),
    priced("ca-central-1", (0.04456, 0.004865), (0.013368, 0.0014595)),
    region("ca-west-1"),
    region("cn-north-1"),
    region("cn-northwest-1"),
    priced("eu-central-1", (0.04656, 0.00511), (0.0140458, 0.00154154)),
    region("eu-central-2"),
    priced("eu-north-1", (0.0445, 0.0049), (0.01335, 0.00147)),
    priced("eu-south-1", (0.0486, 0.0053), (0.01458, 0.00159)),
    region("eu-south-2"),
    priced("eu-west-1", (0.04048, 0.004445), (0.01224056, 0.0013441)),
    priced("eu-west-2", (0.04656, 0.00511), (0.013968, 0.001533)),
    priced("eu-west-3", (0.0486, 0.0053), (0.01458, 0.00159)),
    region("il-central-1"),
    region("me-central-1"),
    priced("me-south-1", (0.0526, 0.0058), (0.01578, 0.00174)),
    region("mx-central-1"),
    priced("sa-east-1", (0.0696, 0.0076), (0.0212609, 0.00232159)),
    priced("us-east-1", (0.04048, 0.004445), (0.01288871, 0.00141527)),
    priced("us-east-2", (0.04048, 0.004445), (0.01276353, 0.00140153)),
    priced("us-gov-east-1", (0.0486, 0.0053), (0.01458, 0.00159)),
    priced("us-gov-west-1", (0.0486, 0.0053), (0.01458, 0.00159)),
    priced("us-west-1", (0.04656, 0.00511), (0.013968, 0.001533)),
    priced("us-west-2", (0.04048, 0.004445), (0.01269464, 0.00139396)),
];

/// Where AWS says of no Fargate Spot that it can be bought. By AWS's announcement of 2020-10-26 ("AWS Fargate Spot for Amazon ECS
/// now supported in AWS CloudFormation") FARGATE_SPOT is wherever Fargate is, and no page of AWS names a region without it; but in
/// September 2026 the page "AWS Fargate Pricing" had no row for these under Fargate Spot.
const SPOT_DOUBTFUL: [&str; 15] = [
    "ap-east-2",
    "ap-northeast-3",
    "ap-southeast-3",
    "ap-southeast-4",
    "ap-southeast-5",
    "ap-southeast-6",
    "ap-southeast-7",
    "ca-west-1",
    "cn-north-1",
    "cn-northwest-1",
    "eu-central-2",
    "eu-south-2",
    "il-central-1",
    "me-central-1",
    "mx-central-1",
];

fn find(name: &str) -> Option<&'static Region> {
    REGIONS.iter().find(|region| region.name == name)
}

pub fn names() -> impl Iterator<Item = &'static str> {
    REGIONS.iter().map(|region| region.name)
}

pub fn is_known(region: &str) -> bool {
    find(region).is_some()
}

/// Whether a known region may be without Fargate Spot.
pub fn is_spot_doubtful(region: &str) -> bool {
    SPOT_DOUBTFUL.contains(&region)
}

pub fn on_demand(region: &str) -> Option<Rate> {
    find(region)?.on_demand
}

pub fn spot(region: &str) -> Option<Rate> {
    find(region)?.spot
}
