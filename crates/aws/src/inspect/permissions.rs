//! What a user or role may do, by IAM's own simulator: its policies, its boundary, and the organization's (facts 9.4).

use crate::errors::CallError;
use crate::session::Session;
use crate::stack::Statement;
use crate::xml::Element;

/// The answer about one action on one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simulated {
    pub action: String,
    pub resource: String,
    pub decision: Decision,
    /// Condition keys on which some statement depends, and which were not told.
    pub missing_context: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Allowed,
    /// No statement allows it.
    NotAllowed,
    /// Some statement denies it.
    Denied,
    /// The organization's policies do not allow it, whatever the principal's own say.
    DeniedByOrganization,
    /// The permissions boundary does not allow it, whatever the policies say.
    DeniedByBoundary,
}

/// Whether a principal may do what a statement allows, in the circumstances that its conditions name. `principal` is the ARN
/// of a user or a role with its path. Where the statement has a pattern one example is asked for. Needs
/// `iam:SimulatePrincipalPolicy`.
pub async fn simulate(session: &Session, principal: &str, statement: &Statement) -> Result<Vec<Simulated>, CallError> {
    let resources: Vec<String> = statement.resources.iter().map(|resource| example(resource)).collect();
    let mut question = vec![("PolicySourceArn".to_owned(), principal.to_owned())];
    for (index, action) in statement.actions.iter().enumerate() {
        question.push((format!("ActionNames.member.{}", index + 1), (*action).to_owned()));
    }
    for (index, resource) in resources.iter().enumerate() {
        question.push((format!("ResourceArns.member.{}", index + 1), resource.clone()));
    }
    for (index, condition) in statement.conditions.iter().enumerate() {
        let entry = format!("ContextEntries.member.{}", index + 1);
        let kind = if condition.values.len() == 1 { "string" } else { "stringList" };
        question.push((format!("{entry}.ContextKeyName"), condition.key.to_owned()));
        question.push((format!("{entry}.ContextKeyType"), kind.to_owned()));
        for (index, value) in condition.values.iter().enumerate() {
            question.push((format!("{entry}.ContextKeyValues.member.{}", index + 1), value.clone()));
        }
    }
    let answer = session.query("iam", "2010-05-08", "SimulatePrincipalPolicy", &question).await?;
    Ok(answer.list("EvaluationResults").flat_map(|result| of_action(result, &resources)).collect())
}

/// One resource that the pattern is about; `*` alone is for actions that know none.
fn example(pattern: &str) -> String {
    if pattern == "*" { pattern.to_owned() } else { pattern.replace(['*', '?'], "1") }
}

/// There is one result for each action, with one of its own for each resource; the result of an action on `*` has none.
fn of_action(result: &Element, resources: &[String]) -> Vec<Simulated> {
    let action = result.text("EvalActionName");
    let of_resources: Vec<_> = result.list("ResourceSpecificResults").collect();
    if of_resources.is_empty() {
        // What it names may be no more than the form of such an ARN.
        return resources
            .iter()
            .map(|resource| simulated(action, resource, result, result.text("EvalDecision")))
            .collect();
    }
    let one = |it: &&Element| simulated(action, it.text("EvalResourceName"), it, it.text("EvalResourceDecision"));
    of_resources.iter().map(one).collect()
}

fn simulated(action: &str, resource: &str, result: &Element, decision: &str) -> Simulated {
    let is_false = |detail: &str, key: &str| result.child(detail).text(key) == "false";
    let decision = match decision {
        "allowed" => Decision::Allowed,
        _ if is_false("OrganizationsDecisionDetail", "AllowedByOrganizations") => Decision::DeniedByOrganization,
        _ if is_false("PermissionsBoundaryDecisionDetail", "AllowedByPermissionsBoundary") => {
            Decision::DeniedByBoundary
        }
        "explicitDeny" => Decision::Denied,
        _ => Decision::NotAllowed,
    };
    Simulated {
        action: action.to_owned(),
        resource: resource.to_owned(),
        decision,
        missing_context: result.list("MissingContextValues").map(|key| key.text.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(results: &str) -> Vec<(String, String, Decision, Vec<String>)> {
        let answer = format!("<R><EvaluationResults>{results}</EvaluationResults></R>");
        let answer = Element::read(&answer).expect("XML");
        let resources = ["arn:a".to_owned(), "arn:b".to_owned()];
        let all = answer.list("EvaluationResults").flat_map(|result| of_action(result, &resources));
        all.map(|it| (it.action, it.resource, it.decision, it.missing_context)).collect()
    }

    #[test]
    fn each_resource_has_a_decision_of_its_own() {
        let read = read(
            "<member><EvalActionName>iam:PassRole</EvalActionName>
              <EvalResourceName>arn:${Partition}:iam::${Account}:role/${RoleNameWithPath}</EvalResourceName>
              <EvalDecision>implicitDeny</EvalDecision>
              <ResourceSpecificResults>
                <member><EvalResourceName>arn:a</EvalResourceName><EvalResourceDecision>allowed</EvalResourceDecision></member>
                <member><EvalResourceName>arn:b</EvalResourceName><EvalResourceDecision>implicitDeny</EvalResourceDecision>
                  <MissingContextValues><member>aws:SourceVpc</member></MissingContextValues></member>
              </ResourceSpecificResults></member>",
        );
        let action = || "iam:PassRole".to_owned();
        let missing = vec!["aws:SourceVpc".to_owned()];
        assert_eq!(
            read,
            [
                (action(), "arn:a".into(), Decision::Allowed, vec![]),
                (action(), "arn:b".into(), Decision::NotAllowed, missing)
            ]
        );
    }

    #[test]
    fn who_denies_is_told() {
        let of = |decision: &str, detail: &str| {
            read(&format!(
                "<member><EvalActionName>ecs:RunTask</EvalActionName><EvalDecision>{decision}</EvalDecision>{detail}</member>"
            ))[0]
            .2
        };
        let organization = "<OrganizationsDecisionDetail><AllowedByOrganizations>false</AllowedByOrganizations></OrganizationsDecisionDetail>";
        let boundary = "<PermissionsBoundaryDecisionDetail><AllowedByPermissionsBoundary>false</AllowedByPermissionsBoundary>\
            </PermissionsBoundaryDecisionDetail>";
        assert_eq!(of("allowed", ""), Decision::Allowed);
        assert_eq!(of("implicitDeny", ""), Decision::NotAllowed);
        assert_eq!(of("explicitDeny", ""), Decision::Denied);
        assert_eq!(of("explicitDeny", organization), Decision::DeniedByOrganization);
        assert_eq!(of("implicitDeny", boundary), Decision::DeniedByBoundary);
    }

    #[test]
    fn of_a_pattern_one_example_is_asked_for() {
        for (pattern, asked) in [
            ("*", "*"),
            ("arn:aws:ecs:r:1:task/ci-dev/*", "arn:aws:ecs:r:1:task/ci-dev/1"),
            ("arn:aws:ecs:r:1:task-definition/ci-dev:*", "arn:aws:ecs:r:1:task-definition/ci-dev:1"),
            ("arn:aws:secretsmanager:r:1:secret:a-??????", "arn:aws:secretsmanager:r:1:secret:a-111111"),
        ] {
            assert_eq!(example(pattern), asked);
        }
    }
}
