//! What can be known to go wrong before anything is made: the wrong account, subnets that are not there or of another VPC.

use std::fmt;
use std::path::Path;

use aws::inspect::{self, Identity, Subnet};
use aws::stack::cloudformation::LARGEST_TEMPLATE;
use aws::stack::{Deployment, ManagerMode, Place, Stack, StackKind};
use aws::{CallError, Session};
use futures::future::join_all;

use super::cause;
use super::places::Places;
use crate::config::{Mistakes, Remark};

/// Why nothing is begun.
#[derive(Debug)]
pub enum NotFit {
    /// AWS could not be asked: how it is there is not known.
    Unseen(Vec<String>),
    /// The file and the account do not fit.
    Mistakes(Mistakes),
}

impl std::error::Error for NotFit {}

impl fmt::Display for NotFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unseen(reasons) => f.write_str(&reasons.join("\n")),
            Self::Mistakes(mistakes) => mistakes.fmt(f),
        }
    }
}

/// Looks at every place of these stacks, and tells all that does not fit at once. What is only to be deleted needs no more than
/// the right accounts: `making` is false.
pub async fn check(
    deployment: &Deployment,
    stacks: &[Stack],
    places: &Places,
    file: &Path,
    making: bool,
) -> Result<(), NotFit> {
    let tables = tables(deployment, stacks);
    let seen = join_all(tables.iter().map(|(_, place)| look(places.session(place), place, making))).await;
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let (mut unseen, mut mistakes) = (Vec::new(), Vec::new());
    for ((table, place), seen) in tables.iter().zip(seen) {
        match seen {
            Err((action, error)) => unseen.push(unseen_for(place, action, &error)),
            Ok(seen) => mistakes.extend(misfits(place, &seen).into_iter().map(|(key, message)| Remark {
                file: file.to_owned(),
                line: line_of(&text, table, key),
                message,
            })),
        }
    }
    for stack in stacks.iter().filter(|_| making) {
        let size = stack.template.to_string().len();
        if size > LARGEST_TEMPLATE {
            let message = format!(
                "the template of {} has {size} bytes, and CloudFormation takes {LARGEST_TEMPLATE}: let environments have managers of \
                 their own, or shorten what the file gives",
                stack.name
            );
            mistakes.push(Remark { file: file.to_owned(), line: None, message });
        }
    }
    // One mistake in the defaults is every environment's.
    let mut told: Vec<Remark> = Vec::new();
    for mistake in mistakes {
        if !told.contains(&mistake) {
            told.push(mistake);
        }
    }
    unseen.sort();
    unseen.dedup();
    match (unseen.is_empty(), told.is_empty()) {
        (false, _) => Err(NotFit::Unseen(unseen)),
        (true, false) => Err(NotFit::Mistakes(Mistakes(told))),
        (true, true) => Ok(()),
    }
}

fn unseen_for(place: &Place, action: &str, error: &CallError) -> String {
    let why = match error {
        CallError::Refused(refusal) | CallError::RoleRefused { refusal, .. } if refusal.is_of_credentials() => format!(
            "{error}. AWS does not take these credentials: log in again, for example with `aws sso login`, or give new ones"
        ),
        CallError::RoleRefused { role, refusal } => format!(
            "the deploy_role {role} cannot be taken ({refusal}). Let whoever runs this do sts:AssumeRole on it, and let its trust \
             policy allow that, with the external id if it asks for one"
        ),
        CallError::NoCredentials(_) => {
            format!("{error}. Log in, for example with `aws sso login`, or set AWS_PROFILE or AWS_ACCESS_KEY_ID")
        }
        error => {
            let fix = cause::fix(&error.to_string(), "").map(|fix| format!(". {fix}"));
            format!("{action}: {error}{}", fix.unwrap_or_default())
        }
    };
    format!("account {}, {}: {why}", place.account, place.region)
}

/// Where the file says the place of what is made: its table, and the place.
fn tables<'a>(deployment: &'a Deployment, stacks: &[Stack]) -> Vec<(Vec<&'a str>, &'a Place)> {
    let wanted = |environment: &str| {
        let name = environment.to_owned();
        stacks.iter().any(|stack| stack.kind == StackKind::Environment(name.clone()))
    };
    let environments = deployment.environments.iter().filter(|environment| wanted(&environment.name));
    let mut tables: Vec<_> =
        environments.map(|environment| (vec!["environments", environment.name.as_str()], &environment.place)).collect();
    if let ManagerMode::Shared(place) = &deployment.manager {
        tables.push((vec!["manager_service"], place));
    }
    tables
}

/// What was seen of one place.
struct Seen {
    identity: Identity,
    /// None: not looked at.
    subnets: Option<Result<Vec<Subnet>, CallError>>,
}

async fn look(session: &Session, place: &Place, making: bool) -> Result<Seen, (&'static str, CallError)> {
    let identity = inspect::identity(session).await.map_err(|error| ("sts:GetCallerIdentity", error))?;
    if !making || identity.account != place.account {
        return Ok(Seen { identity, subnets: None });
    }
    match inspect::subnets(session, &place.subnets).await {
        Err(error @ (CallError::NoAnswer(_) | CallError::Throttled(_))) => Err(("ec2:DescribeSubnets", error)),
        subnets => Ok(Seen { identity, subnets: Some(subnets) }),
    }
}

/// Each with the key of the file that it is about.
fn misfits(place: &Place, seen: &Seen) -> Vec<(&'static str, String)> {
    let Identity { account, arn } = &seen.identity;
    if *account != place.account {
        let fix = match &place.deploy_role {
            Some(role) => format!("the deploy_role {} belongs to another account", role.arn),
            None => format!("log in to {}, or name a `deploy_role` there", place.account),
        };
        let message = format!("the account is {}, but the credentials are of {account} ({arn}): {fix}", place.account);
        return vec![("account", message)];
    }
    let subnets = match &seen.subnets {
        None => return Vec::new(),
        Some(Ok(subnets)) => subnets,
        Some(Err(error)) => {
            return vec![(
                "subnets",
                format!("the subnets cannot be looked at, let {arn} do ec2:DescribeSubnets: {error}"),
            )];
        }
    };
    let mut misfits = Vec::new();
    for id in &place.subnets {
        match subnets.iter().find(|subnet| subnet.id == *id) {
            None => {
                let message = format!("there is no subnet {id} in {}, account {account}", place.region);
                misfits.push(("subnets", message));
            }
            Some(subnet) if subnet.vpc != place.vpc => {
                let message =
                    format!("the subnet {id} is in {}, not in {}: all must be in one VPC", subnet.vpc, place.vpc);
                misfits.push(("subnets", message));
            }
            Some(_) => {}
        }
    }
    misfits
}

/// The line of a key, from 1: in its table, or at the head of the file, which holds for all.
fn line_of(text: &str, table: &[&str], key: &str) -> Option<usize> {
    let document = toml_edit::Document::parse(text).ok()?;
    let at = |path: &[&str]| {
        let mut item = document.as_item();
        for name in path {
            item = item.get(name)?;
        }
        let (key, _) = item.as_table_like()?.get_key_value(key)?;
        key.span()
    };
    let span = at(table).or_else(|| at(&[]))?;
    Some(text[..span.start].matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(subnets: &[&str]) -> Place {
        Place {
            account: "111122223333".into(),
            region: "eu-west-1".into(),
            vpc: "vpc-1".into(),
            subnets: subnets.iter().map(|id| (*id).to_owned()).collect(),
            assign_public_ip: false,
            deploy_role: None,
        }
    }

    fn seen(account: &str, subnets: &[(&str, &str)]) -> Seen {
        let subnet = |(id, vpc): &(&str, &str)| Subnet { id: (*id).into(), vpc: (*vpc).into(), ..Subnet::default() };
        let identity = Identity { account: account.into(), arn: "arn:aws:iam::1:user/ada".into() };
        Seen { identity, subnets: Some(Ok(subnets.iter().map(subnet).collect())) }
    }

    #[test]
    fn every_subnet_that_does_not_fit_is_told() {
        let wanted = place(&["subnet-1", "subnet-2", "subnet-3"]);
        let fits = seen("111122223333", &[("subnet-1", "vpc-1"), ("subnet-2", "vpc-1"), ("subnet-3", "vpc-1")]);
        assert_eq!(misfits(&wanted, &fits), []);
        let told = misfits(&wanted, &seen("111122223333", &[("subnet-1", "vpc-1"), ("subnet-2", "vpc-9")]));
        assert_eq!(told.len(), 2);
        assert!(told[0].1.contains("subnet-2 is in vpc-9, not in vpc-1"), "{told:?}");
        assert!(told[1].1.contains("no subnet subnet-3"), "{told:?}");
    }

    #[test]
    fn the_wrong_account_is_the_only_thing_that_counts() {
        let told = misfits(&place(&["subnet-1"]), &seen("444455556666", &[]));
        assert_eq!(told.len(), 1);
        assert!(told[0].0 == "account" && told[0].1.contains("credentials are of 444455556666"), "{told:?}");
    }

    #[test]
    fn what_cannot_be_looked_at_names_the_call_and_what_to_do() {
        let silent = CallError::NoAnswer("https://sts.eu-west-1.amazonaws.com/: Connection refused".into());
        assert_eq!(
            unseen_for(&place(&[]), "sts:GetCallerIdentity", &silent),
            "account 111122223333, eu-west-1: sts:GetCallerIdentity: no answer (https://sts.eu-west-1.amazonaws.com/: Connection \
             refused)"
        );
    }

    #[test]
    fn a_mistake_has_the_line_of_its_key() {
        let text = "name = \"ci\"\naccount = \"1\"\n[environments.dev]\n# here\nsubnets = []\n";
        assert_eq!(line_of(text, &["environments", "dev"], "subnets"), Some(5));
        assert_eq!(line_of(text, &["environments", "dev"], "account"), Some(2));
        assert_eq!(line_of(text, &["environments", "dev"], "vpc"), None);
    }
}
