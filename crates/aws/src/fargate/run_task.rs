//! Starts the one task of a job, through everything that ECS may answer.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::time::{Duration, Instant};

use aws_sdk_ecs::error::BuildError;
use aws_sdk_ecs::operation::run_task::{RunTaskError, RunTaskOutput};
use aws_sdk_ecs::types::{
    AssignPublicIp, AwsVpcConfiguration, CapacityProviderStrategyItem, ContainerOverride, KeyValuePair, LaunchType,
    NetworkConfiguration, PropagateTags, TaskOverride,
};
use job::ids::TaskArn;
use job::outcome::SystemFailure;
use job::task::CONTAINER;

use super::calls::Api;
use super::config::CapacityProvider;
use super::connect::Fargate;
use super::errors::{Course, Judgement, NO_CREDENTIALS, judge};
use super::placement::{Placement, choices, name_of, placement};
use super::task::{Status, Task};
use crate::assume_role::{job_role_fix, runner_role_fix};
use crate::errors::{CallError, Refusal, backoff};

/// ECS's limit for the JSON of all overrides, punctuation included (facts 1.2).
const MAX_OVERRIDES: usize = 8192;
/// How long a refusal that may pass is repeated.
const FRESH: Duration = Duration::from_secs(60);

/// What is wanted: one task.
#[derive(Debug, Clone)]
pub struct Launch {
    /// At most 58 of ASCII 33–126, unique to job and attempt within the cluster: a repeated launch with the same token
    /// is the same task.
    pub client_token: String,
    /// At most 128 letters, digits, `-`, `/` and `_`; [`Fargate::list_tasks`] finds the task by it.
    pub started_by: String,
    /// For the job's container. Anyone who may describe the task can read it: nothing secret.
    pub environment: BTreeMap<String, String>,
    /// What the job asks for in place of the runner's own, if [`FargateConfig::choice`] allows it.
    pub task_definition: Option<String>,
    pub platform_version: Option<String>,
    /// How long to go on asking while there is no capacity, no answer or too many calls.
    pub patience: Duration,
}

/// What a launch waits for, for the job's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// Other launches stand before this one.
    Turn,
    Throttled {
        retry_in: Duration,
    },
    NoAnswer {
        reason: String,
        retry_in: Duration,
    },
    /// No capacity or quota where it was tried.
    Elsewhere {
        tried: String,
        reason: String,
        next: String,
        retry_in: Duration,
    },
    /// There is nothing to sign a call with; a file of credentials may be written anew just now.
    NoCredentials {
        reason: String,
        retry_in: Duration,
    },
    /// Refused for a reason that may pass within a minute.
    Refused {
        reason: String,
        retry_in: Duration,
    },
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = |wait: &Duration| match wait.as_secs_f64() {
            soon if soon < 0.05 => "now".to_owned(),
            seconds => format!("in {seconds:.1} s"),
        };
        match self {
            Self::Turn => f.write_str("waiting for a turn: other tasks are being started"),
            Self::Throttled { retry_in } => write!(f, "ECS is throttling RunTask; next try {}", when(retry_in)),
            Self::NoAnswer { reason, retry_in } => {
                write!(f, "RunTask got {reason}; asking for the same task again {}", when(retry_in))
            }
            Self::Elsewhere { tried, reason, next, retry_in } => {
                write!(f, "no room in {tried} ({reason}); trying {next} {}", when(retry_in))
            }
            Self::NoCredentials { reason, retry_in } => write!(f, "{reason}; next try {}", when(retry_in)),
            Self::Refused { reason, retry_in } => {
                write!(f, "ECS refused ({reason}), which may pass; next try {}", when(retry_in))
            }
        }
    }
}

/// Why there is no task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// Asking again would change nothing.
    #[error("ECS does not start the task: {reason}")]
    Refused { reason: String, fix: String, failure: SystemFailure, perhaps_started: bool },
    /// The launch's patience is over. If an answer was lost, a task may run: it is found by its `startedBy`.
    #[error("ECS did not start the task in {} s: {reason}", waited.as_secs())]
    GaveUp { reason: String, fix: String, failure: SystemFailure, waited: Duration, perhaps_started: bool },
}

impl Fargate {
    /// Starts one task. `tell` hears what is being waited for. Once `stop` completes no other call is sent; the one that
    /// is under way is waited for, since it may name a task.
    ///
    /// Let it finish: dropping it after a call was sent may leave a task that only [`Fargate::list_tasks`] finds.
    pub async fn run_task(
        &self,
        launch: &Launch,
        mut tell: impl FnMut(&Waiting),
        stop: impl Future<Output = ()>,
    ) -> Result<Task, LaunchError> {
        let overrides = overrides(launch)?;
        let choices = choices(&self.config);
        let mut tries = Tries { has_runner_role: self.config.role_arn.is_some(), ..Tries::default() };
        let mut stop = pin!(stop);
        let mut wait = Duration::ZERO;
        loop {
            let turn = async {
                tokio::time::sleep(wait).await;
                self.region.turn(Api::RunTask, || tell(&Waiting::Turn)).await;
            };
            tokio::select! {
                biased;
                () = &mut stop => return Err(tries.stopped()),
                () = turn => {}
            }
            let placement = placement(&choices, &self.config.subnets, tries.placement);
            let token = tries.token(&launch.client_token);
            // Made when its turn comes: a thousand launches that queue must not each hold the SDK's state of a call.
            let call = async { Box::pin(self.call(launch, &overrides, token, &placement)).await };
            match self.region.send(Api::RunTask, call).await {
                Ok(Answer::Started(task)) => return Ok(*task),
                Ok(Answer::Conflict(arn)) => return Ok(self.adopt(arn).await),
                Err(error) => {
                    let now = Instant::now();
                    let (retry_in, waiting) = tries.after(&error, &choices, launch.patience, now, rand::random())?;
                    tell(&waiting);
                    wait = retry_in;
                }
            }
        }
    }

    async fn call(
        &self,
        launch: &Launch,
        overrides: &TaskOverride,
        token: String,
        placement: &Placement<'_>,
    ) -> Result<Answer, CallError> {
        let config = &self.config;
        let assign = if config.assign_public_ip { AssignPublicIp::Enabled } else { AssignPublicIp::Disabled };
        let groups = (!config.security_groups.is_empty()).then(|| config.security_groups.clone());
        let network = AwsVpcConfiguration::builder()
            .set_subnets(Some(placement.subnets.to_vec()))
            .set_security_groups(groups)
            .assign_public_ip(assign)
            .build();
        let network = network.map_err(not_made)?;
        let mut call = self
            .region
            .ecs
            .run_task()
            .cluster(&config.cluster)
            .task_definition(launch.task_definition.as_ref().unwrap_or(&config.task_definition))
            .count(1)
            .client_token(token)
            .started_by(&launch.started_by)
            .network_configuration(NetworkConfiguration::builder().awsvpc_configuration(network).build())
            .overrides(overrides.clone())
            .set_platform_version(launch.platform_version.clone().or_else(|| config.platform_version.clone()))
            .set_enable_execute_command(config.enable_execute_command.then_some(true))
            .set_propagate_tags(config.propagate_tags.then_some(PropagateTags::TaskDefinition));
        // Always one of the two: without them ECS may fall back to EC2 instances (facts 1.1).
        match placement.providers {
            [] => call = call.launch_type(LaunchType::Fargate),
            providers => {
                for provider in providers {
                    let item = CapacityProviderStrategyItem::builder()
                        .capacity_provider(&provider.name)
                        .weight(provider.weight.into())
                        .base(provider.base.try_into().unwrap_or(i32::MAX));
                    call = call.capacity_provider_strategy(item.build().map_err(not_made)?);
                }
            }
        }
        match call.send().await {
            Ok(output) => self.started(&output),
            Err(error) => {
                if let Some(RunTaskError::ConflictException(conflict)) = error.as_service_error()
                    && let Some(arn) = conflict.resource_ids().first()
                {
                    // The token is this job's own: the task is this job's too, started with another placement.
                    return Ok(Answer::Conflict(TaskArn::new(arn)));
                }
                Err(CallError::of_sdk(&error))
            }
        }
    }

    /// A success of HTTP may be a failure of RunTask (facts 1.3).
    fn started(&self, output: &RunTaskOutput) -> Result<Answer, CallError> {
        if let Some(task) = output.tasks().iter().find_map(|task| self.describer.read(task)) {
            return Ok(Answer::Started(Box::new(task)));
        }
        let Some(failure) = output.failures().first() else {
            return Err(CallError::NoAnswer("neither a task nor a reason".into()));
        };
        let reason = failure.reason().unwrap_or("no reason given");
        let message = failure.detail().map_or_else(|| reason.to_owned(), |detail| format!("{reason} ({detail})"));
        Err(CallError::Refused(Refusal { code: String::new(), message }))
    }

    async fn adopt(&self, arn: TaskArn) -> Task {
        let described = self.describe(std::slice::from_ref(&arn)).await;
        let task = described.ok().and_then(|tasks| tasks.into_iter().next());
        // ECS has just named it, so MISSING only means "not yet": its watcher decides.
        task.filter(|task| task.last_status != Status::Gone).unwrap_or_else(|| Task::unseen(arn))
    }
}

enum Answer {
    Started(Box<Task>),
    /// ECS knows the token with another request: this is its task.
    Conflict(TaskArn),
}

/// What one launch has been through: the rule of what to do next.
#[derive(Debug, Default)]
struct Tries {
    /// The calls are made as the runner's role, and not as one of the job's.
    has_runner_role: bool,
    /// How many placements had no room.
    placement: usize,
    /// Rises when a request may be made anew, without the danger of a second task.
    token: u32,
    /// An answer was lost: the task may run under the present token.
    perhaps_started: bool,
    began: Option<Instant>,
    throttles: u32,
    silences: u32,
    refusals: u32,
    /// When it was first refused for a reason that may pass.
    refused_since: Option<Instant>,
}

impl Tries {
    fn token(&self, client_token: &str) -> String {
        match self.token {
            0 => client_token.to_owned(),
            number => format!("{client_token}-{number}"),
        }
    }

    /// What to do after an attempt that started nothing that we know of: wait and ask again, or end.
    fn after(
        &mut self,
        error: &CallError,
        choices: &[Vec<CapacityProvider>],
        patience: Duration,
        now: Instant,
        jitter: f64,
    ) -> Result<(Duration, Waiting), LaunchError> {
        let began = *self.began.get_or_insert(now);
        let waited = now.saturating_duration_since(began);
        let mut fix = String::new();
        let mut failure = SystemFailure::Runner;
        let (retry_in, waiting) = match error {
            CallError::Throttled(_) => {
                let retry_in = backoff(self.throttles, Duration::from_millis(250), Duration::from_secs(5), jitter);
                self.throttles += 1;
                fix.push_str("Other tools call ECS in this account too: ask AWS for a higher RunTask rate.");
                (retry_in, Waiting::Throttled { retry_in })
            }
            CallError::NoAnswer(_) => {
                let retry_in = backoff(self.silences, Duration::from_millis(500), Duration::from_secs(10), jitter);
                self.silences += 1;
                self.perhaps_started = true;
                fix.push_str("Check the manager's way to the ECS endpoint: network, name server, endpoint_url.");
                (retry_in, Waiting::NoAnswer { reason: error.to_string(), retry_in })
            }
            CallError::NoRole { .. } => {
                let retry_in = backoff(self.silences, Duration::from_millis(500), Duration::from_secs(10), jitter);
                self.silences += 1;
                fix.push_str("Check the manager's way to STS: network, name server, AWS_ENDPOINT_URL_STS.");
                (retry_in, Waiting::NoCredentials { reason: error.to_string(), retry_in })
            }
            CallError::NoCredentials(_) | CallError::RoleRefused { .. } | CallError::Refused(_) => {
                let judgement = self.judge(error);
                let retry_in = match judgement.course {
                    Course::End => None,
                    Course::Elsewhere => Some(self.elsewhere(choices, jitter)),
                    Course::ForAMinute => {
                        let since = *self.refused_since.get_or_insert(now);
                        let retry_in = backoff(self.refusals, Duration::from_secs(1), Duration::from_secs(10), jitter);
                        self.refusals += 1;
                        (now.saturating_duration_since(since) + retry_in <= FRESH).then_some(retry_in)
                    }
                };
                let reason = error.to_string();
                let Some(retry_in) = retry_in else {
                    let Judgement { fix, failure, .. } = judgement;
                    return Err(LaunchError::Refused { reason, fix, failure, perhaps_started: self.perhaps_started });
                };
                // Refused means that nothing runs under this token, unless an answer to it was lost before.
                if !self.perhaps_started {
                    self.token += 1;
                }
                (fix, failure) = (judgement.fix, judgement.failure);
                let waiting = match judgement.course {
                    Course::Elsewhere => Waiting::Elsewhere {
                        tried: name_of(&choices[(self.placement - 1) % choices.len()]),
                        reason,
                        next: name_of(&choices[self.placement % choices.len()]),
                        retry_in,
                    },
                    Course::ForAMinute | Course::End if matches!(error, CallError::NoCredentials(_)) => {
                        Waiting::NoCredentials { reason, retry_in }
                    }
                    Course::ForAMinute | Course::End => Waiting::Refused { reason, retry_in },
                };
                (retry_in, waiting)
            }
        };
        if waited + retry_in > patience {
            let (reason, perhaps_started) = (error.to_string(), self.perhaps_started);
            return Err(LaunchError::GaveUp { reason, fix, failure, waited, perhaps_started });
        }
        Ok((retry_in, waiting))
    }

    fn stopped(&self) -> LaunchError {
        LaunchError::GaveUp {
            reason: "nobody wants it any more".to_owned(),
            fix: String::new(),
            failure: SystemFailure::Runner,
            waited: self.began.map(|began| began.elapsed()).unwrap_or_default(),
            perhaps_started: self.perhaps_started,
        }
    }

    fn judge(&mut self, error: &CallError) -> Judgement {
        match error {
            CallError::Refused(refusal) => {
                // An entry of failures[] is the result of this very token; an exception may not have come so far.
                self.perhaps_started &= !refusal.code.is_empty();
                judge(refusal)
            }
            CallError::RoleRefused { role, refusal } => {
                let fix = if self.has_runner_role { runner_role_fix } else { job_role_fix }(role, refusal);
                Judgement { course: Course::End, failure: SystemFailure::Configuration, fix }
            }
            _ => Judgement {
                course: Course::ForAMinute,
                failure: SystemFailure::Configuration,
                fix: NO_CREDENTIALS.to_owned(),
            },
        }
    }

    /// The next choice at once; when all were tried, after a while.
    fn elsewhere(&mut self, choices: &[Vec<CapacityProvider>], jitter: f64) -> Duration {
        self.placement += 1;
        if !self.placement.is_multiple_of(choices.len()) {
            return Duration::ZERO;
        }
        let rounds = u32::try_from(self.placement / choices.len() - 1).unwrap_or(u32::MAX);
        backoff(rounds, Duration::from_secs(5), Duration::from_secs(60), jitter)
    }
}

fn overrides(launch: &Launch) -> Result<TaskOverride, LaunchError> {
    let pairs: Vec<_> =
        launch.environment.iter().map(|(name, value)| serde_json::json!({ "name": name, "value": value })).collect();
    let text = serde_json::json!({ "containerOverrides": [{ "name": CONTAINER, "environment": pairs }] }).to_string();
    let length = text.chars().count();
    if length > MAX_OVERRIDES {
        return Err(LaunchError::Refused {
            reason: format!("what it sets in the task's environment is {length} characters long"),
            fix: format!("Shorten it: ECS allows {MAX_OVERRIDES} characters for all overrides."),
            failure: SystemFailure::Configuration,
            perhaps_started: false,
        });
    }
    let mut container = ContainerOverride::builder().name(CONTAINER);
    for (name, value) in &launch.environment {
        container = container.environment(KeyValuePair::builder().name(name).value(value).build());
    }
    Ok(TaskOverride::builder().container_overrides(container.build()).build())
}

fn not_made(error: BuildError) -> CallError {
    CallError::Refused(Refusal { code: String::new(), message: format!("the call cannot be made: {error}") })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fargate::config::FargateConfig;

    const PATIENCE: Duration = Duration::from_secs(300);

    fn provider(name: &str, weight: u16) -> CapacityProvider {
        CapacityProvider { name: name.into(), weight, base: 0 }
    }

    fn config(providers: Vec<CapacityProvider>) -> FargateConfig {
        FargateConfig { capacity_providers: providers, ..FargateConfig::default() }
    }

    fn refused(code: &str, message: &str) -> CallError {
        CallError::Refused(Refusal { code: code.into(), message: message.into() })
    }

    fn no_capacity() -> CallError {
        refused("", "Capacity is unavailable at this time. Please try again later or in a different availability zone")
    }

    #[test]
    fn without_capacity_the_next_provider_is_asked_at_once_with_a_new_token() {
        let choices = choices(&config(vec![provider("FARGATE_SPOT", 1), provider("FARGATE", 0)]));
        let mut tries = Tries::default();
        let now = Instant::now();
        let (wait, waiting) = tries.after(&no_capacity(), &choices, PATIENCE, now, 0.5).expect("another try");
        assert_eq!((wait, tries.token("j1").as_str(), tries.placement), (Duration::ZERO, "j1-1", 1));
        assert_eq!(
            waiting.to_string(),
            "no room in FARGATE_SPOT (Capacity is unavailable at this time. Please try again later or in a different \
             availability zone); trying FARGATE now"
        );
        let (wait, _) = tries.after(&no_capacity(), &choices, PATIENCE, now, 1.0).expect("another try");
        assert_eq!((wait, tries.placement), (Duration::from_secs(5), 2));
    }

    #[test]
    fn a_throttle_and_a_lost_answer_are_repeated_with_the_same_token() {
        let choices = choices(&config(vec![]));
        let mut tries = Tries::default();
        for error in [CallError::Throttled("Rate exceeded".into()), CallError::NoAnswer("500".into())] {
            tries.after(&error, &choices, PATIENCE, Instant::now(), 0.5).expect("another try");
            assert_eq!(tries.token("j1"), "j1");
        }
    }

    #[test]
    fn while_a_task_may_run_under_a_token_no_other_is_used() {
        let choices = choices(&config(vec![]));
        let now = Instant::now();
        let mut tries = Tries::default();
        tries.after(&CallError::NoAnswer("reset".into()), &choices, PATIENCE, now, 0.5).expect("another try");
        let quota = refused("LimitExceededException", "");
        tries.after(&quota, &choices, PATIENCE, now, 0.5).expect("another try");
        assert_eq!(tries.token("j1"), "j1", "the exception says nothing of the lost answer");
        tries.after(&no_capacity(), &choices, PATIENCE, now, 0.5).expect("another try");
        assert_eq!(tries.token("j1"), "j1-1", "failures[] is the token's own result");
    }

    #[test]
    fn a_lasting_refusal_ends_it_with_the_fix() {
        let mut tries = Tries::default();
        let error = refused("ClusterNotFoundException", "Cluster not found.");
        let error = tries.after(&error, &choices(&config(vec![])), PATIENCE, Instant::now(), 0.5).expect_err("the end");
        assert_eq!(
            error,
            LaunchError::Refused {
                reason: "ClusterNotFoundException: Cluster not found.".into(),
                fix: "Correct cluster and region: ECS has no such active cluster in this account and region.".into(),
                failure: SystemFailure::Configuration,
                perhaps_started: false,
            }
        );
    }

    #[test]
    fn a_refusal_that_may_pass_is_repeated_for_a_minute() {
        let choices = choices(&config(vec![]));
        for error in [
            refused("ClientException", "ECS was unable to assume the role 'x' that was provided for this task."),
            CallError::NoCredentials("no provider in chain".into()),
        ] {
            let (mut tries, mut now) = (Tries::default(), Instant::now());
            let start = now;
            let end = loop {
                match tries.after(&error, &choices, PATIENCE, now, 1.0) {
                    Ok((wait, _)) => now += wait,
                    Err(end) => break end,
                }
            };
            assert!(matches!(end, LaunchError::Refused { failure: SystemFailure::Configuration, .. }), "{end}");
            let seconds = now.duration_since(start).as_secs();
            assert!((45..=60).contains(&seconds), "{seconds}");
        }
    }

    #[test]
    fn patience_ends_and_says_whether_a_task_may_run() {
        let choices = choices(&config(vec![]));
        let no_role = CallError::NoRole { role: "r".into(), reason: "no answer".into() };
        for (error, perhaps) in [(no_capacity(), false), (CallError::NoAnswer("reset".into()), true), (no_role, false)]
        {
            let (mut tries, mut now) = (Tries::default(), Instant::now());
            let start = now;
            let end = loop {
                match tries.after(&error, &choices, PATIENCE, now, 1.0) {
                    Ok((wait, _)) => now += wait,
                    Err(end) => break end,
                }
            };
            let LaunchError::GaveUp { perhaps_started, fix, .. } = end else { panic!("{end}") };
            assert_eq!(perhaps_started, perhaps);
            assert!(!fix.is_empty());
            assert!(now.duration_since(start) <= PATIENCE);
        }
    }

    #[test]
    fn overrides_are_measured_before_ecs_refuses_them() {
        let launch = |length: usize| Launch {
            client_token: "j1".into(),
            started_by: "s".into(),
            environment: BTreeMap::from([("A".to_owned(), "x".repeat(length))]),
            task_definition: None,
            platform_version: None,
            patience: PATIENCE,
        };
        // {"containerOverrides":[{"name":"ci-coordinator","environment":[{"name":"A","value":""}]}]} is 90 long.
        assert!(overrides(&launch(MAX_OVERRIDES - 90)).is_ok());
        let error = overrides(&launch(MAX_OVERRIDES - 89)).expect_err("too long");
        assert!(error.to_string().contains("8193 characters"), "{error}");
    }

    proptest! {
        #[test]
        fn whatever_happens_a_token_that_may_have_started_a_task_is_kept_until_ecs_settles_it(
            answers in prop::collection::vec(0u8..5, 1..40),
        ) {
            let choices = choices(&config(vec![provider("FARGATE_SPOT", 1), provider("FARGATE", 1)]));
            let mut tries = Tries::default();
            let now = Instant::now();
            let mut lost_under: Option<String> = None;
            for answer in answers {
                let token = tries.token("j1");
                if let Some(lost) = &lost_under {
                    prop_assert_eq!(&token, lost);
                }
                let error = match answer {
                    0 => CallError::Throttled(String::new()),
                    1 => CallError::NoAnswer(String::new()),
                    2 => refused("LimitExceededException", ""),
                    3 => refused("UnrecognizedClientException", ""),
                    _ => no_capacity(),
                };
                match answer {
                    1 => lost_under = Some(token),
                    4 => lost_under = None,
                    _ => {}
                }
                if tries.after(&error, &choices, PATIENCE, now, 0.5).is_err() {
                    break;
                }
            }
        }
    }
}
