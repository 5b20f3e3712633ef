//! Policies as data: for templates, for people who review them, and for the test that compares them with every call that is made.

use serde_json::{Map, Value, json};

/// A role that the stacks make, and all that it may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    pub purpose: Purpose,
    pub name: String,
    pub account: String,
    /// The environment that it belongs to; none is a role of a shared manager.
    pub environment: Option<String>,
    /// The trust policy.
    pub trust: Value,
    /// ARNs of managed policies.
    pub managed: Vec<String>,
    /// A policy document of the file, as it stands there: of a job role.
    pub given: Option<Value>,
    pub statements: Vec<Statement>,
    /// The ARN of a policy that bounds it.
    pub boundary: Option<String>,
}

/// Who has the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The jobs: what `job_role` of the file says, and no more.
    Job,
    /// ECS, to prepare the task of a job.
    Execution,
    /// The manager, for the tasks of one environment.
    Manager,
    /// The task of a shared manager: it may only take managers' roles.
    SharedManager,
    /// ECS, to prepare the manager's own task.
    ManagerExecution,
}

/// One `Allow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Letters and digits.
    pub sid: &'static str,
    pub actions: Vec<&'static str>,
    /// ARNs, or `*` for actions that know no resource.
    pub resources: Vec<String>,
    pub conditions: Vec<Condition>,
    /// For people: why it is needed.
    pub why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `StringEquals`, `ArnEquals`, …
    pub operator: &'static str,
    pub key: &'static str,
    pub values: Vec<String>,
}

impl Role {
    /// Its own policy document; none where managed policies are all that it has.
    pub fn policy(&self) -> Option<Value> {
        self.given.clone().or_else(|| (!self.statements.is_empty()).then(|| document(&self.statements)))
    }
}

impl Statement {
    pub fn json(&self) -> Value {
        let mut statement = json!({
            "Sid": self.sid, "Effect": "Allow", "Action": self.actions, "Resource": self.resources,
        });
        let mut conditions = Map::new();
        for Condition { operator, key, values } in &self.conditions {
            conditions.entry(*operator).or_insert_with(|| json!({}))[*key] = json!(values);
        }
        if !conditions.is_empty() {
            statement["Condition"] = Value::Object(conditions);
        }
        statement
    }
}

/// A statement about these resources; none where there are none.
pub(super) fn statement(
    sid: &'static str,
    actions: &[&'static str],
    mut resources: Vec<String>,
    why: &'static str,
) -> Option<Statement> {
    resources.sort();
    resources.dedup();
    let is_used = !resources.is_empty();
    is_used.then(|| Statement { sid, actions: actions.to_vec(), resources, conditions: Vec::new(), why })
}

/// With a condition more.
pub(super) fn with(
    mut statement: Statement,
    operator: &'static str,
    key: &'static str,
    values: impl IntoIterator<Item = impl Into<String>>,
) -> Statement {
    let mut values: Vec<_> = values.into_iter().map(Into::into).collect();
    values.sort();
    values.dedup();
    statement.conditions.push(Condition { operator, key, values });
    statement
}

/// A policy document of these statements.
pub fn document(statements: &[Statement]) -> Value {
    json!({"Version": "2012-10-17", "Statement": statements.iter().map(Statement::json).collect::<Vec<_>>()})
}

/// The statements as documents that are short enough for managed policies, of which a role may have ten.
pub fn managed_policies(statements: &[Statement]) -> Vec<Value> {
    const LONGEST: usize = 6144;
    let mut policies = Vec::new();
    let mut rest = statements;
    while !rest.is_empty() {
        let fits = |count: &usize| document(&rest[..*count]).to_string().len() <= LONGEST;
        let count = (1..=rest.len()).take_while(fits).last().unwrap_or(1);
        policies.push(document(&rest[..count]));
        rest = &rest[count..];
    }
    policies
}
