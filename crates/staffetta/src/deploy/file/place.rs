//! Where something runs, and names of things in AWS.

use aws::AssumedRole;
use aws::fargate::{external_id_mistake, subnets_mistake};
use aws::stack::{Place, partition};

use crate::config::keys;
use crate::config::section::{Found, Section};
use crate::deploy::regions;

/// What stands at the head of the file and holds where a table says nothing else.
#[derive(Default)]
pub struct Defaults {
    pub account: Option<String>,
    pub region: Option<String>,
}

pub fn defaults(section: &mut Section) -> Defaults {
    Defaults { account: account(section), region: region(section) }
}

fn account(section: &mut Section) -> Option<String> {
    let found = section.filled_text("account")?.value;
    if !is_account(&found) {
        section.wrong("account", "must be the 12 digits of an AWS account, in quotes");
    }
    Some(found)
}

pub fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Has the shape of a region, whether there is one or not.
pub fn is_region(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && text.split('-').count() >= 3
        && text.ends_with(|last: char| last.is_ascii_digit())
}

fn region(section: &mut Section) -> Option<String> {
    let Found { value, at } = section.filled_text("region")?;
    let near = keys::nearest(&value, regions::names()).filter(|near| *near != value);
    if !is_region(&value) {
        let advice = near.unwrap_or("eu-west-1");
        section.wrong("region", &format!("must be an AWS region, such as \"{advice}\""));
    } else if !regions::is_known(&value) {
        let name = section.name_of("region");
        let advice = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        let message =
            format!("`{name}`: {value} is not among the regions with Fargate that this version knows{advice}");
        section.report.warning(at, message);
    }
    Some(value)
}

/// Reads the keys of a place. What is missing is reported, and stands in the answer as an empty text.
pub fn place(section: &mut Section, defaults: &Defaults) -> Place {
    let account = account(section).or_else(|| defaults.account.clone());
    if account.is_none() {
        section.missing("account", "name the AWS account here, or for all at the head of the file");
    }
    let region = region(section).or_else(|| defaults.region.clone());
    if region.is_none() {
        section.missing("region", "name the AWS region here, or for all at the head of the file");
    }
    let vpc = section.word("vpc");
    match vpc.as_str() {
        "" => section.missing("vpc", "name the VPC, such as \"vpc-0123456789abcdef0\""),
        vpc if !is_id(vpc, "vpc") => section.wrong("vpc", "must be the id of a VPC, such as \"vpc-0123456789abcdef0\""),
        _ => {}
    }
    let place = Place {
        account: account.unwrap_or_default(),
        region: region.unwrap_or_default(),
        vpc,
        subnets: subnets(section),
        assign_public_ip: section.flag("assign_public_ip").unwrap_or(false),
        deploy_role: None,
    };
    Place { deploy_role: deploy_role(section, &place), ..place }
}

fn subnets(section: &mut Section) -> Vec<String> {
    let subnets = section.words("subnets");
    if subnets.is_empty() {
        section.missing("subnets", "name one subnet of the VPC or more: subnets = [\"subnet-…\"]");
    }
    if let Some(bad) = subnets.iter().find(|subnet| !is_id(subnet, "subnet")) {
        section.wrong("subnets", &format!("must be ids such as \"subnet-0123456789abcdef0\"; it has {bad:?}"));
    }
    let twice = subnets.iter().enumerate().find(|(index, subnet)| subnets[..*index].contains(subnet));
    if let Some((_, subnet)) = twice {
        section.wrong("subnets", &format!("has {subnet} twice"));
    }
    if let Some(mistake) = subnets_mistake(&subnets) {
        section.wrong("subnets", &mistake);
    }
    subnets
}

/// `vpc-…`, `subnet-…`
pub fn is_id(text: &str, kind: &str) -> bool {
    let id = text.strip_prefix(kind).and_then(|rest| rest.strip_prefix('-'));
    id.is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

fn deploy_role(section: &mut Section, place: &Place) -> Option<AssumedRole> {
    let arn = iam_arn(section, "deploy_role", "role", place);
    let external_id = external_id(section, "deploy_external_id");
    if arn.is_none() && external_id.is_some() {
        section.wrong("deploy_external_id", "goes with `deploy_role`: name the role that asks for it");
    }
    let session_name = "staffetta-deploy".to_owned();
    Some(AssumedRole { arn: arn?, session_name, external_id, tags: Vec::new() })
}

/// In STS's alphabet.
pub fn external_id(section: &mut Section, key: &'static str) -> Option<String> {
    let id = section.filled_text(key)?.value;
    if let Some(mistake) = external_id_mistake(&id) {
        section.wrong(key, mistake);
    }
    Some(id)
}

/// The ARN of a role or a policy in the account of `place`: IAM hands roles to tasks of their own account only.
/// A policy may be AWS's.
pub fn iam_arn(section: &mut Section, key: &'static str, kind: &str, place: &Place) -> Option<String> {
    let arn = section.filled_text(key)?.value;
    if let Err(why) = check_iam_arn(&arn, kind, place) {
        section.wrong(key, &why);
    }
    Some(arn)
}

pub fn check_iam_arn(arn: &str, kind: &str, place: &Place) -> Result<(), String> {
    let partition = partition(&place.region);
    let example = format!("arn:{partition}:iam::{}:{kind}/name", place.account);
    let shape = || format!("must be the ARN of a {kind}, such as \"{example}\"; it has {arn:?}");
    let parts: Vec<_> = arn.splitn(6, ':').collect();
    let ["arn", of, "iam", "", account, resource] = parts[..] else { return Err(shape()) };
    if !resource.strip_prefix(kind).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/')) {
        return Err(shape());
    }
    if of != partition {
        return Err(format!("is of the partition {of}, but {} is in {partition}", place.region));
    }
    if account != place.account && !(kind == "policy" && account == "aws") {
        return Err(format!("is of the account {account}, but it must be of {}", place.account));
    }
    Ok(())
}
