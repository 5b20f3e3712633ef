//! What AWS has where.

/// Regions with Fargate for Linux, and whether they have Fargate Spot (Amazon ECS Developer Guide, "Supported Regions for
/// Amazon ECS on AWS Fargate", 2026).
const REGIONS: [&str; 38] = [
    "af-south-1",
    "ap-east-1",
    "ap-east-2",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-south-2",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ap-southeast-5",
    "ap-southeast-6",
    "ap-southeast-7",
    "ca-central-1",
    "ca-west-1",
    "cn-north-1",
    "cn-northwest-1",
    "eu-central-1",
    "eu-central-2",
    "eu-north-1",
    "eu-south-1",
    "eu-south-2",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "il-central-1",
    "me-central-1",
    "me-south-1",
    "mx-central-1",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-gov-east-1",
    "us-gov-west-1",
    "us-west-1",
    "us-west-2",
];

/// Those of them without Fargate Spot.
const WITHOUT_SPOT: [&str; 0] = [];

pub fn is_known(region: &str) -> bool {
    REGIONS.contains(&region)
}

pub fn all() -> impl Iterator<Item = &'static str> {
    REGIONS.into_iter()
}

pub fn has_spot(region: &str) -> bool {
    !WITHOUT_SPOT.contains(&region)
}
