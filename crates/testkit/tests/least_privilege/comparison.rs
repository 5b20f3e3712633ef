//! The comparison itself: policies against what IAM was asked because of the recorded calls, both ways.

use std::collections::{BTreeMap, BTreeSet};

use aws::stack::{Statement, document};
use testkit::iam::{Decision, Question};

/// Somebody with policies.
#[derive(Debug)]
pub struct Principal {
    /// `manager of dev`
    pub name: String,
    /// `manager`: what one of them uses all of them need, since they are made alike.
    pub kind: &'static str,
    pub statements: Vec<Statement>,
}

/// A question that IAM was asked because of a recorded call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    pub principal: String,
    pub question: Question,
    /// `ecs:RunTask`: what was really called.
    pub call: String,
}

/// Actions of a policy that no recorder can see, because AWS itself makes the call.
#[derive(Debug)]
pub struct Unseen {
    pub kind: &'static str,
    pub actions: &'static [&'static str],
    pub why: &'static str,
}

/// Every way in which calls and policies differ, each a sentence.
pub fn mistakes(principals: &[Principal], asked: &BTreeSet<Asked>, unseen: &[Unseen]) -> Vec<String> {
    let mut mistakes = refused(principals, asked);
    mistakes.extend(unused(principals, asked, unseen));
    mistakes.extend(superfluous(principals, unseen));
    mistakes
}

/// Calls that no statement of their principal allows.
fn refused(principals: &[Principal], asked: &BTreeSet<Asked>) -> Vec<String> {
    let mut mistakes = BTreeSet::new();
    for Asked { principal, question, call } in asked {
        let Some(principal) = principals.iter().find(|known| known.name == *principal) else {
            mistakes.insert(format!("{call} is made by {principal}, who has no policy"));
            continue;
        };
        let decision = question.decide(&[document(&principal.statements)], None);
        if decision != Decision::Allowed {
            let Question { action, resource, context } = question;
            let context: Vec<_> = context.iter().map(|(key, values)| format!("{key}={}", values.join(","))).collect();
            mistakes.insert(format!(
                "a recorded {call} of the {} needs {action} on {resource} [{}], which no statement of its policy allows",
                principal.name,
                context.join(" "),
            ));
        }
    }
    mistakes.into_iter().collect()
}

/// Actions that a statement allows, and no recorded call asked that very statement for.
fn unused(principals: &[Principal], asked: &BTreeSet<Asked>, unseen: &[Unseen]) -> Vec<String> {
    // By kind, statement and action: whether some principal of the kind uses it.
    let mut used: BTreeMap<(&str, &str, &str), bool> = BTreeMap::new();
    for principal in principals {
        let own: Vec<_> = asked.iter().filter(|asked| asked.principal == principal.name).collect();
        for statement in &principal.statements {
            let json = statement.json();
            for action in &statement.actions {
                let by_call = own
                    .iter()
                    .any(|asked| asked.question.action.eq_ignore_ascii_case(action) && asked.question.matches(&json));
                let by_aws = is_unseen(unseen, principal.kind, action);
                *used.entry((principal.kind, statement.sid, action)).or_default() |= by_call || by_aws;
            }
        }
    }
    let unused = used.into_iter().filter(|(_, used)| !used);
    let sentence = |((kind, sid, action), _): ((&str, &str, &str), bool)| match action.contains(['*', '?']) {
        true => format!("the {kind}'s statement {sid} allows {action}: name the actions, or nobody knows what is used"),
        false => format!("the {kind}'s statement {sid} allows {action}, which no recorded call needs"),
    };
    unused.map(sentence).collect()
}

fn is_unseen(unseen: &[Unseen], kind: &str, action: &str) -> bool {
    unseen.iter().any(|unseen| unseen.kind == kind && unseen.actions.contains(&action))
}

/// Exceptions for what no policy has any more.
fn superfluous(principals: &[Principal], unseen: &[Unseen]) -> Vec<String> {
    let has = |kind: &str, action: &str| {
        let of_kind = principals.iter().filter(|principal| principal.kind == kind);
        of_kind.flat_map(|principal| &principal.statements).any(|statement| statement.actions.contains(&action))
    };
    let gone = |unseen: &Unseen| {
        let actions = unseen.actions.iter().filter(|action| !has(unseen.kind, action));
        let sentence = |action: &&str| {
            format!("no policy of the {} has {action}, which is excepted as: {}", unseen.kind, unseen.why)
        };
        actions.map(sentence).collect::<Vec<_>>()
    };
    unseen.iter().flat_map(gone).collect()
}

/// Calls of one principal that another of the same kind could make too: environments that reach each other.
pub fn reaching_others(principals: &[Principal], asked: &BTreeSet<Asked>) -> Vec<String> {
    let mut mistakes = BTreeSet::new();
    for Asked { principal, question, call } in asked {
        let Some(own) = principals.iter().find(|known| known.name == *principal) else { continue };
        for other in principals.iter().filter(|other| other.kind == own.kind && other.name != own.name) {
            if question.decide(&[document(&other.statements)], None) == Decision::Allowed {
                let Question { action, resource, .. } = question;
                mistakes.insert(format!("the {} may {action} on {resource}: {call} of the {}", other.name, own.name));
            }
        }
    }
    mistakes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: &str = "arn:aws:ecs:eu-west-1:123456789012:cluster/ci-dev";

    fn statement(actions: &[&'static str], resource: &str) -> Statement {
        Statement {
            sid: "It",
            actions: actions.to_vec(),
            resources: vec![resource.to_owned()],
            conditions: Vec::new(),
            why: "for the test",
        }
    }

    fn manager(of: &str, statements: Vec<Statement>) -> Principal {
        Principal { name: format!("manager of {of}"), kind: "manager", statements }
    }

    fn asked(calls: &[(&str, &str)]) -> BTreeSet<Asked> {
        let one = |(action, resource): &(&str, &str)| Asked {
            principal: "manager of dev".into(),
            question: Question::new(action, resource),
            call: (*action).to_owned(),
        };
        calls.iter().map(one).collect()
    }

    #[test]
    fn a_policy_that_allows_what_is_called_and_nothing_else_is_right() {
        let principals = [manager("dev", vec![statement(&["ecs:DescribeClusters"], DEV)])];
        assert_eq!(mistakes(&principals, &asked(&[("ecs:DescribeClusters", DEV)]), &[]), [""; 0]);
    }

    #[test]
    fn an_action_that_nothing_uses_is_a_mistake() {
        let actions = ["ecs:DescribeClusters", "ecs:DeleteCluster"];
        let found =
            mistakes(&[manager("dev", vec![statement(&actions, DEV)])], &asked(&[("ecs:DescribeClusters", DEV)]), &[]);
        assert_eq!(found, ["the manager's statement It allows ecs:DeleteCluster, which no recorded call needs"]);
        // Also if the call is made, but about something that this statement is not for.
        let statements = vec![statement(&["ecs:DescribeClusters"], DEV), statement(&["ecs:DescribeClusters"], "x")];
        let mut statements = statements;
        statements[1].sid = "Other";
        let found = mistakes(&[manager("dev", statements)], &asked(&[("ecs:DescribeClusters", DEV)]), &[]);
        assert_eq!(found, ["the manager's statement Other allows ecs:DescribeClusters, which no recorded call needs"]);
        let found = mistakes(
            &[manager("dev", vec![statement(&["ecs:*"], DEV)])],
            &asked(&[("ecs:DescribeClusters", DEV)]),
            &[],
        );
        assert!(found.len() == 1 && found[0].contains("name the actions"), "{found:?}");
    }

    #[test]
    fn a_call_without_a_policy_is_a_mistake() {
        let principals = [manager("dev", vec![statement(&["ecs:DescribeClusters"], DEV)])];
        let calls = asked(&[("ecs:DescribeClusters", DEV), ("ecs:UpdateService", "arn:aws:ecs:x")]);
        let expected = "a recorded ecs:UpdateService of the manager of dev needs ecs:UpdateService on arn:aws:ecs:x [], \
                        which no statement of its policy allows";
        assert_eq!(mistakes(&principals, &calls, &[]), [expected]);
        assert_eq!(mistakes(&[], &asked(&[("ecs:ListTasks", "*")]), &[]).len(), 1);
    }

    #[test]
    fn an_exception_holds_only_as_long_as_it_is_needed() {
        let principals = [manager("dev", vec![statement(&["ecr:BatchGetImage"], "*")])];
        let unseen = |actions| [Unseen { kind: "manager", actions, why: "ECS does it" }];
        assert_eq!(mistakes(&principals, &BTreeSet::new(), &unseen(&["ecr:BatchGetImage"])), [""; 0]);
        let found = mistakes(&principals, &BTreeSet::new(), &unseen(&["ecr:BatchGetImage", "ecr:PutImage"]));
        assert_eq!(found, ["no policy of the manager has ecr:PutImage, which is excepted as: ECS does it"]);
    }

    #[test]
    fn what_one_environment_calls_no_other_may() {
        let of = |name, resource| manager(name, vec![statement(&["ecs:DescribeClusters"], resource)]);
        let calls = asked(&[("ecs:DescribeClusters", DEV)]);
        assert_eq!(reaching_others(&[of("dev", DEV), of("staging", "arn:aws:ecs:y")], &calls), [""; 0]);
        let wide = "arn:aws:ecs:*:*:cluster/ci-*";
        let expected = format!(
            "the manager of staging may ecs:DescribeClusters on {DEV}: ecs:DescribeClusters of the manager of dev"
        );
        assert_eq!(reaching_others(&[of("dev", DEV), of("staging", wide)], &calls), [expected]);
    }
}
