//! How the tokens of runners come into their secrets: which are stored, and what is left in GitLab when one cannot be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws::stack::Deployment;
use embedded::gitlab;
use staffetta::deploy::file;
use testkit::{Answer, AwsFront, Moto};

use crate::emulator_gaps::{front_of, make_secrets_of_moto};
use crate::operator::{Operator, Said};

const SECRET: &str = "ci-dev-runner-token";

/// An operator with one environment, of which nothing is made yet.
struct Scene {
    _moto: Moto,
    front: AwsFront,
    gitlab: gitlab::Server,
    operator: Operator,
    deployment: Deployment,
}

impl Scene {
    async fn start() -> Self {
        let moto = Moto::start();
        let front = front_of(&moto).await;
        let gitlab = gitlab::start(gitlab::Config::default()).await.expect("the embedded GitLab");
        let operator = Operator::at(front.url());
        let network = operator.public_network().await;
        let (url, subnets) = (gitlab.url().to_owned(), network.subnets.join(","));
        let flags = ["--gitlab-url", &url, "--gitlab-project=1", "--environment=dev", "--assign-public-ip"];
        let place = ["--vpc", &network.vpc, "--subnets", &subnets];
        let arguments: Vec<_> = ["deploy", "init", "--non-interactive"].into_iter().chain(flags).chain(place).collect();
        operator.staffetta(&arguments).await.good();
        let deployment = file::load(&operator.path("staffetta.toml")).expect("no mistakes").deployment;
        make_secrets_of_moto(&operator, &deployment).await;
        Self { _moto: moto, front, gitlab, operator, deployment }
    }

    async fn apply(&self, variables: &[(&str, &str)]) -> Said {
        self.operator.staffetta_with(&["deploy", "apply"], variables).await
    }

    async fn stored(&self) -> Option<String> {
        let said = self.operator.aws_says(&format!("secretsmanager get-secret-value --secret-id {SECRET}")).await;
        let value: serde_json::Value = serde_json::from_str(&said.stdout).ok()?;
        value["SecretString"].as_str().map(str::to_owned)
    }

    fn calls(&self, action: &str) -> usize {
        self.front.calls().iter().filter(|call| call.action == action).count()
    }
}

#[tokio::test]
async fn a_token_that_gitlab_refuses_is_not_stored_and_a_good_one_is_once() {
    let scene = Scene::start().await;
    assert_eq!(scene.deployment.token_secret(&scene.deployment.environments[0]), SECRET);
    let refused = scene.apply(&[("DEV_RUNNER_TOKEN", "glrt-wrong")]).await;
    let shown = format!("{}{}", refused.stdout, refused.stderr);
    assert!(shown.contains("the token from the environment is no good"), "{shown}");
    assert!(!shown.contains("glrt-wrong"), "{shown}");
    assert_eq!((scene.stored().await, scene.calls("PutSecretValue")), (None, 0));

    let token = scene.gitlab.register_runner("by hand", &["dev"]);
    scene.apply(&[("DEV_RUNNER_TOKEN", &format!("{token}\n"))]).await.good();
    assert_eq!(scene.stored().await, Some(token));
    assert!(scene.gitlab.runners()[0].managers.is_empty(), "trying a token makes no manager");

    // It stays, whatever the variables say now.
    scene.apply(&[("DEV_RUNNER_TOKEN", "glrt-wrong")]).await.good();
    assert_eq!(scene.calls("PutSecretValue"), 1);
    let read: Vec<_> =
        scene.front.calls_of("deploy").into_iter().filter(|call| call.contains("GetSecretValue")).collect();
    assert_eq!(read, [""; 0], "deploy reads no token");
    scene.gitlab.shutdown().await;
}

#[tokio::test]
async fn a_runner_whose_token_cannot_be_stored_is_deleted_again() {
    let scene = Scene::start().await;
    scene.front.fail("secretsmanager:PutSecretValue", "AccessDeniedException", "not you");
    let personal = scene.gitlab.personal_access_token().to_owned();
    let said = scene.apply(&[("GITLAB_PERSONAL_ACCESS_TOKEN", &personal)]).await;
    let shown = format!("{}{}", said.stdout, said.stderr);
    assert!(shown.contains("was deleted in GitLab again") && shown.contains("AccessDeniedException"), "{shown}");
    assert_eq!(scene.gitlab.runners(), []);
    scene.gitlab.shutdown().await;
}

#[tokio::test]
async fn an_answer_that_is_lost_after_the_token_was_stored_leaves_its_runner() {
    let scene = Scene::start().await;
    let arrived = Arc::new(AtomicBool::new(false));
    let seen = arrived.clone();
    scene.front.on("secretsmanager:PutSecretValue", move |call, _| {
        arrived.store(true, Ordering::SeqCst);
        Some(Answer::error(call, "InvalidRequestException", "not told that it went well"))
    });
    scene.front.on("secretsmanager:DescribeSecret", move |_, _| {
        let stored = r#"{"VersionIdsToStages": {"1": ["AWSCURRENT"]}}"#;
        seen.load(Ordering::SeqCst).then(|| Answer::new(200, stored))
    });
    let personal = scene.gitlab.personal_access_token().to_owned();
    let shown = scene.apply(&[("GITLAB_PERSONAL_ACCESS_TOKEN", &personal)]).await.good();
    assert!(shown.contains("The token of the runner dev is stored"), "{shown}");
    assert_eq!(scene.gitlab.runners().len(), 1);
    scene.gitlab.shutdown().await;
}
