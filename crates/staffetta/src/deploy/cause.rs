//! Why an operation on a stack failed: the first cause among its events, and what to do about it.

use aws::stack::cloudformation::Event;
use serde::Serialize;

/// The first failure, in CloudFormation's own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// `AWS::ECS::Cluster Cluster`
    pub resource: String,
    pub status: String,
    pub reason: String,
    /// Where it is known.
    pub fix: Option<String>,
}

/// Among the events of one operation, oldest first. After the first failure CloudFormation cancels what it was making at the same
/// time, and then takes everything back: those are no causes.
pub fn first_cause(events: &[Event]) -> Option<Cause> {
    let told = |event: &&Event| event.reason.as_deref().is_some_and(|reason| !reason.contains("cancelled"));
    let failed = |event: &&Event| event.status.ends_with("_FAILED") && told(event);
    let of_resource = events.iter().filter(failed).find(|event| !event.is_of_stack());
    let went_wrong = |event: &&Event| failed(event) || (event.status.contains("ROLLBACK") && told(event));
    let event = of_resource.or_else(|| events.iter().find(went_wrong))?;
    let reason = event.reason.clone().unwrap_or_default();
    Some(Cause {
        resource: format!("{} {}", event.resource_type, event.logical_id),
        status: event.status.clone(),
        fix: fix(&reason, &event.physical_id),
        reason,
    })
}

/// What an update that ended well could not delete: CloudFormation tries a few times, and then forgets it.
pub fn left_behind(events: &[Event]) -> Vec<String> {
    let of_same = |a: &Event, b: &Event| (&a.logical_id, &a.physical_id) == (&b.logical_id, &b.physical_id);
    let is_left = |(at, event): &(usize, &Event)| {
        event.status == "DELETE_FAILED"
            && !event.is_of_stack()
            && !events[at + 1..].iter().any(|later| of_same(event, later) && later.status.starts_with("DELETE_"))
    };
    let tell = |(_, event): (usize, &Event)| {
        let reason = event.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        format!("{} {}{reason}", event.resource_type, event.physical_id)
    };
    events.iter().enumerate().filter(is_left).map(tell).collect()
}

/// What to do about a reason that is known. `physical_id` is the resource's name, where it has one already.
pub fn fix(reason: &str, physical_id: &str) -> Option<String> {
    let lower = reason.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if let Some(refused) = Refused::in_reason(reason) {
        return Some(refused.fix());
    }
    if has(&["accessdenied", "access denied", "not authorized", "unauthorizedoperation"]) {
        return Some("Give the operator what `staffetta deploy policy` lists under \"operator\".".into());
    }
    if has(&["scheduled for deletion", "marked deleted", "marked for deletion"])
        || has(&["secret"]) && has(&["was deleted"])
    {
        return Some(
            "A secret of this name is being deleted, which after `destroy` lasts a moment: wait two minutes and apply again. If it \
             is still there then, end it by `aws secretsmanager delete-secret --secret-id NAME --force-delete-without-recovery`, \
             or take it back by `aws secretsmanager restore-secret --secret-id NAME`."
                .into(),
        );
    }
    if has(&["circuit breaker"]) {
        return Some(
            "The manager's task did not stay up: its log group has its words, `aws ecs list-tasks --desired-status STOPPED` its \
             last tasks. Often its image or a runner token is wrong: `staffetta doctor` looks."
                .into(),
        );
    }
    if has(&["service linked role", "service-linked role"]) {
        return Some("ECS's own role is new in this account and not known everywhere yet. Apply again.".into());
    }
    if has(&["already exists", "alreadyexists", "entityalreadyexists"]) {
        return Some(
            "Something of this name is there and does not belong to this stack. Remove it if it is not needed, or choose another \
             `name` in the file."
                .into(),
        );
    }
    if has(&["limitexceeded", "limit exceeded", "limit for", "quota", "maximum number"]) {
        return Some(
            "A limit of the account is reached. Remove what is not needed, or ask for more in Service Quotas.".into(),
        );
    }
    if has(&["not empty", "notempty"]) {
        return Some(format!("{physical_id} is not empty. Empty it, and run the command again."));
    }
    if has(&["dependent object", "dependencyviolation"]) {
        return Some(format!(
            "Something still uses {physical_id}: `aws ec2 describe-network-interfaces --filters Name=group-id,Values={physical_id}` \
             lists it. The interface of a task goes a minute after the task."
        ));
    }
    has(&["expiredtoken", "token included in the request is expired"])
        .then(|| "The credentials ended on the way. Take new ones, and run the command again.".into())
}

/// IAM's sentence: "User: WHO is not authorized to perform: ACTION on resource: WHAT because …".
struct Refused<'a> {
    who: &'a str,
    action: &'a str,
    resource: Option<&'a str>,
}

impl<'a> Refused<'a> {
    fn in_reason(reason: &'a str) -> Option<Self> {
        let (before, after) = reason.split_once(" is not authorized to perform: ")?;
        let who = before.rsplit("User: ").next()?.trim();
        let word =
            |text: &'a str| text.split_whitespace().next().map(|word| word.trim_end_matches([',', ';', '.', '"', ')']));
        let resource = after.split_once("on resource: ").and_then(|(_, rest)| word(rest));
        Some(Self { who, action: word(after)?, resource })
    }

    fn fix(&self) -> String {
        let Self { who, action, resource } = self;
        let resource = resource.map(|resource| format!(" on {resource}")).unwrap_or_default();
        format!("Allow {action}{resource} to {who}; `staffetta deploy policy` lists all that the operator needs.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(resource: &str, status: &str, reason: &str) -> Event {
        let (resource_type, logical_id) = resource.split_once(' ').expect("type and name");
        Event {
            id: format!("{resource}{status}"),
            time: "2026-11-22T03:00:00Z".into(),
            logical_id: logical_id.into(),
            physical_id: String::new(),
            resource_type: resource_type.into(),
            status: status.into(),
            reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        }
    }

    #[test]
    fn the_first_cause_is_neither_the_last_nor_what_was_cancelled() {
        let events = [
            event("AWS::CloudFormation::Stack ci-dev", "CREATE_IN_PROGRESS", "User Initiated"),
            event("AWS::ECS::Cluster Cluster", "CREATE_IN_PROGRESS", ""),
            event("AWS::Logs::LogGroup Logs", "CREATE_FAILED", "Resource creation cancelled"),
            event("AWS::IAM::Role JobRole", "CREATE_FAILED", "Maximum policy size exceeded"),
            event("AWS::ECS::Cluster Cluster", "CREATE_FAILED", "Resource creation cancelled"),
            event(
                "AWS::CloudFormation::Stack ci-dev",
                "ROLLBACK_IN_PROGRESS",
                "The following resource(s) failed: [JobRole]",
            ),
            event("AWS::EC2::SecurityGroup Group", "DELETE_FAILED", "has a dependent object"),
            event("AWS::CloudFormation::Stack ci-dev", "ROLLBACK_FAILED", "The following resource(s) failed: [Group]"),
        ];
        let cause = first_cause(&events).expect("a cause");
        assert_eq!((cause.resource.as_str(), cause.status.as_str()), ("AWS::IAM::Role JobRole", "CREATE_FAILED"));
    }

    #[test]
    fn without_a_failed_resource_the_stack_itself_tells_why() {
        let events = [
            event("AWS::CloudFormation::Stack ci-dev", "UPDATE_IN_PROGRESS", "User Initiated"),
            event("AWS::CloudFormation::Stack ci-dev", "UPDATE_ROLLBACK_IN_PROGRESS", "Parameter values are wrong"),
        ];
        assert_eq!(first_cause(&events).expect("a cause").reason, "Parameter values are wrong");
        assert_eq!(first_cause(&events[..1]), None);
    }

    #[test]
    fn what_could_not_be_deleted_in_the_end_is_left_behind() {
        let of = |id: &str, status: &str, reason: &str| Event {
            physical_id: id.into(),
            ..event("AWS::EC2::SecurityGroup Group", status, reason)
        };
        let events = [
            of("sg-old", "DELETE_IN_PROGRESS", ""),
            of("sg-old", "DELETE_FAILED", "has a dependent object"),
            of("sg-late", "DELETE_FAILED", "has a dependent object"),
            of("sg-old", "DELETE_IN_PROGRESS", ""),
            of("sg-old", "DELETE_FAILED", "has a dependent object"),
            of("sg-late", "DELETE_COMPLETE", ""),
            event("AWS::CloudFormation::Stack ci-dev", "UPDATE_COMPLETE", ""),
        ];
        assert_eq!(left_behind(&events), ["AWS::EC2::SecurityGroup sg-old (has a dependent object)"]);
    }

    #[test]
    fn known_reasons_have_a_fix() {
        let handler = "Resource handler returned message: \"User: arn:aws:sts::1:assumed-role/ops/ada is not authorized to perform: \
                       iam:CreateRole on resource: arn:aws:iam::1:role/ci-dev-job because no identity-based policy allows it\" \
                       (RequestToken: x, HandlerErrorCode: AccessDenied)";
        for (reason, fix_has) in [
            (handler, "Allow iam:CreateRole on arn:aws:iam::1:role/ci-dev-job to arn:aws:sts::1:assumed-role/ops/ada;"),
            (
                "API: ecs:CreateCluster User: arn:aws:iam::1:user/ada is not authorized to perform: ecs:CreateCluster",
                "Allow ecs:CreateCluster to arn:aws:iam::1:user/ada;",
            ),
            ("Access Denied (Service: Amazon S3)", "staffetta deploy policy"),
            ("ci-dev-job already exists in stack arn:x", "another `name`"),
            (
                "Resource of type 'AWS::Logs::LogGroup' already exists. (HandlerErrorCode: AlreadyExists)",
                "another `name`",
            ),
            ("Cannot exceed quota for RolesPerAccount: 1000 (ServiceLimitExceeded)", "Service Quotas"),
            (
                "You can't create this secret because a secret with this name is already scheduled for deletion.",
                "wait two minutes and apply again. If",
            ),
            ("You can't perform this operation on the secret because it was deleted.", "wait two minutes"),
            ("Error occurred during operation 'ECS Deployment Circuit Breaker was triggered'.", "staffetta doctor"),
            (
                "Unable to assume the service linked role. Please verify that the ECS service linked role exists.",
                "Apply again",
            ),
            ("The bucket you tried to delete is not empty", "bucket-1 is not empty"),
            ("resource bucket-1 has a dependent object", "Values=bucket-1"),
            ("The security token included in the request is expired (ExpiredToken)", "Take new ones"),
        ] {
            let found = fix(reason, "bucket-1").unwrap_or_default();
            assert!(found.contains(fix_has), "{reason}: {found}");
        }
        assert_eq!(fix("Properties validation failed", "x"), None);
    }
}
