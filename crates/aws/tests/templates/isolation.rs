//! No role of an environment reaches anything of another, also where one's name begins like the other's.

use aws::stack::{Deployment, Environment, ManagerOf, Role, Statement, arn, roles};
use proptest::prelude::*;

use crate::options::{deployment, environment, shared};

/// IAM's wildcards.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) if matches(rest, text) => true,
        (Some((b'*', _)), Some((_, text))) => matches(pattern, text),
        (Some((one, rest)), Some((other, text))) if one == other || *one == b'?' => matches(rest, text),
        _ => false,
    }
}

/// ARNs of everything that belongs to an environment and its manager.
fn belongings(deployment: &Deployment, environment: &Environment) -> Vec<String> {
    let name = deployment.environment_name(environment);
    let place = &environment.place;
    let manager = ManagerOf::One(environment);
    let (its_manager, bucket) = (deployment.manager_name(manager), deployment.cache_bucket(environment));
    let secret = deployment.token_secret(environment);
    let mut arns = vec![
        arn(place, "secretsmanager", &format!("secret:{secret}-AbCdEf")),
        arn(place, "s3", &bucket),
        arn(place, "s3", &format!("{bucket}/project/1/cache.zip")),
        arn(place, "iam", &format!("role/{}", deployment.job_role_name(environment))),
        arn(place, "iam", &format!("role/{}", deployment.execution_role_name(environment))),
        arn(place, "iam", &format!("role/{}", deployment.manager_role_name(environment))),
        arn(place, "iam", &format!("role/{}", deployment.manager_execution_role_name(manager))),
        arn(place, "ecr", &format!("repository/{}", deployment.task_repository(environment))),
        arn(place, "ecr", &format!("repository/{}", deployment.manager_repository(manager))),
    ];
    for name in [&name, &its_manager] {
        arns.push(arn(place, "ecs", &format!("cluster/{name}")));
        arns.push(arn(place, "ecs", &format!("task/{name}/0123456789abcdef0123456789abcdef")));
        arns.push(arn(place, "ecs", &format!("task-definition/{name}:7")));
        arns.push(arn(place, "ecs", &format!("service/{name}/{name}")));
    }
    for group in [deployment.log_group(environment), deployment.manager_log_group(manager)] {
        arns.push(arn(place, "logs", &format!("log-group:{group}")));
        arns.push(arn(place, "logs", &format!("log-group:{group}:log-stream:a/b/c")));
    }
    arns
}

fn roles_of(deployment: &Deployment, environment: &Environment) -> Vec<Role> {
    let roles = roles(deployment);
    roles.into_iter().filter(|role| role.environment.as_deref() == Some(environment.name.as_str())).collect()
}

/// `*` stands only where the action knows no resource, and there a condition or the action itself bounds it.
fn is_bounded(statement: &Statement, cluster: &str) -> bool {
    let in_cluster = |it: &aws::stack::Condition| it.key == "ecs:cluster" && it.values == [cluster];
    match statement.actions[..] {
        ["ecs:ListTasks"] => statement.conditions.iter().any(in_cluster),
        ["ecr:GetAuthorizationToken"] => true,
        _ => false,
    }
}

fn check(deployment: &Deployment) -> Result<(), TestCaseError> {
    for environment in &deployment.environments {
        let cluster = arn(&environment.place, "ecs", &format!("cluster/{}", deployment.environment_name(environment)));
        let others = deployment.environments.iter().filter(|other| other.name != environment.name);
        let others: Vec<_> = others.flat_map(|other| belongings(deployment, other)).collect();
        for role in roles_of(deployment, environment) {
            for statement in &role.statements {
                for pattern in &statement.resources {
                    if pattern == "*" {
                        prop_assert!(is_bounded(statement, &cluster), "{}: {statement:?}", role.name);
                        continue;
                    }
                    let reached = others.iter().find(|other| matches(pattern.as_bytes(), other.as_bytes()));
                    prop_assert_eq!(reached, None, "{}: {}", role.name, pattern);
                }
            }
        }
    }
    Ok(())
}

/// Names that the file takes.
fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{0,4}(-[a-z0-9]{1,4}){0,2}"
}

/// What our own names end with is the likeliest to be taken for it.
fn ending() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9]{1,3}",
        "-[a-z0-9]{1,3}",
        proptest::sample::select(vec!["-job", "-execution", "-cache", "-task", "-runner-token", "-token"])
            .prop_map(str::to_owned),
    ]
}

fn pair() -> impl Strategy<Value = [String; 2]> {
    let alike = (name(), ending()).prop_map(|(name, ending)| [format!("{name}{ending}"), name]);
    let any = (name(), name()).prop_map(|(one, other)| [one, other]);
    let names = prop_oneof![alike, any];
    names.prop_filter("the file refuses them", |[one, other]| {
        let managers = |name: &str| name == "manager" || name.ends_with("-manager");
        one != other && !managers(one) && !managers(other)
    })
}

proptest! {
    #[test]
    fn no_role_of_an_environment_reaches_what_belongs_to_another(names in pair(), is_shared in any::<bool>(), cache in any::<bool>()) {
        let mut deployment = if is_shared { shared() } else { deployment(Vec::new()) };
        deployment.environments = names.iter().map(|name| environment(name)).collect();
        for environment in &mut deployment.environments {
            environment.cache = cache.then_some(aws::stack::CacheBucket { expire_days: 7 });
        }
        check(&deployment)?;
    }
}

#[test]
fn an_environment_reaches_what_is_its_own() {
    let mut deployment = deployment(vec![environment("dev"), environment("dev-2")]);
    deployment.environments[0].cache = Some(aws::stack::CacheBucket { expire_days: 7 });
    let own = belongings(&deployment, &deployment.environments[0]);
    let patterns: Vec<_> = roles_of(&deployment, &deployment.environments[0])
        .into_iter()
        .flat_map(|role| role.statements.into_iter().flat_map(|statement| statement.resources))
        .collect();
    let reached: Vec<_> = own
        .iter()
        .filter(|arn| patterns.iter().any(|pattern| pattern != "*" && matches(pattern.as_bytes(), arn.as_bytes())))
        .collect();
    // Neither a cluster or service as such, nor the manager's own task, nor the two roles that nobody passes on.
    insta::assert_debug_snapshot!(reached);
}
