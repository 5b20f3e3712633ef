//! What is said while CloudFormation says nothing: it waits for a service to be steady, perhaps for hours, without an event.

use std::time::Duration;

use aws::stack::cloudformation::Event;

const FIRST: Duration = Duration::from_secs(2 * 60);
const AGAIN: Duration = Duration::from_secs(10 * 60);

/// Whether it is time for a line, `quiet` after the last event and after `told` such lines.
pub fn is_due(quiet: Duration, told: u32) -> bool {
    quiet >= FIRST + AGAIN * told
}

/// What CloudFormation still waits for, by the events of this operation, and how to see why.
pub fn waits_for(events: &[Event], region: &str) -> String {
    let is_last = |at: usize, event: &Event| events[at + 1..].iter().all(|later| later.logical_id != event.logical_id);
    let under_way = events
        .iter()
        .enumerate()
        .filter(|(at, event)| !event.is_of_stack() && event.status.ends_with("_IN_PROGRESS") && is_last(*at, event));
    let under_way: Vec<_> = under_way.map(|(_, event)| event).collect();
    if under_way.is_empty() {
        return "CloudFormation is at work, without an event for a while.".to_owned();
    }
    let names: Vec<_> = under_way.iter().map(|it| format!("{} {}", it.resource_type, it.logical_id)).collect();
    let mut text = format!("CloudFormation still waits for {}.", names.join(", "));
    for service in under_way.iter().filter_map(|event| service(&event.physical_id)) {
        let (cluster, name) = service;
        text.push_str(&format!(
            " Its events say why: `aws ecs describe-services --cluster {cluster} --services {name} --region {region}`."
        ));
    }
    text
}

/// Cluster and name of a service, from its ARN.
fn service(arn: &str) -> Option<(&str, &str)> {
    arn.strip_prefix("arn:")?.split_once(":service/")?.1.split_once('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(resource: &str, physical_id: &str, status: &str) -> Event {
        let (resource_type, logical_id) = resource.split_once(' ').expect("type and name");
        Event {
            id: status.into(),
            time: String::new(),
            logical_id: logical_id.into(),
            physical_id: physical_id.into(),
            resource_type: resource_type.into(),
            status: status.into(),
            reason: None,
        }
    }

    #[test]
    fn a_line_comes_after_two_minutes_and_then_rarely() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        for (quiet, told, expected) in [
            (minutes(1), 0, false),
            (minutes(2), 0, true),
            (minutes(3), 1, false),
            (minutes(12), 1, true),
            (minutes(13), 2, false),
            (minutes(22), 2, true),
        ] {
            assert_eq!(is_due(quiet, told), expected, "{quiet:?}, {told}");
        }
    }

    #[test]
    fn it_says_what_is_waited_for_and_how_to_see_why() {
        const SERVICE: &str = "arn:aws:ecs:eu-west-1:123456789012:service/ci-dev-manager/ci-dev-manager";
        let mut events = vec![
            event("AWS::CloudFormation::Stack ci-dev-manager", "", "CREATE_IN_PROGRESS"),
            event("AWS::ECS::Cluster Cluster", "", "CREATE_IN_PROGRESS"),
            event("AWS::ECS::Cluster Cluster", "ci-dev-manager", "CREATE_COMPLETE"),
            event("AWS::ECS::Service Service", "", "CREATE_IN_PROGRESS"),
            event("AWS::ECS::Service Service", SERVICE, "CREATE_IN_PROGRESS"),
        ];
        assert_eq!(
            waits_for(&events, "eu-west-1"),
            "CloudFormation still waits for AWS::ECS::Service Service. Its events say why: `aws ecs describe-services --cluster \
             ci-dev-manager --services ci-dev-manager --region eu-west-1`."
        );
        events.push(event("AWS::ECS::Service Service", SERVICE, "CREATE_COMPLETE"));
        assert!(waits_for(&events, "eu-west-1").contains("without an event for a while"));
    }
}
