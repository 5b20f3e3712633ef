//! What stands in the way of a command though the file is right: stacks of somebody else under our names, managers of another
//! `manager`, groups of another VPC, a shared manager that still serves. All of it is told before anything is begun.

use std::path::Path;

use aws::inspect::{self, SecurityGroup};
use aws::stack::cloudformation::{CloudFormation, Phase, StackRecord};
use aws::stack::{
    DEPLOYMENT_TAG, Deployment, ENVIRONMENT_TAG, MANAGER_SECURITY_GROUP, ManagerMode, ParameterValue, Stack, StackKind,
    TASK_SECURITY_GROUP, other_managers,
};
use futures::future::join_all;

use super::operate::Failure;
use super::places::Places;
use super::preflight::NotFit;
use crate::config::{Mistakes, Remark};

/// What is to be done with the chosen stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    Make,
    Destroy,
}

/// Looks at every stack that the command would touch, and tells all that stands in its way.
pub async fn check(
    deployment: &Deployment,
    all: &[Stack],
    chosen: &[Stack],
    places: &Places,
    file: &Path,
    intent: Intent,
) -> Result<(), NotFit> {
    let others = other_managers(deployment);
    let others = others.iter().filter(|other| concerns(other, chosen));
    let stays = |stack: &&Stack| {
        intent == Intent::Destroy
            && stack.kind == StackKind::Manager(None)
            && chosen.iter().all(|it| it.name != stack.name)
    };
    let looked_at = chosen.iter().map(|stack| (Part::Chosen, stack));
    let looked_at = looked_at.chain(others.map(|stack| (Part::OtherMode, stack)));
    let looked_at = looked_at.chain(all.iter().filter(stays).map(|stack| (Part::Staying, stack)));
    let seen = join_all(looked_at.map(|(part, stack)| async move {
        let record = CloudFormation::new(places.session(&stack.place)).describe(&stack.name).await;
        let record = record.map_err(|error| Failure::of_call(stack, "cloudformation:DescribeStacks", &error))?;
        let groups = match &record {
            Some(record) if part == Part::Chosen && intent == Intent::Make => groups(places, stack, record).await?,
            _ => Vec::new(),
        };
        Ok::<_, Failure>((part, stack, record, groups))
    }));
    let (mut unseen, mut refusals) = (Vec::new(), Vec::new());
    for seen in seen.await {
        match seen {
            Ok((part, stack, Some(record), groups)) if record.phase() != Phase::Gone => {
                refusals.extend(refusal(deployment, part, stack, &record, chosen, intent));
                refusals.extend(another_vpc(deployment, stack, &groups));
            }
            Ok(_) => {}
            Err(failure) => unseen.push(failure.line()),
        }
    }
    let remark = |message| Remark { file: file.to_owned(), line: None, message };
    match (unseen.is_empty(), refusals.is_empty()) {
        (false, _) => Err(NotFit::Unseen(unseen)),
        (true, false) => Err(NotFit::Mistakes(Mistakes(refusals.into_iter().map(remark).collect()))),
        (true, true) => Ok(()),
    }
}

/// Why a stack is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// It is to be made, changed or deleted.
    Chosen,
    /// It would be a manager with another `manager`.
    OtherMode,
    /// The shared manager, where only some environments are to be deleted.
    Staying,
}

/// Whether a manager of another mode would serve a chosen environment, or be where one is.
fn concerns(other: &Stack, chosen: &[Stack]) -> bool {
    let place = |stack: &Stack| (stack.place.account.clone(), stack.place.region.clone());
    let mut environments = chosen.iter().filter(|stack| matches!(stack.kind, StackKind::Environment(_)));
    match &other.kind {
        StackKind::Manager(Some(name)) => environments.any(|it| it.kind == StackKind::Environment(name.clone())),
        _ => environments.any(|environment| place(environment) == place(other)),
    }
}

fn refusal(
    deployment: &Deployment,
    part: Part,
    stack: &Stack,
    record: &StackRecord,
    chosen: &[Stack],
    intent: Intent,
) -> Option<String> {
    match part {
        Part::Chosen => stranger(stack, record),
        // What is not ours is nobody's concern here.
        Part::OtherMode if stranger(stack, record).is_none() => Some(of_other_mode(deployment, stack, intent)),
        Part::Staying if stranger(stack, record).is_none() => still_served(stack, record, chosen),
        Part::OtherMode | Part::Staying => None,
    }
}

/// Whose a stack is that has a name of ours. None: the deployment's, as both of its tags say.
pub fn stranger(stack: &Stack, record: &StackRecord) -> Option<String> {
    const TAGS: [&str; 2] = [DEPLOYMENT_TAG, ENVIRONMENT_TAG];
    let wanted = TAGS.map(|key| stack.tags.iter().find(|(tag, _)| tag == key).map(|(_, value)| value));
    let found = TAGS.map(|key| record.tags.get(key));
    if found == wanted {
        return None;
    }
    let tags: Vec<_> =
        TAGS.iter().zip(found).filter_map(|(key, value)| Some(format!("{key} is {:?}", value?))).collect();
    let says = match tags.is_empty() {
        true => format!("it has no tag {DEPLOYMENT_TAG}"),
        false => format!("its tag says {}", tags.join(" and ")),
    };
    Some(format!(
        "the stack {} in {} belongs to somebody else ({says}): choose another `name`",
        located(stack),
        record.status
    ))
}

fn located(Stack { name, place, .. }: &Stack) -> String {
    format!("{name} ({}, {})", place.account, place.region)
}

fn mode(manager: &ManagerMode) -> &'static str {
    match manager {
        ManagerMode::Each => "each",
        ManagerMode::Shared(_) => "shared",
        ManagerMode::Own { .. } => "own",
    }
}

/// The managers of both modes cannot stand at once: they want the same secrets, and use the environments' security groups.
fn of_other_mode(deployment: &Deployment, stack: &Stack, intent: Intent) -> String {
    let now = mode(&deployment.manager);
    let before = if matches!(stack.kind, StackKind::Manager(Some(_))) { "each" } else { "shared" };
    let what = format!(
        "the stack {} is of `manager = \"{before}\"`, and the file says \"{now}\": that cannot be changed in place",
        located(stack)
    );
    let old = "destroy with the old file first: `staffetta deploy destroy --file OLD_FILE`";
    match intent {
        Intent::Make => format!("{what}: {old}, then `staffetta deploy apply`"),
        Intent::Destroy => format!(
            "{what}: {old}, or delete it: `aws cloudformation delete-stack --stack-name {} --region {}`",
            stack.name, stack.place.region
        ),
    }
}

/// The shared manager would go on to take the jobs of an environment that is gone. Its stack has a parameter for each
/// environment that it serves.
fn still_served(manager: &Stack, record: &StackRecord, chosen: &[Stack]) -> Option<String> {
    let serves = manager.parameters.iter().filter(|parameter| record.parameters.contains_key(&parameter.name));
    let stacks = serves.filter_map(|parameter| match &parameter.value {
        ParameterValue::Output { stack, .. } => chosen.iter().find(|it| it.name == *stack),
        ParameterValue::DesiredCount => None,
    });
    let names: Vec<_> = stacks
        .filter_map(|stack| match &stack.kind {
            StackKind::Environment(name) => Some(name.as_str()),
            StackKind::Manager(_) | StackKind::ManagerAccess => None,
        })
        .collect();
    let flags: String = names.iter().map(|name| format!(" --environment {name}")).collect();
    (!names.is_empty()).then(|| {
        format!(
            "the shared manager {} still takes the jobs of {}: keep this file as OLD_FILE, remove the environment from the \
             file, `staffetta deploy apply`, and then `staffetta deploy destroy --file OLD_FILE{flags}`; or destroy all, \
             without --environment",
            located(manager),
            names.join(", ")
        )
    })
}

/// The security groups that a stack says it has.
async fn groups(places: &Places, stack: &Stack, record: &StackRecord) -> Result<Vec<SecurityGroup>, Failure> {
    let outputs = [TASK_SECURITY_GROUP, MANAGER_SECURITY_GROUP].into_iter();
    let ids: Vec<_> = outputs.filter_map(|output| record.outputs.get(output).cloned()).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let groups = inspect::security_groups(places.session(&stack.place), &ids).await;
    groups.map_err(|error| Failure::of_call(stack, "ec2:DescribeSecurityGroups", &error))
}

/// A group cannot go to another VPC: CloudFormation would make others, fail to delete those that tasks still use, and forget them.
fn another_vpc(deployment: &Deployment, stack: &Stack, groups: &[SecurityGroup]) -> Option<String> {
    let group = groups.iter().find(|group| group.vpc != stack.place.vpc)?;
    let only = match (&stack.kind, &deployment.manager) {
        (StackKind::Environment(name), ManagerMode::Each | ManagerMode::Own { .. }) => format!(" --environment {name}"),
        _ => String::new(),
    };
    Some(format!(
        "{} stands in {}, and the file says {}: `vpc` cannot be changed in place. `staffetta deploy destroy{only}`, then \
         `staffetta deploy apply`",
        located(stack),
        group.vpc,
        stack.place.vpc
    ))
}

#[cfg(test)]
mod tests {
    use aws::stack::stacks;

    use super::*;
    use crate::deploy::file::tests::dev;

    #[test]
    fn only_both_tags_together_make_a_stack_ours() {
        let deployment = dev("").deployment;
        let all = stacks(&deployment, &|_, _| String::new());
        let ours = all.iter().find(|stack| stack.name == "ci-dev").expect("the environment's stack");
        let others = other_managers(&deployment);
        let shared = others.iter().find(|stack| stack.name == "ci-manager").expect("a shared manager's stack");
        let (of_ci, of_dev) = ((DEPLOYMENT_TAG, "ci"), (ENVIRONMENT_TAG, "dev"));
        for (stack, tags, says) in [
            (ours, vec![of_ci, of_dev], None),
            (ours, vec![of_ci, of_dev, ("team", "a")], None),
            (ours, vec![], Some("it has no tag staffetta:deployment")),
            (ours, vec![of_ci], Some("its tag says staffetta:deployment is \"ci\")")),
            (ours, vec![of_dev], Some("its tag says staffetta:environment is \"dev\")")),
            (ours, vec![(DEPLOYMENT_TAG, "c"), of_dev], Some("staffetta:deployment is \"c\" and")),
            (ours, vec![of_ci, (ENVIRONMENT_TAG, "a")], Some("staffetta:environment is \"a\"")),
            (shared, vec![of_ci], None),
            // The environment `manager` of this deployment, say.
            (shared, vec![of_ci, of_dev], Some("staffetta:environment is \"dev\"")),
        ] {
            let record = StackRecord {
                id: "arn".into(),
                status: "ROLLBACK_COMPLETE".into(),
                reason: None,
                parameters: Default::default(),
                outputs: Default::default(),
                tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            };
            let found = stranger(stack, &record);
            match (found, says) {
                (None, None) => {}
                (Some(found), Some(says)) => assert!(found.contains(says), "{tags:?}: {found}"),
                (found, _) => panic!("{tags:?}: {found:?}"),
            }
        }
    }
}
