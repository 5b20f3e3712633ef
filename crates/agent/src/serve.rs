//! The agent as its image's first process: an SSH server that takes one job, runs it and ends.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use gitlab::Reported;
use job::hand_over::{AddressesReceipt, AgentStatus, HandOver, Receipt, RemoteCaches};
use job::ids::JobId;
use job::payload::{Payload, Received};
use job::secret::SecretString;
use ssh::keys::{KeyError, ServerKey};
use ssh::server::{Request, Server};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use crate::process::Orphans;
use crate::run::{self, RunError, remaining};
use crate::transfer::addresses::Renewals;

/// Why the agent ends without GitLab knowing anything from it.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the key that is let in: {0}")]
    Key(#[from] KeyError),
    #[error("no job came within {} seconds", .0.as_secs())]
    NoJob(Duration),
    #[error("the task was stopped before a job came")]
    Terminated,
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Serves whoever holds the key `authorized` until its one job is done.
pub async fn serve(
    address: SocketAddr,
    authorized: &str,
    idle_timeout: Duration,
    terminated: watch::Receiver<bool>,
    orphans: Orphans,
) -> Result<Reported, ServeError> {
    let listening = async {
        let listener = TcpListener::bind(address).await?;
        let local = listener.local_addr()?;
        Ok((listener, local))
    };
    let (listener, local) = listening.await.map_err(|source| ServeError::Listen { address, source })?;
    let (requests, mut received) = mpsc::channel(4);
    let server = Server::new(authorized, ServerKey::random(), requests)?;
    tracing::info!(address = %local, "waiting for a job");

    let (shutdown, shut_down) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move { server.serve(listener, async { drop(shut_down.await) }).await });
    let result = one_job(&mut received, idle_timeout, terminated, orphans).await;
    drop(shutdown);
    // Its connections end in order; an answer that is on its way still arrives.
    let _ = serving.await;
    result
}

async fn one_job(
    requests: &mut mpsc::Receiver<Request>,
    idle_timeout: Duration,
    terminated: watch::Receiver<bool>,
    orphans: Orphans,
) -> Result<Reported, ServeError> {
    let (job, message) = first_job(requests, idle_timeout, terminated.clone()).await?;
    tracing::info!(job = %job.id, "took a job");
    let (renewed, renewals) = watch::channel(None);
    let running = tokio::spawn(run::run(message, Renewals::Told(renewals), terminated, orphans));
    let ended = answer_while(&job, requests, &renewed, running).await;
    Ok(ended.map_err(|panic| RunError::Broken(panic.to_string()))??)
}

/// The job that this task is for, as far as others ask for it.
struct Taken {
    id: JobId,
    token: SecretString,
    deadline: Instant,
    cache_renewal: Option<String>,
}

async fn first_job(
    requests: &mut mpsc::Receiver<Request>,
    idle_timeout: Duration,
    mut terminated: watch::Receiver<bool>,
) -> Result<(Taken, HandOver), ServeError> {
    let too_late = sleep(idle_timeout);
    tokio::pin!(too_late);
    loop {
        let request = tokio::select! {
            Some(request) = requests.recv() => request,
            () = &mut too_late => return Err(ServeError::NoJob(idle_timeout)),
            Ok(_) = terminated.wait_for(|terminated| *terminated) => return Err(ServeError::Terminated),
        };
        match request {
            // An asker who left needs no answer, here and below.
            Request::Status(answer) => drop(answer.send(AgentStatus::Idle)),
            Request::Caches(_, answer) => {
                let _ = answer.send(AddressesReceipt::NoJob);
            }
            Request::HandOver(message, answer) => match usable(&message) {
                // Not begun if the answer cannot be given: the job is then still the manager's.
                Ok(job) => {
                    if answer.send(Receipt::Accepted).is_ok() {
                        return Ok((job, *message));
                    }
                }
                Err(reason) => drop(answer.send(Receipt::Refused { reason })),
            },
        }
    }
}

fn usable(message: &HandOver) -> Result<Taken, String> {
    let received = Received::parse(message.payload.get().as_bytes()).map_err(|error| error.to_string())?;
    let Payload { id, token, .. } = received.payload.clone();
    let deadline = Instant::now() + remaining(&received.payload, message.elapsed_seconds);
    let cache_renewal = message.caches.as_ref().and_then(|caches| caches.renewal.clone());
    Ok(Taken { id, token, deadline, cache_renewal })
}

/// Waits for the job, and tells everybody else that the place is taken.
async fn answer_while<T>(
    job: &Taken,
    requests: &mut mpsc::Receiver<Request>,
    renewed: &watch::Sender<Option<RemoteCaches>>,
    running: impl Future<Output = T>,
) -> T {
    tokio::pin!(running);
    loop {
        tokio::select! {
            ended = &mut running => return ended,
            Some(request) = requests.recv() => match request {
                Request::HandOver(_, answer) => drop(answer.send(Receipt::Busy { job: job.id })),
                Request::Status(answer) => {
                    let remaining_seconds = job.deadline.saturating_duration_since(Instant::now()).as_secs();
                    let (token, cache_renewal) = (job.token.clone(), job.cache_renewal.clone());
                    drop(answer.send(AgentStatus::Running { job: job.id, token, remaining_seconds, cache_renewal }));
                }
                Request::Caches(caches, answer) => {
                    renewed.send_replace(Some(*caches));
                    let _ = answer.send(AddressesReceipt::Taken);
                }
            },
        }
    }
}
