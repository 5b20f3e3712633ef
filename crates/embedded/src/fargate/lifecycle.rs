//! The life of one task, from PROVISIONING to STOPPED, each step with its delay and its possible fault.

use std::future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use super::engine::{self, Image, Process};
use super::faults::{Stuck, TaskFault};
use super::state::{ContainerDefinition, Status, Task};
use super::world::World;

/// What happens to a task from outside.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// StopTask; it has already noted code and reason.
    Stop,
    /// The Spot notice.
    Interrupt {
        notice: Duration,
    },
    LoseHost,
    RunOutOfMemory,
}

/// Why a task ends.
#[derive(Debug)]
enum Ending {
    NotStarted(String),
    EssentialExited,
    Ordered(Order),
    ServerCloses,
}

/// Fargate's default for `stopTimeout`.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const SPOT: &str = "Your Spot Task was interrupted.";
const HOST_LOST: &str = "The infrastructure that hosted the task failed.";
const OUT_OF_MEMORY: &str = "OutOfMemoryError: container killed due to memory usage";
const INTERFACE_TIMEOUT: &str = "Timeout waiting for network interface provisioning to complete.";
const NO_ADDRESS: &str = "Unexpected EC2 error while attempting to Create Network Interface: \
                          InsufficientFreeAddressesInSubnet";

/// One task's processes and what becomes of them.
struct Life {
    world: Arc<World>,
    id: String,
    fault: Option<TaskFault>,
    orders: mpsc::UnboundedReceiver<Order>,
    processes: Vec<Process>,
    /// The index of each container that ends, with its exit code.
    exits: FuturesUnordered<BoxFuture<'static, (usize, i32)>>,
}

/// Runs a task that was just put into the state, to its end.
pub(super) async fn live(
    world: Arc<World>,
    id: String,
    fault: Option<TaskFault>,
    orders: mpsc::UnboundedReceiver<Order>,
) {
    let mut life = Life { world, id, fault, orders, processes: Vec::new(), exits: FuturesUnordered::new() };
    let ending = match life.bring_up().await {
        Ok(()) => life.run().await,
        Err(ending) => ending,
    };
    life.wind_down(ending).await;
}

impl Life {
    async fn bring_up(&mut self) -> Result<(), Ending> {
        let delays = self.world.config.delays;
        if matches!(self.fault, Some(TaskFault::NeverStarts { stuck_in: Stuck::Provisioning })) {
            return Err(self.interruption().await);
        }
        self.pass(delays.provisioning).await?;
        if matches!(self.fault, Some(TaskFault::NetworkInterfaceTimeout)) {
            return Err(Ending::NotStarted(INTERFACE_TIMEOUT.into()));
        }
        let address = self.world.look(|state| state.addresses.take());
        let address = address.ok_or_else(|| Ending::NotStarted(NO_ADDRESS.into()))?;
        self.task(|task| {
            task.interface.address = Some(address);
            task.times.connectivity = Some(SystemTime::now());
            task.walk_to(Status::Pending);
        });

        if matches!(self.fault, Some(TaskFault::NeverStarts { stuck_in: Stuck::Pending })) {
            return Err(self.interruption().await);
        }
        self.pass(delays.pending).await?;
        let definition = self.task(|task| {
            task.times.pull_started = Some(SystemTime::now());
            task.walk_to(Status::Activating);
            task.definition.clone()
        });
        let Some(definition) = definition else { return Err(Ending::ServerCloses) };
        self.pass(delays.pull).await?;
        for (index, container) in definition.containers.iter().enumerate() {
            if let Some(secret) = container.secrets.first() {
                let secret = &secret.value_from;
                let reason =
                    format!("ResourceInitializationError: The task can't retrieve the secret with ARN '{secret}'.");
                return Err(self.container_failed(index, reason));
            }
            let image = match self.fault {
                Some(TaskFault::CannotPull) => None,
                _ => Image::find(&container.image),
            };
            let Some(image) = image else {
                return Err(self.container_failed(index, cannot_pull(&container.image)));
            };
            self.start(index, container, image).await?;
        }
        self.task(|task| task.times.pull_stopped = Some(SystemTime::now()));
        Ok(())
    }

    async fn start(&mut self, index: usize, definition: &ContainerDefinition, image: Image) -> Result<(), Ending> {
        let port = self.world.look(|state| state.addresses.port());
        let container = self.task(|task| container(task, definition, image, port));
        let Some(container) = container else { return Err(Ending::ServerCloses) };
        match self.world.engine.run(container).await {
            Ok(process) => {
                let ended = process.ended();
                self.exits.push(Box::pin(async move { (index, ended.await) }));
                self.processes.push(process);
                self.task(|task| task.containers[index].runtime_id = Some(Uuid::new_v4().simple().to_string()));
                Ok(())
            }
            Err(error) => {
                let reason = format!("CannotStartContainerError: failed to create containerd task: {error}");
                Err(self.container_failed(index, reason))
            }
        }
    }

    /// From the start of the processes until something ends the task.
    async fn run(&mut self) -> Ending {
        let began = Instant::now();
        let report_at = began + self.world.config.delays.report;
        let (misfortune_at, misfortune) = match self.fault {
            Some(TaskFault::SpotInterruption { after, notice }) => (began + after, Some(Order::Interrupt { notice })),
            Some(TaskFault::HostLost { after }) => (began + after, Some(Order::LoseHost)),
            Some(TaskFault::OutOfMemory { after }) => (began + after, Some(Order::RunOutOfMemory)),
            _ => (began, None),
        };
        let mut reported = false;
        let closing = self.world.closing.clone();
        loop {
            tokio::select! {
                () = sleep_until(report_at), if !reported => {
                    reported = true;
                    self.report_running();
                }
                Some((index, code)) = self.exits.next() => {
                    if self.container_ended(index, code) {
                        if !reported {
                            self.report_running();
                        }
                        return Ending::EssentialExited;
                    }
                }
                () = sleep_until(misfortune_at), if misfortune.is_some() => {
                    return misfortune.map_or(Ending::ServerCloses, Ending::Ordered);
                }
                order = self.orders.recv() => return order.map_or(Ending::ServerCloses, Ending::Ordered),
                () = closing.cancelled() => return Ending::ServerCloses,
            }
        }
    }

    fn report_running(&self) {
        self.task(|task| {
            task.times.started = Some(SystemTime::now());
            task.walk_to(Status::Running);
        });
    }

    async fn wind_down(&mut self, ending: Ending) {
        let now = SystemTime::now();
        let (code, reason) = match &ending {
            Ending::NotStarted(reason) => ("TaskFailedToStart", reason.as_str()),
            Ending::EssentialExited => ("EssentialContainerExited", "Essential container in task exited"),
            Ending::Ordered(Order::Stop) => ("UserInitiated", ""),
            Ending::Ordered(Order::Interrupt { .. }) => ("SpotInterruption", SPOT),
            Ending::Ordered(Order::LoseHost) => ("InfrastructureHealth", HOST_LOST),
            Ending::Ordered(Order::RunOutOfMemory) => {
                ("EssentialContainerExited", "Essential container in task exited")
            }
            Ending::ServerCloses => ("UserInitiated", "The embedded Fargate is shutting down"),
        };
        self.task(|task| task.want_stop(code, reason, now));

        match ending {
            // The notice comes while the task is still RUNNING.
            Ending::Ordered(Order::Interrupt { notice }) => self.end_within(notice).await,
            Ending::Ordered(Order::Stop) | Ending::EssentialExited => {
                self.task(|task| task.walk_to(Status::Deactivating));
                self.task(|task| task.walk_to(Status::Stopping));
                let grace = self.stop_timeout();
                self.end_within(grace).await;
            }
            Ending::NotStarted(_) | Ending::ServerCloses => self.kill().await,
            Ending::Ordered(Order::LoseHost) => {
                self.kill().await;
                // Nobody was left to tell how the containers ended.
                self.task(|task| task.containers.iter_mut().for_each(|container| container.exit_code = None));
            }
            Ending::Ordered(Order::RunOutOfMemory) => {
                self.kill().await;
                self.task(|task| {
                    let main = task.definition.containers.iter().position(ContainerDefinition::is_essential);
                    if let Some(index) = main {
                        task.containers[index].reason = Some(OUT_OF_MEMORY.into());
                    }
                });
            }
        }

        self.task(|task| {
            task.times.execution_stopped = task.times.pull_stopped.map(|_| SystemTime::now());
            task.walk_to(Status::Deprovisioning);
        });
        let closing = self.world.closing.clone();
        tokio::select! {
            () = sleep(self.world.config.delays.deprovisioning) => {}
            () = closing.cancelled() => {}
        }
        self.world.with(|state| {
            let Some(task) = state.tasks.get_mut(&self.id) else { return };
            task.times.stopped = Some(SystemTime::now());
            task.walk_to(Status::Stopped);
            if let Some(address) = task.interface.address {
                state.addresses.give_back(address);
            }
        });
    }

    /// SIGTERM, and SIGKILL when `grace` is over.
    async fn end_within(&mut self, grace: Duration) {
        self.processes.iter().for_each(Process::terminate);
        let closing = self.world.closing.clone();
        let gone = async {
            while let Some((index, code)) = self.exits.next().await {
                self.container_ended(index, code);
            }
        };
        tokio::select! {
            _ = timeout(grace, gone) => {}
            () = closing.cancelled() => {}
        }
        self.kill().await;
    }

    async fn kill(&mut self) {
        self.processes.iter().for_each(Process::kill);
        while let Some((index, code)) = self.exits.next().await {
            self.container_ended(index, code);
        }
    }

    /// Notes the exit code; true if the container was essential.
    fn container_ended(&self, index: usize, code: i32) -> bool {
        let essential = self.task(|task| {
            task.containers[index].exit_code = Some(code);
            task.definition.containers[index].is_essential()
        });
        essential.unwrap_or(true)
    }

    fn container_failed(&self, index: usize, reason: String) -> Ending {
        self.task(|task| task.containers[index].reason = Some(reason.clone()));
        Ending::NotStarted(reason)
    }

    fn stop_timeout(&self) -> Duration {
        let longest = |task: &mut Task| task.definition.containers.iter().filter_map(|one| one.stop_timeout).max();
        self.task(longest).flatten().map_or(STOP_TIMEOUT, Duration::from_secs)
    }

    /// Lets `delay` pass, unless something ends the task first.
    async fn pass(&mut self, delay: Duration) -> Result<(), Ending> {
        tokio::select! {
            biased;
            ending = self.interruption() => Err(ending),
            () = sleep(delay) => Ok(()),
        }
    }

    async fn interruption(&mut self) -> Ending {
        tokio::select! {
            order = self.orders.recv() => match order {
                Some(order) => Ending::Ordered(order),
                None => future::pending().await,
            },
            () = self.world.closing.cancelled() => Ending::ServerCloses,
        }
    }

    fn task<T>(&self, change: impl FnOnce(&mut Task) -> T) -> Option<T> {
        self.world.task(&self.id, change)
    }
}

/// What the engine is to start: the definition, the overrides, and what ECS sets itself.
fn container(task: &Task, definition: &ContainerDefinition, image: Image, port: u16) -> engine::Container {
    let overrides = task.container_overrides.iter().filter(|one| one.name == definition.name);
    let overridden = overrides.clone().find(|one| !one.command.is_empty());
    let command = overridden.map_or(&definition.command, |one| &one.command);
    let region = task.arn.split(':').nth(3).unwrap_or_default();
    let mut environment = vec![
        ("AWS_EXECUTION_ENV".to_owned(), "AWS_ECS_FARGATE".to_owned()),
        ("AWS_REGION".to_owned(), region.to_owned()),
        ("AWS_DEFAULT_REGION".to_owned(), region.to_owned()),
    ];
    let given = definition.environment.iter().chain(overrides.flat_map(|one| &one.environment));
    environment.extend(given.map(|one| (one.name.clone(), one.value.clone())));
    // All tasks share one network here: this tells a server in the task which address is its own.
    environment
        .extend(task.interface.address.map(|address| ("STAFFETTA_LISTEN".to_owned(), format!("{address}:{port}"))));
    engine::Container {
        image,
        command: definition.entry_point.iter().chain(command).cloned().collect(),
        environment,
        working_directory: definition.working_directory.clone(),
        log: task.log.clone(),
    }
}

fn cannot_pull(image: &str) -> String {
    let tagged = if image.contains(':') { image.to_owned() } else { format!("{image}:latest") };
    let registry = image.split_once('/').is_some_and(|(host, _)| host.contains('.'));
    let reference = if registry { tagged } else { format!("docker.io/{tagged}") };
    format!(
        "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref {reference}: \
         {reference}: not found"
    )
}
