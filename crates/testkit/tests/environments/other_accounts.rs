//! Environments in other accounts, which `deploy` and `doctor` reach by `deploy_role`: ministack keeps accounts apart, and gives the
//! keys of a role for the role's own account.

use serde_json::json;
use testkit::Ministack;

use crate::operator::{ACCOUNT, Network, Operator, REGION};

const PRODUCTION: &str = "222222222222";

/// The names of what is in the account of this operator.
async fn clusters(operator: &Operator) -> Vec<String> {
    let clusters = operator.aws("ecs list-clusters").await;
    let clusters = clusters["clusterArns"].as_array().expect("clusters").iter();
    let mut names: Vec<_> =
        clusters.map(|arn| arn.as_str().expect("an ARN").rsplit(':').next().unwrap_or_default().to_owned()).collect();
    names.sort();
    names
}

/// An operator at home, one that looks into the other account, and a role there for the first.
async fn two_accounts(ministack: &Ministack) -> (Operator, Operator) {
    let home = Operator::at(ministack.url());
    let there = Operator::in_account(ministack.url(), PRODUCTION);
    let trust = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{ACCOUNT}:root")}, "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"sts:ExternalId": "agreed-text"}},
    }]});
    there.write("trust.json", &trust.to_string());
    let role = "--role-name staffetta-deploy --assume-role-policy-document file://trust.json";
    there.aws(&format!("iam create-role {role}")).await;
    (home, there)
}

async fn table(operator: &Operator, name: &str, more: &str) -> String {
    let Network { vpc, subnets } = operator.default_network().await;
    format!("[{name}]\nvpc = {vpc:?}\nsubnets = {subnets:?}\n{more}\n")
}

fn production(more: &str) -> String {
    format!(
        "account = \"{PRODUCTION}\"\ndeploy_role = \"arn:aws:iam::{PRODUCTION}:role/staffetta-deploy\"\n\
         deploy_external_id = \"agreed-text\"\n{more}"
    )
}

fn head(manager: &str) -> String {
    format!(
        "name = \"ci\"\ngitlab_url = \"https://gitlab.example.com\"\naccount = \"{ACCOUNT}\"\nregion = \"{REGION}\"\n\
         manager = \"{manager}\"\n"
    )
}

#[tokio::test]
async fn an_environment_of_another_account_is_made_there_with_its_own_manager() {
    let ministack = Ministack::start();
    let (home, there) = two_accounts(&ministack).await;
    let dev = table(&home, "environments.dev", "").await;
    let production = table(&there, "environments.production", &production("")).await;
    home.write("staffetta.toml", &format!("{}{dev}{production}", head("each")));
    home.staffetta(&["deploy", "apply"]).await.good();
    assert_eq!(clusters(&home).await, ["cluster/ci-dev", "cluster/ci-dev-manager"]);
    assert_eq!(clusters(&there).await, ["cluster/ci-production", "cluster/ci-production-manager"]);
    let role = there.aws("iam get-role --role-name ci-production-manager").await;
    assert_eq!(role["Role"]["Arn"], format!("arn:aws:iam::{PRODUCTION}:role/ci-production-manager"));

    let again = home.staffetta(&["deploy", "apply"]).await.good();
    assert!(again.to_lowercase().contains("no change"), "{again}");
    home.staffetta(&["deploy", "destroy", "--yes"]).await.good();
    assert_eq!(clusters(&home).await, [""; 0]);
    assert_eq!(clusters(&there).await, [""; 0]);
}

#[tokio::test]
async fn a_shared_manager_at_home_may_only_take_the_manager_role_of_each_account() {
    let ministack = Ministack::start();
    let (home, there) = two_accounts(&ministack).await;
    let service = table(&home, "manager_service", "").await;
    let dev = table(&home, "environments.dev", "external_id = \"dev-of-ci\"").await;
    let more = production("external_id = \"production-of-ci\"\nmanager_cidr = \"172.31.0.0/16\"");
    let production = table(&there, "environments.production", &more).await;
    home.write("staffetta.toml", &format!("{}{service}{dev}{production}", head("shared")));
    home.staffetta(&["deploy", "apply"]).await.good();
    assert_eq!(clusters(&home).await, ["cluster/ci-dev", "cluster/ci-manager"]);
    assert_eq!(clusters(&there).await, ["cluster/ci-production"]);

    let policy = home.aws("iam get-role-policy --role-name ci-manager --policy-name ci-manager").await;
    let statements = policy["PolicyDocument"]["Statement"].as_array().expect("statements");
    assert_eq!(statements.len(), 1, "{statements:?}");
    assert_eq!(statements[0]["Action"], json!(["sts:AssumeRole"]));
    let roles = [ACCOUNT, PRODUCTION].into_iter().zip(["dev", "production"]);
    let roles: Vec<_> = roles.map(|(account, name)| format!("arn:aws:iam::{account}:role/ci-{name}-manager")).collect();
    assert_eq!(statements[0]["Resource"], json!(roles));
    let role = there.aws("iam get-role --role-name ci-production-manager").await;
    let trust = &role["Role"]["AssumeRolePolicyDocument"]["Statement"][0];
    assert_eq!(trust["Principal"]["AWS"], format!("arn:aws:iam::{ACCOUNT}:role/ci-manager"));
    assert_eq!(trust["Condition"], json!({"StringEquals": {"sts:ExternalId": "production-of-ci"}}));

    // The manager's own file says as whom it calls, and where.
    let config = home.staffetta(&["deploy", "config"]).await.good();
    assert!(config.contains(&format!("role_arn = \"{}\"", roles[1])), "{config}");
    assert!(config.contains("external_id = \"production-of-ci\""), "{config}");
}
