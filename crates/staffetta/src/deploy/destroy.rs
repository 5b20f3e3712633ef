//! `staffetta deploy destroy`: takes away what `apply` made, so that a later `apply` works.

use std::time::{Duration, Instant};

use aws::stack::{Environment, RunnerToken, Stack, stop_tasks};
use aws::{CallError, inspect, s3};
use futures::future::join_all;

use super::apply::{Work, environment_of};
use super::operate::{Failure, delete};
use super::progress::{Progress, Told};

/// Between two looks at tasks that end.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How long tasks may take for their end: two minutes for their containers (facts 2.3), and their network after that.
const TASKS_END: Duration = Duration::from_secs(10 * 60);

/// The jobs that run in the environments that are to go: a line for each cluster that has some.
pub async fn running_jobs(work: &Work<'_>) -> Result<Vec<String>, Failure> {
    let environments = work.chosen.iter().filter_map(|stack| Some((stack, environment_of(work.deployment, stack)?)));
    let looks = environments.map(|(stack, environment)| async move {
        let cluster = work.deployment.environment_name(environment);
        let tasks = inspect::running_tasks(work.places.session(&stack.place), &cluster).await;
        let tasks = tasks.map_err(|error| Failure::of_call(stack, "ecs:ListTasks", &error))?;
        Ok((!tasks.is_empty()).then(|| format!("{cluster}: {} running", tasks.len())))
    });
    let found: Result<Vec<_>, Failure> = join_all(looks).await.into_iter().collect();
    Ok(found?.into_iter().flatten().collect())
}

/// Deletes the chosen stacks: managers first, so that no new job starts; then the environments, with their caches. Jobs that
/// began meanwhile end it, or are ended with it.
pub async fn destroy(work: &Work<'_>, end_jobs: bool, progress: &mut Progress) -> Result<(), Failure> {
    // What was made last uses what was made before.
    for stack in work.chosen.iter().rev() {
        if let Some(environment) = environment_of(work.deployment, stack) {
            clear(work, stack, environment, end_jobs, progress).await?;
        }
        let result = delete(work.places.session(&stack.place), stack, progress).await?;
        progress.tell(&Told::Done { stack: &stack.name, result });
    }
    Ok(())
}

/// Takes away what CloudFormation does not: it deletes no cluster with tasks and no bucket with objects.
async fn clear(
    work: &Work<'_>,
    stack: &Stack,
    environment: &Environment,
    end_jobs: bool,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let session = work.places.session(&stack.place);
    let failed = |action: &'static str| move |error: CallError| Failure::of_call(stack, action, &error);
    let cluster = work.deployment.environment_name(environment);
    let tasks = inspect::running_tasks(session, &cluster).await.map_err(failed("ecs:ListTasks"))?;
    if !tasks.is_empty() && !end_jobs {
        let (stack, error) = (stack.name.clone(), format!("{} jobs began meanwhile", tasks.len()));
        let advice = Some("Wait for their end, and run the command again.".to_owned());
        return Err(Failure { stack, error, cause: None, advice });
    }
    if !tasks.is_empty() {
        progress.note(&format!("{cluster}: {} running jobs are ended", tasks.len()));
        stop_tasks(session, &cluster, &tasks, "staffetta deploy destroy").await.map_err(failed("ecs:StopTask"))?;
    }
    see_off(work, stack, &cluster, tasks, progress).await?;
    if environment.cache.is_some() {
        let bucket = work.deployment.cache_bucket(environment);
        let mut told = |objects| progress.note(&format!("{bucket}: {objects} cached objects deleted"));
        s3::empty(session, &bucket, &mut told).await.map_err(failed("s3:DeleteObject"))?;
    }
    Ok(())
}

/// Waits until these tasks are gone, and those that were ending already: the cluster and its security group can go only then.
async fn see_off(
    work: &Work<'_>,
    stack: &Stack,
    cluster: &str,
    tasks: Vec<String>,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let session = work.places.session(&stack.place);
    let failed = |action: &'static str| move |error: CallError| Failure::of_call(stack, action, &error);
    let mut ending = inspect::stopped_tasks(session, cluster).await.map_err(failed("ecs:ListTasks"))?;
    ending.extend(tasks);
    ending.sort();
    ending.dedup();
    let limit = Instant::now() + TASKS_END;
    let mut told = 0;
    loop {
        ending = inspect::ending_tasks(session, cluster, &ending).await.map_err(failed("ecs:DescribeTasks"))?;
        let Some(task) = ending.first() else { return Ok(()) };
        if Instant::now() > limit {
            let (stack, region) = (stack.name.clone(), &stack.place.region);
            let error = format!("the task {task} has not ended after {} minutes", TASKS_END.as_secs() / 60);
            let advice = format!(
                "`aws ecs describe-tasks --cluster {cluster} --tasks {task} --region {region}` shows how it is. Run the command again \
                 when it is STOPPED."
            );
            return Err(Failure { stack, error, cause: None, advice: Some(advice) });
        }
        if ending.len() != told {
            told = ending.len();
            progress.note(&format!("{cluster}: waiting for the end of tasks: {told}"));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What nobody here made, or what outlives its stack.
pub fn left(work: &Work<'_>) -> Vec<String> {
    let mut left = vec![
        "the VPC and its subnets".to_owned(),
        "the runners in GitLab: `staffetta unregister`, or delete them in its pages".to_owned(),
        "inactive revisions of the task definitions, which cost nothing".to_owned(),
    ];
    let environments: Vec<_> = work.chosen.iter().filter_map(|stack| environment_of(work.deployment, stack)).collect();
    if environments.iter().any(|environment| matches!(environment.runner_token, RunnerToken::Secret(_))) {
        left.push("the secrets of runner tokens that the file names".to_owned());
    }
    left
}
