//! What IAM is asked because of a call: the table of this test. Actions, resources and condition keys are those of AWS's
//! Service Authorization Reference; where it has a column "dependent actions", those are asked for too.

use testkit::AwsCall;
use testkit::iam::Question;

use crate::deployment::{About, Judged, OPERATOR, SHARED_MANAGER, last, manager_of, renamed};

/// What a recorded call means for the policies.
#[derive(Debug, PartialEq)]
pub enum Means {
    /// This principal asked for these.
    Asks(String, Vec<Question>),
    /// It says nothing about them, for this reason.
    Nothing(&'static str),
    /// This table lacks it.
    Unknown,
}

pub fn of(call: &AwsCall, judged: &Judged) -> Means {
    if let Some(why) = not_ours(call, judged) {
        return Means::Nothing(why);
    }
    let (principal, questions) = match call.who.as_str() {
        _ if call.role.as_deref().is_some_and(|role| judged.is_deploy_role(role)) => {
            (OPERATOR.to_owned(), of_operator(call, judged))
        }
        _ if call.role.is_some() => (manager_of(judged.environment(call)), of_manager(call, judged)),
        // The worlds' made-up key, and the programs' own.
        "manager" | "driver" | "staffetta" if call.name() == "sts:AssumeRole" => {
            (SHARED_MANAGER.to_owned(), of_manager(call, judged))
        }
        "manager" | "driver" | "staffetta" => (manager_of(judged.environment(call)), of_manager(call, judged)),
        "deploy" | "doctor" => match of_operator(call, judged) {
            Some(questions)
                if call.who == "doctor" && !questions.iter().all(|question| judged.is_of_deployment(question)) =>
            {
                return Means::Nothing(
                    "about what no deployment made: doctor with a config.toml, or a fault that was put in",
                );
            }
            questions => (OPERATOR.to_owned(), questions),
        },
        _ => return Means::Unknown,
    };
    questions.map_or(Means::Unknown, |questions| Means::Asks(principal, questions))
}

/// Calls that say nothing about the policies of a deployment.
fn not_ours(call: &AwsCall, judged: &Judged) -> Option<&'static str> {
    let is_operator = call.role.as_deref().is_some_and(|role| judged.is_deploy_role(role));
    let is_manager =
        !is_operator && call.role.is_some() || ["manager", "driver", "staffetta"].contains(&call.who.as_str());
    if ["peer", "AKIAIOSFODNN7EXAMPLE"].contains(&call.who.as_str()) {
        return Some("made by the AWS CLI or by test code");
    }
    if call.who.len() == 12 && call.who.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some("made by test code in an account of ministack, to which a key of twelve digits is an account");
    }
    if call.who == "given" {
        return Some("signed with the AccessKey of [runners.cache.s3], which no deployment has");
    }
    if call.who == "doctor" && call.name() == "sts:AssumeRole" && !judged.is_deploy_role(call.text("RoleArn")) {
        return Some("doctor with a config.toml that has role_arn looks as that role");
    }
    if call.name() == "sts:AssumeRoleWithWebIdentity" {
        return Some("a JWT opens the role of a job's secrets, and no policy of the caller is asked");
    }
    if call.role.as_deref().is_some_and(|role| !judged.is_manager_role(role) && !judged.is_deploy_role(role)) {
        return Some("made with a role that somebody else made: of UploadRoleARN, ROLE_ARN or a job's secrets");
    }
    if is_manager && call.name() == "sts:AssumeRole" && !judged.is_manager_role(call.text("RoleArn")) {
        return Some(
            "UploadRoleARN of [runners.cache.s3] or a job's ROLE_ARN: the config.toml of a deployment has neither",
        );
    }
    if is_manager && call.name() == "ec2:DescribeNetworkInterfaces" {
        return Some("use_public_ip: the config.toml of a deployment does not have it");
    }
    if is_manager && call.name() == "s3:GetBucketLocation" {
        return Some("asked for without BucketLocation, which the config.toml of a deployment has");
    }
    if is_manager && call.name() == "secretsmanager:GetSecretValue" {
        return Some(
            "a job's secrets: which ones no deployment file says, so docs/secrets.md tells what to add to the role",
        );
    }
    None
}

/// The manager, the driver and addresses that they signed.
fn of_manager(call: &AwsCall, judged: &Judged) -> Option<Vec<Question>> {
    let About { cluster, bucket, .. } = judged.about(call);
    let task = |id: &str| match id.starts_with("arn:") && judged.is_by_generated_config(call) {
        true => id.to_owned(),
        false => any_task(&cluster, last(id)),
    };
    let in_cluster = |action: &str, resource: &str| Question::new(action, resource).with("ecs:cluster", &[&cluster]);
    let object = format!("{bucket}/{}", call.text("Key"));
    let of_s3 = |action: &str, resource: &str| of_s3(action, resource, &judged.account(call));
    Some(match call.name().as_str() {
        "ecs:RunTask" => run_task(call, judged)?,
        "ecs:DescribeTasks" => call.list("tasks").iter().map(|id| in_cluster("ecs:DescribeTasks", &task(id))).collect(),
        "ecs:StopTask" => vec![in_cluster("ecs:StopTask", &task(call.text("task")))],
        // Its only resource is a container instance, which no task of Fargate has: AWS's own example has `*` and the key.
        "ecs:ListTasks" => vec![in_cluster("ecs:ListTasks", "*")],
        "sts:AssumeRole" => assume_role(call, &judged.manager_role_arn(judged.environment(call))),
        "s3:GetObject" => vec![of_s3("s3:GetObject", &object)],
        // Without the right to list, S3 answers 403 instead of 404 for what is not there.
        "s3:HeadObject" => vec![of_s3("s3:GetObject", &object), of_s3("s3:ListBucket", &bucket)],
        "s3:PutObject" => vec![of_s3("s3:PutObject", &object)],
        _ => return None,
    })
}

/// S3's ARNs name no account: each of its calls has a key that does.
fn of_s3(action: &str, resource: &str, account: &str) -> Question {
    Question::new(action, resource).with("aws:ResourceAccount", &[account])
}

/// RunTask is asked about the task definition. ECS asks in the caller's name for the roles that the task gets, and for its tags
/// (AWS pages "Grant permission to tag resources on creation" and "Amazon ECS CloudWatch Events IAM role").
fn run_task(call: &AwsCall, judged: &Judged) -> Option<Vec<Question>> {
    let About { cluster, definition, task_roles, .. } = judged.about(call);
    let mut questions = vec![Question::new("ecs:RunTask", &definition).with("ecs:cluster", &[&cluster])];
    for role in task_roles? {
        let passed = Question::new("iam:PassRole", &role).with("iam:PassedToService", &["ecs-tasks.amazonaws.com"]);
        questions.push(passed);
    }
    if ["tags", "propagateTags"].iter().any(|parameter| call.parameters.contains_key(*parameter)) {
        let task = any_task(&cluster, "any");
        questions.push(Question::new("ecs:TagResource", &task).with("ecs:CreateAction", &["RunTask"]));
    }
    Some(questions)
}

/// The ARN of a task in a cluster.
fn any_task(cluster: &str, id: &str) -> String {
    format!("{}/{id}", cluster.replacen(":cluster/", ":task/", 1))
}

fn assume_role(call: &AwsCall, role: &str) -> Vec<Question> {
    let question = |action: &str| match call.text("ExternalId") {
        "" => Question::new(action, role),
        id => Question::new(action, role).with("sts:ExternalId", &[id]),
    };
    let mut questions = vec![question("sts:AssumeRole")];
    if !call.text("Tags.member.1.Key").is_empty() {
        questions.push(question("sts:TagSession"));
    }
    questions
}

/// `deploy` and `doctor`, which call AWS about what a deployment has.
fn of_operator(call: &AwsCall, judged: &Judged) -> Option<Vec<Question>> {
    let action = call.name();
    let on = |service: &str, resource: &str| vec![Question::new(&action, &judged.arn(call, service, resource))];
    Some(match action.as_str() {
        // Needs no permission.
        "sts:GetCallerIdentity" => Vec::new(),
        "sts:AssumeRole" => assume_role(call, call.text("RoleArn")),
        // These know no resource.
        "ec2:DescribeRouteTables"
        | "ec2:DescribeSecurityGroups"
        | "ec2:DescribeSubnets"
        | "ec2:DescribeVpcEndpoints"
        | "ecs:DescribeTaskDefinition"
        | "logs:DescribeLogGroups" => vec![Question::new(&action, "*")],
        "cloudformation:CreateStack" | "cloudformation:CreateChangeSet" | "cloudformation:ExecuteChangeSet" => {
            let mut questions = on("cloudformation", &stack(call));
            questions.extend(tagging_stack(call, &questions[0].resource));
            questions
        }
        "cloudformation:ContinueUpdateRollback"
        | "cloudformation:DeleteChangeSet"
        | "cloudformation:DeleteStack"
        | "cloudformation:DescribeChangeSet"
        | "cloudformation:DescribeStackEvents"
        | "cloudformation:DescribeStacks" => on("cloudformation", &stack(call)),
        "ecr:BatchGetImage" | "ecr:GetDownloadUrlForLayer" => {
            on("ecr", &format!("repository/{}", call.text("repositoryName")))
        }
        "ecs:DescribeClusters" => {
            let one =
                |name: &&str| Question::new(&action, &judged.arn(call, "ecs", &format!("cluster/{}", last(name))));
            call.list("clusters").iter().map(one).collect()
        }
        // A manager's service is called like its cluster.
        "ecs:DescribeServices" => {
            let cluster = last(call.text("cluster"));
            let one = |name: &&str| {
                Question::new(&action, &judged.arn(call, "ecs", &format!("service/{cluster}/{}", last(name))))
            };
            call.list("services").iter().map(one).collect()
        }
        "ecs:ListTasks" => vec![Question::new(&action, "*").with("ecs:cluster", &[&cluster(call, judged)])],
        "ecs:DescribeTasks" => {
            let one = |task: &&str| in_cluster(call, judged, task);
            call.list("tasks").iter().map(one).collect()
        }
        "ecs:StopTask" => vec![in_cluster(call, judged, call.text("task"))],
        "ecs:RunTask" => run_task(call, judged)?,
        "iam:GetRole" => on("iam", &format!("role/{}", call.text("RoleName"))),
        "iam:SimulatePrincipalPolicy" => vec![Question::new(&action, &renamed(call.text("PolicySourceArn")))],
        "s3:ListObjectsV2" => {
            vec![of_s3("s3:ListBucket", &judged.arn(call, "s3", call.text("Bucket")), &judged.account(call))]
        }
        // Its keys are in its body.
        "s3:DeleteObjects" => {
            let any = judged.arn(call, "s3", &format!("{}/any", call.text("Bucket")));
            vec![of_s3("s3:DeleteObject", &any, &judged.account(call))]
        }
        "secretsmanager:DescribeSecret" | "secretsmanager:GetSecretValue" | "secretsmanager:PutSecretValue" => {
            match call.text("SecretId") {
                arn if arn.starts_with("arn:") => vec![Question::new(&action, &renamed(arn))],
                // Secrets Manager ends its ARN with six characters of its own.
                name => on("secretsmanager", &format!("secret:{name}-AbCdEf")),
            }
        }
        "servicequotas:GetServiceQuota" => {
            on("servicequotas", &format!("{}/{}", call.text("ServiceCode"), call.text("QuotaCode")))
        }
        _ => return None,
    })
}

/// CloudFormation asks for these in the caller's name. What a change set does to tags its execution does not tell: it may
/// put on some and take away others.
fn tagging_stack(call: &AwsCall, stack: &str) -> Vec<Question> {
    let actions: &[&str] = match call.action.as_str() {
        "ExecuteChangeSet" => &["cloudformation:TagResource", "cloudformation:UntagResource"],
        _ if call.text("Tags.member.1.Key").is_empty() => &[],
        _ => &["cloudformation:TagResource"],
    };
    let question = |action: &&str| Question::new(action, stack).with("cloudformation:CreateAction", &[&call.action]);
    actions.iter().map(question).collect()
}

fn cluster(call: &AwsCall, judged: &Judged) -> String {
    judged.arn(call, "ecs", &format!("cluster/{}", last(call.text("cluster"))))
}

fn in_cluster(call: &AwsCall, judged: &Judged, task: &str) -> Question {
    let resource = judged.arn(call, "ecs", &format!("task/{}/{}", last(call.text("cluster")), last(task)));
    Question::new(&call.name(), &resource).with("ecs:cluster", &[&cluster(call, judged)])
}

/// `stack/NAME/ID`, whichever of name and ARN the call has.
fn stack(call: &AwsCall) -> String {
    let name = call.text("StackName");
    match name.split_once(":stack/") {
        Some((_, rest)) => format!("stack/{rest}"),
        None => format!("stack/{name}/any"),
    }
}
