//! Whether the manager and ECS may do what they do: the manager's role is there, and IAM's simulator allows each call that is
//! made as it, and as the execution role.

use aws::fargate::FargateConfig;
use aws::inspect::{self, Decision, Identity, Principal, Simulated, TaskDefinition};
use aws::s3::S3Keys;
use aws::stack::{ManagerWork, Statement, document, execution_statements, manager_statements, partition};
use aws::{CallError, Session};
use futures::future::join_all;

use super::finding::MADE_ANEW;
use super::{Finding, Subject};
use crate::config::{Cache, Runner};

const ROLE: &str = "manager-role";
const PERMISSIONS: &str = "manager-permissions";
const EXECUTION: &str = "execution-permissions";

const BREAKS: &str = "The manager can do nothing for this environment.";

pub async fn check(subject: &Subject, session: &Session) -> Vec<Finding> {
    // That nobody is known to AWS is told once, by another check.
    let Ok(identity) = inspect::identity(session).await else { return Vec::new() };
    let (mut findings, principal) = principal(subject, session, &identity).await;
    let Some(principal) = principal else { return findings };
    let statements = match &subject.manager.work {
        Some(work) => manager_statements(work),
        None => {
            let name = &subject.runner.fargate.task_definition;
            // It tells which roles are passed; that it is not there is told by another check.
            let definition = inspect::task_definition(session, name).await.unwrap_or(None);
            manager_statements(&work(
                &subject.runner,
                &account(&principal, &identity),
                session.region(),
                definition.as_ref(),
            ))
        }
    };
    let answers = simulated(session, &principal, &statements).await;
    let is_made = subject.manager.work.is_some();
    findings.extend(judge(PERMISSIONS, &principal, &statements, answers, is_made));
    findings
}

/// What ECS does as the execution role before a task runs; whether the role is there is told by another check.
pub async fn check_execution(subject: &Subject, session: &Session, definition: &TaskDefinition) -> Vec<Finding> {
    let Some(role) = &definition.execution_role else { return Vec::new() };
    let statements = preparation(definition, role, session.region());
    let answers = simulated(session, role, &statements).await;
    // A role that the file brings along has the policies of whoever made it.
    let is_made = subject.manager.work.as_ref().is_some_and(|work| work.task_roles.contains(role));
    judge(EXECUTION, role, &statements, answers, is_made)
}

async fn simulated(
    session: &Session,
    principal: &str,
    statements: &[Statement],
) -> Vec<Result<Vec<Simulated>, CallError>> {
    join_all(statements.iter().map(|statement| inspect::simulate(session, principal, statement))).await
}

fn preparation(definition: &TaskDefinition, role: &str, region: &str) -> Vec<Statement> {
    let account = role.split(':').nth(4).unwrap_or_default();
    let partition = partition(region);
    let images: Vec<_> = definition.containers.iter().map(|container| container.image.as_str()).collect();
    let secrets = definition.containers.iter().flat_map(|container| &container.secrets).map(|from| {
        match from.starts_with("arn:") {
            // What follows the seventh part chooses in the secret.
            true => from.split(':').take(7).collect::<Vec<_>>().join(":"),
            false => format!("arn:{partition}:ssm:{region}:{account}:parameter/{}", from.trim_start_matches('/')),
        }
    });
    let groups = definition.containers.iter().filter_map(|container| {
        let log = container.log.as_ref().filter(|log| log.name == "awslogs")?;
        let region = log.options.get("awslogs-region").map_or(region, String::as_str);
        Some(format!("arn:{partition}:logs:{region}:{account}:log-group:{}:*", log.options.get("awslogs-group")?))
    });
    execution_statements(&images, &secrets.collect::<Vec<_>>(), &groups.collect::<Vec<_>>())
}

/// The ARN of whose policies count, and what is to be said about it.
async fn principal(subject: &Subject, session: &Session, identity: &Identity) -> (Vec<Finding>, Option<String>) {
    let (name, arn, whose) = match (&subject.manager.role, identity.principal()) {
        (Some(arn), _) => (arn.rsplit('/').next().unwrap_or_default().to_owned(), arn.clone(), "the manager's role"),
        // Whoever runs doctor is taken for the manager.
        (None, Some(Principal::Role { name, arn })) => {
            (name, arn, "the manager is taken to have the role of the caller,")
        }
        (None, Some(Principal::User { arn })) => {
            let evidence = format!("the manager is taken to be the caller, {arn}");
            return (vec![Finding::good(ROLE, evidence)], Some(arn));
        }
        (None, None) => {
            let fix = "Run doctor as the manager's role; or name the role in role_arn of [runners.fargate].";
            let evidence = format!("the manager's role is not known, and {} has no policies", identity.arn);
            return (vec![Finding::unknown(ROLE, evidence, fix)], None);
        }
    };
    if arn.split(':').nth(4) != Some(identity.account.as_str()) {
        let evidence = format!("{whose} {arn} is in another account than {}", identity.account);
        let fix = "Run doctor with credentials of that account, or give the environment a deploy_role there.";
        return (vec![Finding::unknown(ROLE, evidence, fix)], None);
    }
    match inspect::role(session, &name).await {
        // With the path, which a session's ARN does not tell.
        Ok(Some(role)) => (vec![Finding::good(ROLE, format!("{whose} {}", role.arn))], Some(role.arn)),
        Ok(None) => {
            let fix = format!("Correct the name, or make it under this one; or, {MADE_ANEW}.");
            (vec![Finding::bad(ROLE, format!("{whose} {arn} is not there"), BREAKS, fix)], None)
        }
        Err(error) => (vec![Finding::not_seen(ROLE, "iam:GetRole", &error)], Some(arn)),
    }
}

/// That of the principal, which may be another than the caller's.
fn account(principal: &str, identity: &Identity) -> String {
    principal.split(':').nth(4).unwrap_or(&identity.account).to_owned()
}

/// What a manager does by its config.toml.
fn work(runner: &Runner, account: &str, region: &str, definition: Option<&TaskDefinition>) -> ManagerWork {
    let FargateConfig { cluster, task_definition, propagate_tags, use_public_ip, .. } = &runner.fargate;
    let bucket = |cache: &Cache| format!("arn:{}:s3:::{}", partition(region), cache.s3.bucket);
    ManagerWork {
        cluster: of_ecs(region, account, "cluster", cluster),
        task_definitions: vec![revisions(region, account, task_definition)],
        task_roles: definition
            .map(|it| it.task_role.iter().chain(&it.execution_role).cloned().collect())
            .unwrap_or_default(),
        tags_tasks: *propagate_tags,
        finds_public_addresses: *use_public_ip,
        cache_bucket: runner.cache.as_ref().filter(|cache| signs_as_manager(cache)).map(bucket),
    }
}

/// The ARN of what config.toml calls by its name, or by its ARN.
fn of_ecs(region: &str, account: &str, kind: &str, name: &str) -> String {
    match name.starts_with("arn:") {
        true => name.to_owned(),
        false => format!("arn:{}:ecs:{region}:{account}:{kind}/{name}", partition(region)),
    }
}

/// IAM is asked about the revision that is started (facts 1.1): of a family it may be another one each time.
fn revisions(region: &str, account: &str, name: &str) -> String {
    let arn = of_ecs(region, account, "task-definition", name);
    let has_revision = arn.rsplit('/').next().is_some_and(|name| name.contains(':'));
    if has_revision { arn } else { format!("{arn}:*") }
}

/// Otherwise caches are opened with other keys, or as another role.
fn signs_as_manager(cache: &Cache) -> bool {
    let s3 = &cache.s3;
    matches!(s3.keys, S3Keys::UsualChain)
        && s3.server_address.is_none()
        && s3.role.is_none()
        && s3.upload_role.is_none()
}

fn judge(
    check: &'static str,
    principal: &str,
    statements: &[Statement],
    answers: Vec<Result<Vec<Simulated>, CallError>>,
    is_made: bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut allowed = 0;
    let mut unseen = None;
    for (statement, answer) in statements.iter().zip(answers) {
        match answer {
            Ok(simulated) => {
                let (good, bad): (Vec<_>, Vec<_>) =
                    simulated.into_iter().partition(|it| it.decision == Decision::Allowed);
                allowed += good.len();
                findings.extend(bad.iter().map(|it| missing(check, principal, statement, it, is_made)));
            }
            // Another check tells that a role is not there.
            Err(CallError::Refused(refusal)) if refusal.code.starts_with("NoSuchEntity") => return Vec::new(),
            // Told once: it is mostly the same for all of them.
            Err(error) => unseen = Some(error),
        }
    }
    findings.extend(unseen.map(|error| Finding::not_seen(check, "iam:SimulatePrincipalPolicy", &error)));
    if findings.is_empty() {
        let evidence = format!("{principal} may do all that it has to: {allowed} actions, simulated");
        return vec![Finding::good(check, evidence)];
    }
    findings
}

fn missing(
    check: &'static str,
    principal: &str,
    statement: &Statement,
    simulated: &Simulated,
    is_made: bool,
) -> Finding {
    let Simulated { action, resource, decision, missing_context } = simulated;
    let evidence = format!("{principal} may not {action} on {resource}");
    let breaks = format!("It is needed: {}.", statement.why);
    let add = || match is_made {
        true => format!(
            "Run `staffetta deploy apply`, whose template has the statement {}; if somebody took it out of the role, which `apply` \
             does not see, put it back.",
            statement.sid
        ),
        false => format!("Add to the policy of {principal}:\n{}", document(std::slice::from_ref(statement))),
    };
    match decision {
        // Nobody can say without the values.
        _ if !missing_context.is_empty() => Finding::unknown(
            check,
            format!(
                "{evidence}, as far as the simulator can say: a statement depends on {}",
                missing_context.join(", ")
            ),
            "See whether that condition holds for the manager's calls; `staffetta doctor --run` shows it.",
        ),
        Decision::Allowed | Decision::NotAllowed => {
            Finding::bad(check, format!("{evidence}: no statement allows it"), breaks, add())
        }
        Decision::Denied => {
            let fix = format!("Remove the Deny statement about {action} from the policies of {principal}.");
            Finding::bad(check, format!("{evidence}: a statement denies it"), breaks, fix)
        }
        Decision::DeniedByBoundary => {
            let fix = format!("Let the permissions boundary of {principal} allow {action}.");
            Finding::bad(check, format!("{evidence}: its permissions boundary does not allow it"), breaks, fix)
        }
        Decision::DeniedByOrganization => {
            let fix = format!("Let the organization's service control policies allow {action} in this account.");
            Finding::bad(check, format!("{evidence}: the organization does not allow it"), breaks, fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use aws::Refusal;

    use super::*;
    use crate::doctor::Verdict::{self, Bad, Good, Unknown};

    const ROLE_ARN: &str = "arn:aws:iam::123456789012:role/ci-dev-manager";

    fn statement() -> Statement {
        let work = ManagerWork {
            cluster: "arn:aws:ecs:eu-west-1:123456789012:cluster/ci-dev".into(),
            task_definitions: vec!["arn:aws:ecs:eu-west-1:123456789012:task-definition/ci-dev:*".into()],
            task_roles: Vec::new(),
            tags_tasks: false,
            finds_public_addresses: false,
            cache_bucket: None,
        };
        manager_statements(&work).remove(0)
    }

    fn judged(decision: Decision, missing_context: &[&str], is_made: bool) -> (Verdict, String, String) {
        let simulated = Simulated {
            action: "ecs:RunTask".into(),
            resource: "arn:x".into(),
            decision,
            missing_context: missing_context.iter().map(|key| (*key).to_owned()).collect(),
        };
        let mut findings = judge(PERMISSIONS, ROLE_ARN, &[statement()], vec![Ok(vec![simulated])], is_made);
        assert_eq!(findings.len(), 1);
        let Finding { verdict, evidence, fix, .. } = findings.remove(0);
        (verdict, evidence, fix)
    }

    #[test]
    fn an_execution_role_needs_what_the_task_definition_names() {
        let log = |group: &str| inspect::LogDriver {
            name: "awslogs".into(),
            options: [("awslogs-group".to_owned(), group.to_owned())].into(),
        };
        let definition = TaskDefinition {
            containers: vec![inspect::Container {
                image: "123456789012.dkr.ecr.eu-west-1.amazonaws.com/ci/task:1".into(),
                log: Some(log("/ci")),
                secrets: vec![
                    "arn:aws:secretsmanager:eu-west-1:123456789012:secret:a-x1y2z3:key::".into(),
                    "/npm/token".into(),
                ],
                ..inspect::Container::default()
            }],
            ..TaskDefinition::default()
        };
        let needed = preparation(&definition, "arn:aws:iam::123456789012:role/ci-execution", "eu-west-1");
        let resources: Vec<_> = needed.iter().map(|it| (it.sid, it.resources[0].as_str())).collect();
        assert_eq!(
            resources,
            [
                ("LogInToRegistry", "*"),
                ("PullImage", "arn:aws:ecr:eu-west-1:123456789012:repository/ci/task"),
                ("ReadSecrets", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:a-x1y2z3"),
                ("ReadParameters", "arn:aws:ssm:eu-west-1:123456789012:parameter/npm/token"),
                ("WriteLog", "arn:aws:logs:eu-west-1:123456789012:log-group:/ci:*"),
            ]
        );
        assert_eq!(preparation(&TaskDefinition::default(), "arn:aws:iam::1:role/r", "eu-west-1"), []);
    }

    #[test]
    fn any_revision_of_a_family_is_started_and_one_that_is_named_is_the_only_one() {
        let arn = |name: &str| format!("arn:aws:ecs:eu-west-1:1:task-definition/{name}");
        for (named, asked) in [
            ("ci-dev", arn("ci-dev:*")),
            ("ci-dev:3", arn("ci-dev:3")),
            (&arn("ci-dev:3"), arn("ci-dev:3")),
            (&arn("ci-dev"), arn("ci-dev:*")),
        ] {
            assert_eq!(revisions("eu-west-1", "1", named), asked);
        }
    }

    #[test]
    fn a_missing_permission_is_named_with_the_statement_to_add() {
        let (verdict, evidence, fix) = judged(Decision::NotAllowed, &[], false);
        assert_eq!(verdict, Bad);
        assert!(evidence.starts_with(&format!("{ROLE_ARN} may not ecs:RunTask on arn:x")), "{evidence}");
        let (_, policy) = fix.split_once('\n').expect("a policy below");
        let policy: serde_json::Value = serde_json::from_str(policy).expect("JSON");
        assert_eq!(policy["Statement"][0], statement().json());
        assert!(judged(Decision::NotAllowed, &[], true).2.contains("deploy apply"));
    }

    #[test]
    fn a_statement_is_of_no_use_against_whoever_denies() {
        for (decision, words) in [
            (Decision::Denied, "Deny statement"),
            (Decision::DeniedByBoundary, "boundary"),
            (Decision::DeniedByOrganization, "service control"),
        ] {
            let (verdict, _, fix) = judged(decision, &[], false);
            assert_eq!(verdict, Bad);
            assert!(fix.contains(words) && !fix.contains("Statement\""), "{fix}");
        }
    }

    #[test]
    fn what_the_simulator_cannot_say_is_not_called_a_fault() {
        let (verdict, evidence, _) = judged(Decision::NotAllowed, &["aws:SourceVpc"], false);
        assert_eq!(verdict, Unknown);
        assert!(evidence.contains("aws:SourceVpc"));
        assert_eq!(judged(Decision::Allowed, &[], false).0, Good);
    }

    #[test]
    fn what_was_found_is_told_also_where_another_answer_is_missing() {
        let simulated = Simulated {
            action: "ecs:RunTask".into(),
            resource: "arn:x".into(),
            decision: Decision::NotAllowed,
            missing_context: Vec::new(),
        };
        let answers = vec![Ok(vec![simulated]), Err(CallError::NoAnswer("503".into()))];
        let findings = judge(PERMISSIONS, ROLE_ARN, &[statement(), statement()], answers, true);
        let verdicts: Vec<_> = findings.iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Bad, Unknown], "{findings:?}");
    }

    #[test]
    fn whoever_may_not_simulate_is_told_so_once() {
        let refused = || {
            let code = "AccessDenied".to_owned();
            Err(CallError::Refused(Refusal { code, message: "not you".into() }))
        };
        let findings = judge(PERMISSIONS, ROLE_ARN, &[statement(), statement()], vec![refused(), refused()], true);
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!(finding.verdict, Unknown);
        assert!(finding.fix.contains("iam:SimulatePrincipalPolicy"), "{}", finding.fix);
    }
}
