//! The config.toml that `deploy` makes, run by a shared manager against what a deployment has: clusters, task definitions, roles and
//! buckets by their real names. The comparison with the policies (`tests/least_privilege`) judges these calls as they stand, and
//! asks for this story.

use std::path::Path;

use aws::stack::{Deployment, Environment};
use embedded::fargate::{Config, Role};
use embedded::gitlab::Status;
use serde_json::json;
use staffetta::deploy::config_toml::config_toml;
use staffetta::deploy::file;
use testkit::driver::ecs;
use testkit::{AwsFront, ManagerProcess, Moto, Setup, World};

/// The deployment that `tests/least_privilege` judges, with a shared manager.
fn deployment(gitlab_url: &str) -> Deployment {
    let environment = |name: &str| {
        format!(
            "[environments.{name}]\nvpc = \"vpc-1\"\nsubnets = [\"subnet-1\"]\ncache_expire_days = 30\n\
             external_id = \"staffetta/{name}\"\n"
        )
    };
    let text = format!(
        "name = \"ci\"\ngitlab_url = \"{gitlab_url}\"\naccount = \"123456789012\"\nregion = \"us-east-1\"\nmanager = \"shared\"\n\
         [manager_service]\nvpc = \"vpc-1\"\nsubnets = [\"subnet-1\"]\n{}",
        ["dev", "staging", "production"].map(environment).concat()
    );
    file::read(Path::new("staffetta.toml"), &text).expect("no mistakes").deployment
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_config_runs_a_job_in_each_environment_of_its_deployment() {
    // The names do not depend on GitLab's address, and the servers need them before it is known.
    let names = deployment("https://gitlab.example.com");
    let role = |environment: &Environment| Role {
        external_id: environment.external_id.clone(),
        trusts: vec!["manager".into()],
        ..Role::new(names.manager_role_arn(environment))
    };
    let fargate = Config {
        clusters: names
            .environments
            .iter()
            .map(|it| aws::stack::arn(&it.place, "ecs", &format!("cluster/{}", names.environment_name(it))))
            .collect(),
        roles: names.environments.iter().map(role).collect(),
        ..Setup::default().fargate
    };
    let mut world = World::without_manager(Setup { fargate, ..Setup::default() }).await;
    let front = AwsFront::start(Moto::shared().url()).await;

    let deployment = deployment(world.gitlab.url());
    let environments: Vec<_> = deployment.environments.iter().collect();
    let mut text = config_toml(&deployment, &environments, &|_| "sg-1".to_owned());
    for environment in &environments {
        let name = deployment.environment_name(environment);
        let definition = json!({
            "family": name, "requiresCompatibilities": ["FARGATE"], "networkMode": "awsvpc", "cpu": "256", "memory": "512",
            "taskRoleArn": deployment.job_role_arn(environment),
            "executionRoleArn": deployment.execution_role_arn(environment),
            "containerDefinitions": [{"name": "ci-coordinator", "image": "staffetta/agent", "essential": true,
                "portMappings": [{"containerPort": 22, "protocol": "tcp"}]}],
        });
        ecs(&world.fargate, "RegisterTaskDefinition", definition).await;
        Moto::shared().create_bucket(&deployment.cache_bucket(environment)).await;
        let token = world.gitlab.register_runner(&name, &[&environment.name]);
        text = text.replace(&format!("${}", aws::stack::token_variable(environment)), &token);
    }
    // Where the servers are, and nothing else.
    let endpoint = format!("endpoint_url = \"{}\"\nssh_port = {}\n", world.fargate.url(), world.fargate.ssh_port());
    let store = front.url().trim_start_matches("http://");
    let text = text.replace("[runners.fargate]\n", &format!("[runners.fargate]\n{endpoint}")).replace(
        "[runners.cache.s3]\n",
        &format!("[runners.cache.s3]\nServerAddress = \"{store}\"\nInsecure = true\n"),
    );
    std::fs::write(world.config_file(), format!("check_interval = 1\n{text}")).expect("config.toml");
    let manager = ManagerProcess::start(&world.config_file());

    let cached = |number: usize| {
        let job = |name: &str| {
            format!(
                "{name}-{number}:\n  tags: [{name}]\n  cache: {{ key: main, paths: [deps/] }}\n  \
                 script: [mkdir -p deps, echo it >> deps/tool, wc -l < deps/tool]\n"
            )
        };
        environments.iter().map(|it| job(&it.name)).collect::<String>()
    };
    for number in 1..=2 {
        let pipeline = world.pipeline(&cached(number)).await;
        assert_eq!(world.finished(pipeline).await, Status::Success, "{}", world.trace(&format!("dev-{number}")));
    }
    let tasks = world.fargate.tasks();
    for environment in &environments {
        let name = deployment.environment_name(environment);
        let here = format!("arn:aws:ecs:us-east-1:123456789012:task/{name}/");
        let own = tasks.iter().filter(|task| task.arn.starts_with(&here));
        let by_role = own.filter(|task| {
            task.role_session.as_ref().is_some_and(|session| session.role == deployment.manager_role_arn(environment))
        });
        assert_eq!(by_role.count(), 2, "{name}: {tasks:?}");
        let bucket = deployment.cache_bucket(environment);
        let calls: Vec<_> = front.calls().into_iter().filter(|call| call.text("Bucket") == bucket).collect();
        for action in ["PutObject", "GetObject"] {
            assert!(calls.iter().any(|call| call.action == action), "{action} in {bucket}: {calls:?}");
        }
    }
    drop(manager);
    world.end().await;
}
