//! `staffetta doctor`, and what it found.

use serde_json::Value;

use crate::operator::Operator;

#[derive(Debug)]
pub struct Findings {
    pub code: Option<i32>,
    all: Vec<Value>,
}

impl Findings {
    /// `staffetta doctor --json` with more arguments and variables.
    pub async fn of(operator: &Operator, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let arguments = [&["doctor", "--json"], arguments].concat();
        let said = operator.staffetta_with(&arguments, variables).await;
        let report: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        Self { code: said.code, all: report["findings"].as_array().expect("findings").clone() }
    }

    /// What a check found in an environment; verdict, evidence and fix of each finding.
    pub fn of_check<'a>(&'a self, environment: &str, check: &str) -> Vec<(&'a str, &'a str, &'a str)> {
        let of_it = |finding: &&Value| finding["environment"] == environment && finding["check"] == check;
        let texts =
            |finding: &'a Value| ["verdict", "evidence", "fix"].map(|key| finding[key].as_str().expect("a text"));
        self.all.iter().filter(of_it).map(texts).map(|[verdict, evidence, fix]| (verdict, evidence, fix)).collect()
    }

    /// The same where there is one finding.
    #[track_caller]
    pub fn only<'a>(&'a self, environment: &str, check: &str) -> (&'a str, &'a str, &'a str) {
        match self.of_check(environment, check)[..] {
            [one] => one,
            ref other => panic!("{check} of {environment}: {other:?} among {:#?}", self.all),
        }
    }

    /// Check and verdict of all that is neither good nor skipped in an environment, in order.
    pub fn faults(&self, environment: &str) -> Vec<(&str, &str)> {
        let is_wrong =
            |finding: &&Value| !["good", "skipped"].contains(&finding["verdict"].as_str().expect("a verdict"));
        let wrong = self.all.iter().filter(|finding| finding["environment"] == environment).filter(is_wrong);
        wrong.map(|it| (it["check"].as_str().expect("a check"), it["verdict"].as_str().expect("a verdict"))).collect()
    }

    /// That it was found, and that evidence or fix have these words.
    #[track_caller]
    pub fn expect(&self, environment: &str, check: &str, verdict: &str, words: &[&str]) {
        let (found, evidence, fix) = self.only(environment, check);
        assert_eq!(found, verdict, "{check}: {evidence} {fix}");
        for word in words {
            assert!(evidence.contains(word) || fix.contains(word), "no {word:?} in {check}: {evidence}\n{fix}");
        }
    }
}
