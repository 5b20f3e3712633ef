//! What `staffetta deploy` prints for people and programs: costs, policies, where there is no file, and of a template that is too long.

use serde_json::Value;
use testkit::Moto;

use crate::emulator_gaps::front_of;
use crate::engine::World;
use crate::operator::{ACCOUNT, Network, Operator, REGION};

#[tokio::test]
async fn a_plan_ends_with_what_it_costs() {
    let world = World::start().await;
    let plan = world.operator.staffetta(&["deploy", "plan"]).await.good();
    assert!(plan.contains("ci-dev-manager: a task with 0.25 vCPU and 0.5 GB"), "{plan}");
    let json = world.operator.staffetta(&["deploy", "plan", "--json"]).await.good();
    let costs = &serde_json::from_str::<Value>(&json).expect("JSON")["costs"];
    let first = &costs["monthly"][0];
    assert_eq!(first["what"], "ci-dev-manager: a task with 0.25 vCPU and 0.5 GB");
    let dollars = first["dollars"].as_f64().expect("a number");
    assert!((8.0..11.0).contains(&dollars), "{dollars} for us-east-1");
    assert_eq!(costs["monthly_total"].as_f64(), Some(dollars), "nothing else is fixed: {costs}");
    assert_eq!(costs["job_minutes"][0]["environment"], "dev");
}

#[tokio::test]
async fn a_reviewer_reads_each_role_and_the_operator() {
    let world = World::start().await;
    let operator = &world.operator;
    let text = operator.staffetta(&["deploy", "policy"]).await.good();
    for words in ["ci-dev-manager (account 123456789012)\n", "    may ecs:RunTask", "operator (account 123456789012)\n"]
    {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    let json = operator.staffetta(&["deploy", "policy", "--json", "--environment", "dev"]).await.good();
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let purposes: Vec<_> = json["roles"].as_array().expect("roles").iter().map(|role| &role["purpose"]).collect();
    assert!(
        ["job", "execution", "manager"].iter().all(|purpose| purposes.iter().any(|it| *it == purpose)),
        "{purposes:?}"
    );
    assert!(json["operators"][0]["policies"][0]["Statement"].is_array(), "{json}");
}

#[tokio::test]
async fn without_a_file_it_is_said_what_writes_one() {
    let operator = Operator::at("http://127.0.0.1:9");
    let said = operator.staffetta(&["deploy", "plan"]).await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("there is no staffetta.toml: `staffetta deploy init` writes one"), "{said:?}");
    assert!(said.stderr.contains("--file"), "{said:?}");
}

#[tokio::test]
async fn a_template_that_is_too_long_can_be_planned_by_nobody_and_destroyed_by_all() {
    let moto = Moto::start();
    let front = front_of(&moto).await;
    let operator = Operator::at(front.url());
    let Network { vpc, subnets } = operator.default_network().await;
    let network = format!("vpc = \"{vpc}\"\nsubnets = {subnets:?}\n");
    let mut file = format!(
        "name = \"ci\"\ngitlab_url = \"https://gitlab.example.com\"\naccount = \"{ACCOUNT}\"\nregion = \"{REGION}\"\n\
         manager = \"shared\"\n[manager_service]\n{network}"
    );
    for number in 0..60 {
        file.push_str(&format!("[environments.environment-{number}]\n{network}"));
    }
    operator.write("staffetta.toml", &file);
    let plan = operator.staffetta(&["deploy", "plan"]).await;
    assert_eq!(plan.code, Some(1), "{plan:?}");
    assert!(plan.stderr.contains("the template of ci-manager has "), "{plan:?}");
    let destroyed = operator.staffetta(&["deploy", "destroy", "--yes"]).await.good();
    assert!(destroyed.contains("ci-manager: not there\n"), "{destroyed}");
}
