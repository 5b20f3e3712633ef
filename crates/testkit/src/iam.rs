//! IAM's decision about one call, for policies of the kind that we write. No emulator makes it: moto's and ministack's evaluate
//! neither ECS's resources nor conditions (facts 11.3, 11.4).
//!
//! After "Policy evaluation logic" and "IAM JSON policy elements" of the IAM user guide. What a policy has beyond that (NotAction,
//! policy variables, session policies, service control policies) is refused with a panic: a judge must not guess.

use std::collections::BTreeMap;

use serde_json::Value;

/// What a principal asks to do: one action on one resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// `ecs:RunTask`
    pub action: String,
    /// An ARN, or `*` for an action that knows no resource.
    pub resource: String,
    /// Condition keys and their values; a key that the call does not have is not in it.
    pub context: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Allowed,
    /// Some statement says Deny.
    ExplicitDeny,
    /// No statement says Allow.
    ImplicitDeny,
}

impl Decision {
    /// As SimulatePrincipalPolicy words it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::ExplicitDeny => "explicitDeny",
            Self::ImplicitDeny => "implicitDeny",
        }
    }
}

impl Question {
    pub fn new(action: &str, resource: &str) -> Self {
        Self { action: action.to_owned(), resource: resource.to_owned(), context: BTreeMap::new() }
    }

    /// With one more condition key.
    pub fn with(mut self, key: &str, values: &[&str]) -> Self {
        self.context.insert(key.to_owned(), values.iter().map(|value| (*value).to_owned()).collect());
        self
    }

    /// What the policies of a principal, each a whole document, and its permissions boundary decide together.
    pub fn decide(&self, policies: &[Value], boundary: Option<&Value>) -> Decision {
        let all = policies.iter().chain(boundary);
        let statements = |policy: &Value| list(&policy["Statement"]).into_iter().cloned().collect::<Vec<_>>();
        let says = |policy: &Value, effect: &str| {
            statements(policy).iter().any(|statement| statement["Effect"] == effect && self.matches(statement))
        };
        if all.clone().any(|policy| says(policy, "Deny")) {
            return Decision::ExplicitDeny;
        }
        let allowed = policies.iter().any(|policy| says(policy, "Allow"));
        // A boundary gives nothing, it only bounds.
        match allowed && boundary.is_none_or(|boundary| says(boundary, "Allow")) {
            true => Decision::Allowed,
            false => Decision::ImplicitDeny,
        }
    }

    /// Whether a statement, of whatever effect, is about this question.
    pub fn matches(&self, statement: &Value) -> bool {
        let known = ["Sid", "Effect", "Action", "Resource", "Condition"];
        let keys = statement.as_object().expect("a statement is an object").keys();
        for key in keys {
            assert!(known.contains(&key.as_str()), "{key} of a policy is not known here");
        }
        let any = |element: &str, of: &str, fold: fn(&str) -> String| {
            list(&statement[element]).into_iter().any(|pattern| is_like(&fold(text(pattern)), &fold(of)))
        };
        any("Action", &self.action, str::to_ascii_lowercase)
            && any("Resource", &self.resource, str::to_owned)
            && self.meets(&statement["Condition"])
    }

    /// Every operator and every key of the block must hold.
    fn meets(&self, conditions: &Value) -> bool {
        let Some(conditions) = conditions.as_object() else { return true };
        conditions.iter().all(|(operator, keys)| {
            let keys = keys.as_object().expect("an operator has keys");
            keys.iter().all(|(key, wanted)| {
                let found = self.context.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
                let wanted: Vec<&str> = list(wanted).into_iter().map(text).collect();
                holds(operator, found.map(|(_, values)| values.as_slice()), &wanted)
            })
        })
    }
}

/// One operator on one key: `found` is what the call has, none is a key that it does not have.
fn holds(operator: &str, found: Option<&[String]>, wanted: &[&str]) -> bool {
    let (set, operator) = match operator.split_once(':') {
        Some((set, operator)) => (Some(set), operator),
        None => (None, operator),
    };
    let (if_exists, operator) = match operator.strip_suffix("IfExists") {
        Some(operator) => (true, operator),
        None => (false, operator),
    };
    if operator == "Null" {
        return wanted.contains(&if found.is_none() { "true" } else { "false" });
    }
    let (negated, equal): (bool, fn(&str, &str) -> bool) = match operator {
        "StringEquals" => (false, |value, wanted| value == wanted),
        "StringNotEquals" => (true, |value, wanted| value == wanted),
        "StringEqualsIgnoreCase" | "Bool" => (false, |value, wanted| value.eq_ignore_ascii_case(wanted)),
        "StringLike" => (false, |value, wanted| is_like(wanted, value)),
        "StringNotLike" => (true, |value, wanted| is_like(wanted, value)),
        // The guide: "ArnEquals and ArnLike behave identically".
        "ArnEquals" | "ArnLike" => (false, is_arn_like),
        "ArnNotEquals" | "ArnNotLike" => (true, is_arn_like),
        other => panic!("the condition operator {other} is not known here"),
    };
    // Several wanted values are alternatives; a negated operator wants none of them.
    let one = |value: &String| wanted.iter().any(|wanted| equal(value, wanted)) != negated;
    match (found, set) {
        (None, Some("ForAllValues")) => true,
        (None, Some("ForAnyValue")) => if_exists,
        (None, _) => if_exists || negated,
        (Some(values), Some("ForAllValues")) => values.iter().all(one),
        (Some(values), Some("ForAnyValue")) => values.iter().any(one),
        (Some([value]), None) => one(value),
        (Some(_), None) => panic!("a key of several values needs ForAllValues or ForAnyValue"),
        (_, Some(other)) => panic!("{other} is not known here"),
    }
}

/// Part by part: in a condition a wildcard does not reach over a colon, but for the last part.
fn is_arn_like(value: &str, pattern: &str) -> bool {
    let (value, pattern): (Vec<&str>, Vec<&str>) = (value.splitn(6, ':').collect(), pattern.splitn(6, ':').collect());
    value.len() == 6 && pattern.len() == 6 && value.iter().zip(&pattern).all(|(value, pattern)| is_like(pattern, value))
}

/// `*` is any text, also with `:` and `/` in it; `?` is one character.
fn is_like(pattern: &str, text: &str) -> bool {
    assert!(!pattern.contains("${"), "the policy variable in {pattern} is not known here");
    let mut pattern = pattern.chars();
    match pattern.next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = pattern.as_str();
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.into_iter().any(|at| is_like(rest, &text[at..]))
        }
        Some(wanted) => {
            let mut text = text.chars();
            text.next().is_some_and(|c| wanted == '?' || wanted == c) && is_like(pattern.as_str(), text.as_str())
        }
    }
}

/// One value may stand without its list.
fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(values) => values.iter().collect(),
        value => vec![value],
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text in a policy")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CLUSTER: &str = "arn:aws:ecs:eu-west-1:123456789012:cluster/ci-dev";

    fn allow(action: &str, resource: &str) -> Value {
        json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": action, "Resource": resource}})
    }

    fn deny(action: &str) -> Value {
        json!({"Statement": [{"Effect": "Deny", "Action": [action], "Resource": ["*"]}]})
    }

    #[test]
    fn nothing_is_allowed_that_no_statement_allows_and_a_deny_is_stronger() {
        let question = Question::new("ecs:DescribeClusters", CLUSTER);
        let right = allow("ecs:DescribeClusters", CLUSTER);
        for (policies, boundary, decision) in [
            (vec![], None, Decision::ImplicitDeny),
            (vec![right.clone()], None, Decision::Allowed),
            (vec![allow("ecs:ListTasks", "*"), right.clone()], None, Decision::Allowed),
            (vec![right.clone(), deny("ecs:*")], None, Decision::ExplicitDeny),
            (vec![right.clone(), deny("ec2:*")], None, Decision::Allowed),
            // A boundary bounds, and gives nothing.
            (vec![right.clone()], Some(allow("ecs:*", "*")), Decision::Allowed),
            (vec![right.clone()], Some(allow("ec2:*", "*")), Decision::ImplicitDeny),
            (vec![right], Some(deny("ecs:Describe*")), Decision::ExplicitDeny),
            (vec![], Some(allow("*", "*")), Decision::ImplicitDeny),
        ] {
            assert_eq!(question.decide(&policies, boundary.as_ref()), decision, "{policies:?} {boundary:?}");
        }
    }

    #[test]
    fn actions_have_no_case_and_resources_have_one() {
        for (action, resource, allowed) in [
            ("ECS:describeclusters", CLUSTER, true),
            ("ecs:Describe*", CLUSTER, true),
            ("ecs:DescribeCluster?", CLUSTER, true),
            ("ecs:DescribeClusters?", CLUSTER, false),
            ("*", "*", true),
            ("ecs:Describe", CLUSTER, false),
            ("ec2:*", CLUSTER, false),
            ("ecs:*", "arn:aws:ecs:*:123456789012:cluster/*", true),
            // The guide: a wildcard at the end of a part may reach over the colons.
            ("ecs:*", "arn:aws:ecs:*", true),
            ("ecs:*", "arn:aws:ecs:eu-west-1:123456789012:cluster/ci-???", true),
            ("ecs:*", "arn:aws:ecs:eu-west-1:123456789012:cluster/CI-dev", false),
            ("ecs:*", "arn:aws:ecs:eu-west-1:123456789012:cluster/ci-de", false),
            ("ecs:*", "arn:aws:ecs:eu-west-1:123456789012:cluster/ci-dev*x", false),
        ] {
            let decision = Question::new("ecs:DescribeClusters", CLUSTER).decide(&[allow(action, resource)], None);
            assert_eq!(decision == Decision::Allowed, allowed, "{action} {resource}");
        }
    }

    #[test]
    fn conditions_hold_as_the_guide_says_also_without_their_key() {
        let cluster = Some(vec![CLUSTER.to_owned()]);
        let tags = |tags: &[&str]| Some(tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>());
        for (operator, found, wanted, expected) in [
            ("ArnEquals", &cluster, json!(CLUSTER), true),
            ("ArnEquals", &cluster, json!("arn:aws:ecs:*:*:cluster/ci-*"), true),
            ("ArnLike", &cluster, json!("arn:aws:ecs:*:cluster/ci-dev"), false),
            ("ArnLike", &cluster, json!(["arn:aws:ecs:x:y:z", "arn:aws:ecs:*:*:*"]), true),
            ("ArnEquals", &tags(&["ci-dev"]), json!("*"), false),
            ("ArnEquals", &None, json!(CLUSTER), false),
            ("ArnNotEquals", &cluster, json!(CLUSTER), false),
            ("StringEquals", &tags(&["a"]), json!(["b", "a"]), true),
            ("StringEquals", &tags(&["A"]), json!("a"), false),
            ("StringEquals", &tags(&["a"]), json!("*"), false),
            ("StringLike", &tags(&["a/b"]), json!("a*"), true),
            ("StringEqualsIgnoreCase", &tags(&["A"]), json!("a"), true),
            ("Bool", &tags(&["true"]), json!("true"), true),
            ("Bool", &tags(&["true"]), json!("false"), false),
            ("StringEquals", &None, json!("a"), false),
            ("StringEqualsIfExists", &None, json!("a"), true),
            ("StringEqualsIfExists", &tags(&["b"]), json!("a"), false),
            ("StringNotEquals", &None, json!("a"), true),
            ("StringNotEquals", &tags(&["c"]), json!(["a", "b"]), true),
            ("StringNotEquals", &tags(&["a"]), json!(["a", "b"]), false),
            ("Null", &None, json!("true"), true),
            ("Null", &tags(&["a"]), json!("true"), false),
            ("Null", &tags(&["a"]), json!("false"), true),
            ("ForAllValues:StringEquals", &tags(&["a", "b"]), json!(["a", "b", "c"]), true),
            ("ForAllValues:StringEquals", &tags(&["a", "d"]), json!(["a", "b", "c"]), false),
            // The guide warns of it.
            ("ForAllValues:StringEquals", &None, json!("a"), true),
            ("ForAnyValue:StringEquals", &tags(&["a", "d"]), json!(["a"]), true),
            ("ForAnyValue:StringEquals", &None, json!(["a"]), false),
        ] {
            let mut question = Question::new("ecs:ListTasks", "*");
            if let Some(values) = found {
                question.context.insert("ECS:Cluster".into(), values.clone());
            }
            let mut policy = allow("ecs:ListTasks", "*");
            policy["Statement"]["Condition"] = json!({operator: {"ecs:cluster": wanted.clone()}});
            let decision = question.decide(&[policy], None);
            assert_eq!(decision == Decision::Allowed, expected, "{operator} {found:?} {wanted}");
        }
    }

    #[test]
    fn every_key_of_a_condition_must_hold() {
        let mut policy = allow("iam:PassRole", "*");
        policy["Statement"]["Condition"] = json!({"StringEquals": {"a": "1", "b": "2"}, "StringLike": {"c": "3*"}});
        let question = |a, b, c| Question::new("iam:PassRole", "r").with("a", &[a]).with("b", &[b]).with("c", &[c]);
        assert_eq!(question("1", "2", "34").decide(std::slice::from_ref(&policy), None), Decision::Allowed);
        for (a, b, c) in [("0", "2", "3"), ("1", "0", "3"), ("1", "2", "0")] {
            assert_eq!(question(a, b, c).decide(std::slice::from_ref(&policy), None), Decision::ImplicitDeny);
        }
    }

    #[test]
    #[should_panic(expected = "NotAction of a policy is not known here")]
    fn what_the_evaluator_does_not_know_it_does_not_pass_over() {
        let policy = json!({"Statement": {"Effect": "Allow", "NotAction": "ecs:*", "Resource": "*"}});
        Question::new("ec2:DescribeSubnets", "*").decide(&[policy], None);
    }
}
