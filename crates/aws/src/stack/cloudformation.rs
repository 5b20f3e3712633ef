//! CloudFormation in one account and region. Shapes and words are those of its API reference (2010-05-15).
//!
//! A call may be repeated when its answer is lost. What changes something carries the caller's token, so the repeat is the
//! same request to CloudFormation.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::errors::{CallError, Refusal};
use crate::session::Session;
use crate::xml::Element;

/// Between two looks at a change set that is being made.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a change set may be in the making.
const CHANGE_SET: Duration = Duration::from_secs(5 * 60);
const VERSION: &str = "2010-05-15";
/// The most that a template may have when it is sent with the call.
pub const LARGEST_TEMPLATE: usize = 51_200;

/// What a stack is to become.
#[derive(Debug, Clone)]
pub struct StackOrder {
    pub name: String,
    /// JSON, at most [`LARGEST_TEMPLATE`] bytes.
    pub template: String,
    pub parameters: Vec<(String, String)>,
    pub tags: Vec<(String, String)>,
}

/// A stack as CloudFormation describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackRecord {
    /// An ARN: it names the stack also when it is deleted.
    pub id: String,
    /// CloudFormation's own word.
    pub status: String,
    pub reason: Option<String>,
    pub parameters: BTreeMap<String, String>,
    pub outputs: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
}

/// What can be done with a stack, by its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Something is under way.
    Working,
    /// As it was last asked for.
    Stands,
    /// As it was before its last update, which failed.
    TakenBack,
    /// The record of a stack that was never there, or no longer is there with its resources: it blocks the name.
    OnlyRecord,
    /// Resources may be left of a stack that was to go.
    Remains,
    /// An update could be neither made nor taken back.
    StuckUpdate,
    /// Somebody works on it with other tools: an import that failed, an update that may not be taken back.
    Foreign,
    Gone,
}

impl StackRecord {
    pub fn phase(&self) -> Phase {
        phase(&self.status)
    }
}

pub fn phase(status: &str) -> Phase {
    match status {
        "REVIEW_IN_PROGRESS" | "ROLLBACK_COMPLETE" => Phase::OnlyRecord,
        "CREATE_COMPLETE" | "UPDATE_COMPLETE" | "IMPORT_COMPLETE" => Phase::Stands,
        "UPDATE_ROLLBACK_COMPLETE" | "IMPORT_ROLLBACK_COMPLETE" => Phase::TakenBack,
        "CREATE_FAILED" | "ROLLBACK_FAILED" | "DELETE_FAILED" => Phase::Remains,
        "UPDATE_ROLLBACK_FAILED" => Phase::StuckUpdate,
        "DELETE_COMPLETE" => Phase::Gone,
        status if status.ends_with("_IN_PROGRESS") => Phase::Working,
        _ => Phase::Foreign,
    }
}

/// One line of a stack's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    /// RFC 3339, UTC.
    pub time: String,
    pub logical_id: String,
    pub physical_id: String,
    pub resource_type: String,
    pub status: String,
    pub reason: Option<String>,
}

impl Event {
    /// Of the stack itself, not of a resource in it: our stacks have none below them.
    pub fn is_of_stack(&self) -> bool {
        self.resource_type == "AWS::CloudFormation::Stack"
    }
}

/// What an update would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeSet {
    /// The stack is as it is asked for.
    NoChange,
    /// Empty if only outputs change, or tags of the stack.
    Changes(Vec<Change>),
    /// CloudFormation cannot make it, for this reason.
    Impossible(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `Add`, `Modify`, `Remove`, `Import` or `Dynamic`.
    pub action: String,
    pub logical_id: String,
    pub resource_type: String,
    pub replacement: Replacement,
    /// What of the resource changes: `Cpu`, `Tags`.
    pub causes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replacement {
    Never,
    /// It depends on values that are known only when the update is made.
    Perhaps,
    Always,
}

pub struct CloudFormation<'a> {
    session: &'a Session,
}

impl<'a> CloudFormation<'a> {
    pub fn new(session: &'a Session) -> Self {
        Self { session }
    }

    /// `stack` is a name, or an id for one that may be deleted.
    pub async fn describe(&self, stack: &str) -> Result<Option<StackRecord>, CallError> {
        match self.call("DescribeStacks", &[("StackName", stack)]).await {
            Ok(answer) => Ok(answer.list("Stacks").next().map(record)),
            Err(CallError::Refused(refusal)) if is_not_there(&refusal) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Begins to make a stack. Answers its id; none where it was there already, as after a call whose answer was lost.
    pub async fn create(&self, order: &StackOrder, token: &str) -> Result<Option<String>, CallError> {
        let mut parameters = parameters_of(order);
        parameters.push(("ClientRequestToken".into(), token.into()));
        match self.session.query("cloudformation", VERSION, "CreateStack", &parameters).await {
            Err(CallError::Refused(refusal)) if refusal.code == "AlreadyExistsException" => Ok(None),
            answer => Ok(answer?.filled("StackId")),
        }
    }

    /// Makes a change set of this name, which must be new, and waits until it says what it would do. Nothing of the stack
    /// changes. The change set stays if there are changes, and perhaps after an error.
    pub async fn make_change_set(&self, order: &StackOrder, name: &str) -> Result<ChangeSet, CallError> {
        let mut parameters = parameters_of(order);
        let more = [("ChangeSetName", name), ("ChangeSetType", "UPDATE"), ("ClientToken", name)];
        parameters.extend(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let answer = self.session.query("cloudformation", VERSION, "CreateChangeSet", &parameters).await;
        match already(answer, "AlreadyExistsException") {
            Err(CallError::Refused(refusal)) if is_no_change(&refusal.message) => return Ok(ChangeSet::NoChange),
            other => other?,
        }
        let limit = Instant::now() + CHANGE_SET;
        let (status, reason, changes) = loop {
            let (answer, changes) = self.describe_change_set(&order.name, name).await?;
            match answer.text("Status") {
                status @ ("CREATE_PENDING" | "CREATE_IN_PROGRESS") if Instant::now() > limit => {
                    let minutes = CHANGE_SET.as_secs() / 60;
                    return Err(CallError::NoAnswer(format!("the change set is in {status} after {minutes} minutes")));
                }
                "CREATE_PENDING" | "CREATE_IN_PROGRESS" => tokio::time::sleep(LOOK_AGAIN).await,
                status => break (status.to_owned(), answer.text("StatusReason").to_owned(), changes),
            }
        };
        if status == "CREATE_COMPLETE" {
            return Ok(ChangeSet::Changes(changes));
        }
        self.delete_change_set(&order.name, name).await?;
        Ok(match is_no_change(&reason) {
            true => ChangeSet::NoChange,
            false => ChangeSet::Impossible(if reason.is_empty() { status } else { reason }),
        })
    }

    /// All pages of a change set: the last, and the changes of all.
    async fn describe_change_set(&self, stack: &str, name: &str) -> Result<(Element, Vec<Change>), CallError> {
        let mut changes = Vec::new();
        let mut next = None;
        loop {
            let mut parameters = vec![("StackName", stack), ("ChangeSetName", name)];
            parameters.extend(next.as_deref().map(|token| ("NextToken", token)));
            let answer = self.call("DescribeChangeSet", &parameters).await?;
            changes.extend(answer.list("Changes").map(|item| change(item.child("ResourceChange"))));
            next = answer.filled("NextToken");
            if next.is_none() {
                return Ok((answer, changes));
            }
        }
    }

    /// Begins to do what the change set says. False: CloudFormation refuses it as one that is executed already, as a repeated call
    /// may find it whose first answer was lost.
    pub async fn execute_change_set(&self, stack: &str, name: &str, token: &str) -> Result<bool, CallError> {
        let parameters = [("StackName", stack), ("ChangeSetName", name), ("ClientRequestToken", token)];
        match self.call("ExecuteChangeSet", &parameters).await {
            Err(CallError::Refused(refusal))
                if ["InvalidChangeSetStatus", "ChangeSetNotFound"].contains(&refusal.code.as_str()) =>
            {
                Ok(false)
            }
            answer => answer.map(|_| true),
        }
    }

    pub async fn delete_change_set(&self, stack: &str, name: &str) -> Result<(), CallError> {
        let answer = self.call("DeleteChangeSet", &[("StackName", stack), ("ChangeSetName", name)]).await;
        already(answer, "ChangeSetNotFound")
    }

    /// Begins to take back an update that could not be taken back.
    pub async fn continue_rollback(&self, stack: &str, token: &str) -> Result<(), CallError> {
        self.call("ContinueUpdateRollback", &[("StackName", stack), ("ClientRequestToken", token)]).await.map(drop)
    }

    /// Begins to delete a stack, or its record.
    pub async fn delete(&self, stack: &str, token: &str) -> Result<(), CallError> {
        self.call("DeleteStack", &[("StackName", stack), ("ClientRequestToken", token)]).await.map(drop)
    }

    /// What happened after the event `last`, oldest first; without one, all that is known.
    pub async fn events_after(&self, stack: &str, last: Option<&str>) -> Result<Vec<Event>, CallError> {
        let mut events = Vec::new();
        let mut next = None;
        // Newest first, in pages.
        'pages: loop {
            let mut parameters = vec![("StackName", stack)];
            parameters.extend(next.as_deref().map(|token| ("NextToken", token)));
            let answer = self.call("DescribeStackEvents", &parameters).await?;
            for event in answer.list("StackEvents").map(event) {
                if Some(event.id.as_str()) == last {
                    break 'pages;
                }
                events.push(event);
            }
            next = answer.filled("NextToken");
            if next.is_none() {
                break;
            }
        }
        events.reverse();
        Ok(events)
    }

    /// The last event of a stack: what comes after it belongs to what is begun now.
    pub async fn last_event(&self, stack: &str) -> Result<Option<String>, CallError> {
        let answer = self.call("DescribeStackEvents", &[("StackName", stack)]).await?;
        Ok(answer.list("StackEvents").next().map(|event| event.text("EventId").to_owned()))
    }

    async fn call(&self, action: &str, parameters: &[(&str, &str)]) -> Result<Element, CallError> {
        let parameters: Vec<_> =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.session.query("cloudformation", VERSION, action, &parameters).await
    }
}

fn parameters_of(order: &StackOrder) -> Vec<(String, String)> {
    let mut parameters = vec![
        ("StackName".to_owned(), order.name.clone()),
        ("TemplateBody".to_owned(), order.template.clone()),
        // Roles have names, so that policies can name them.
        ("Capabilities.member.1".to_owned(), "CAPABILITY_NAMED_IAM".to_owned()),
    ];
    let mut list = |list: &str, key: &str, value: &str, pairs: &[(String, String)]| {
        for (at, (name, text)) in pairs.iter().enumerate() {
            let at = at + 1;
            parameters.push((format!("{list}.member.{at}.{key}"), name.clone()));
            parameters.push((format!("{list}.member.{at}.{value}"), text.clone()));
        }
    };
    list("Parameters", "ParameterKey", "ParameterValue", &order.parameters);
    list("Tags", "Key", "Value", &order.tags);
    parameters
}

fn is_not_there(refusal: &Refusal) -> bool {
    refusal.code == "ValidationError" && refusal.message.contains("does not exist")
}

/// CloudFormation says it in two ways, and has no code for it.
fn is_no_change(reason: &str) -> bool {
    reason.contains("didn't contain changes") || reason.contains("No updates are to be performed")
}

/// A repeat of a call whose answer was lost finds it done.
fn already(answer: Result<Element, CallError>, done: &str) -> Result<(), CallError> {
    match answer {
        Err(CallError::Refused(refusal)) if refusal.code == done => Ok(()),
        answer => answer.map(drop),
    }
}

fn record(stack: &Element) -> StackRecord {
    let pairs = |list: &str, key: &str, value: &str| {
        let pair = |item: &Element| (item.text(key).to_owned(), item.text(value).to_owned());
        stack.list(list).map(pair).collect()
    };
    StackRecord {
        id: stack.text("StackId").to_owned(),
        status: stack.text("StackStatus").to_owned(),
        reason: stack.filled("StackStatusReason"),
        parameters: pairs("Parameters", "ParameterKey", "ParameterValue"),
        outputs: pairs("Outputs", "OutputKey", "OutputValue"),
        tags: pairs("Tags", "Key", "Value"),
    }
}

fn event(event: &Element) -> Event {
    let text = |name: &str| event.text(name).to_owned();
    Event {
        id: text("EventId"),
        time: text("Timestamp"),
        logical_id: text("LogicalResourceId"),
        physical_id: text("PhysicalResourceId"),
        resource_type: text("ResourceType"),
        status: text("ResourceStatus"),
        reason: event.filled("ResourceStatusReason"),
    }
}

fn change(change: &Element) -> Change {
    let mut causes: Vec<String> = Vec::new();
    for detail in change.list("Details") {
        let target = detail.child("Target");
        // A property has a name; tags, metadata and policies are named by their attribute.
        let cause = target.filled("Name").or_else(|| target.filled("Attribute"));
        causes.extend(cause.filter(|cause| !causes.contains(cause)));
    }
    Change {
        action: change.text("Action").to_owned(),
        logical_id: change.text("LogicalResourceId").to_owned(),
        resource_type: change.text("ResourceType").to_owned(),
        replacement: match change.text("Replacement") {
            "True" => Replacement::Always,
            "Conditional" => Replacement::Perhaps,
            _ => Replacement::Never,
        },
        causes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_says_what_can_be_done() {
        for (status, expected) in [
            ("CREATE_IN_PROGRESS", Phase::Working),
            ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", Phase::Working),
            ("UPDATE_ROLLBACK_IN_PROGRESS", Phase::Working),
            ("REVIEW_IN_PROGRESS", Phase::OnlyRecord),
            ("ROLLBACK_COMPLETE", Phase::OnlyRecord),
            ("UPDATE_COMPLETE", Phase::Stands),
            ("UPDATE_ROLLBACK_COMPLETE", Phase::TakenBack),
            ("ROLLBACK_FAILED", Phase::Remains),
            ("DELETE_FAILED", Phase::Remains),
            ("UPDATE_ROLLBACK_FAILED", Phase::StuckUpdate),
            ("UPDATE_FAILED", Phase::Foreign),
            ("IMPORT_ROLLBACK_FAILED", Phase::Foreign),
            ("DELETE_COMPLETE", Phase::Gone),
        ] {
            assert_eq!(phase(status), expected, "{status}");
        }
    }

    #[test]
    fn an_order_becomes_numbered_parameters() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let order = StackOrder {
            name: "ci-dev".into(),
            template: "{}".into(),
            parameters: vec![pair("DesiredCount", "1")],
            tags: vec![pair("a", "b"), pair("c", "")],
        };
        let sent = parameters_of(&order);
        for expected in [
            pair("Capabilities.member.1", "CAPABILITY_NAMED_IAM"),
            pair("Parameters.member.1.ParameterKey", "DesiredCount"),
            pair("Parameters.member.1.ParameterValue", "1"),
            pair("Tags.member.2.Key", "c"),
            pair("Tags.member.2.Value", ""),
        ] {
            assert!(sent.contains(&expected), "{expected:?} is not in {sent:?}");
        }
    }

    #[test]
    fn a_change_names_each_cause_once() {
        let answer = "<ResourceChange><Action>Modify</Action><LogicalResourceId>Task</LogicalResourceId>\
            <ResourceType>AWS::ECS::TaskDefinition</ResourceType><Replacement>True</Replacement><Details>\
            <member><Target><Attribute>Properties</Attribute><Name>Cpu</Name></Target></member>\
            <member><Target><Attribute>Properties</Attribute><Name>Cpu</Name></Target></member>\
            <member><Target><Attribute>Tags</Attribute></Target></member></Details></ResourceChange>";
        let change = change(&Element::read(answer).expect("XML"));
        assert_eq!(change.causes, ["Cpu", "Tags"]);
        assert_eq!(change.replacement, Replacement::Always);
    }

    #[test]
    fn only_a_stack_that_is_not_there_is_none() {
        let refusal = |code: &str, message: &str| Refusal { code: code.into(), message: message.into() };
        assert!(is_not_there(&refusal("ValidationError", "Stack with id ci-dev does not exist")));
        assert!(!is_not_there(&refusal("ValidationError", "1 validation error detected")));
        assert!(!is_not_there(&refusal("AccessDenied", "the role does not exist")));
    }
}
