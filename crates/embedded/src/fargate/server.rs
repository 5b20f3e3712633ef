//! The embedded Fargate as a server: one loopback port for ECS, EC2, STS, and a few addresses of our own.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, State as Shared};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::accounts::{ACCOUNT, Caller};
use super::addresses::Addresses;
use super::ec2_api::{self, Parameters};
use super::engine::{Engine, EngineError};
use super::failure::Failure;
use super::faults::{CallFault, Faults, Rule};
use super::lifecycle::Order;
use super::listener::{CuttableListener, Scissors};
use super::record::{Record, Recorded, Signer};
use super::state::{Cluster, State, TaskView, task_id};
use super::sts_api::RoleSession;
use super::world::World;
use super::{Config, ecs_api, sts_api};

/// Why an embedded Fargate could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0} is not a loopback address: whoever reaches an embedded Fargate can run commands on this machine")]
    NotLoopback(SocketAddr),
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    #[error("no loopback addresses for tasks: {0}")]
    Addresses(io::Error),
    #[error("the agent {0} cannot be used: {1}")]
    Agent(std::path::PathBuf, io::Error),
    #[error("calls cannot be recorded in {0}: {1}")]
    Record(std::path::PathBuf, io::Error),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A running embedded Fargate. Dropping it kills its tasks; `shutdown` also waits for them.
#[derive(Debug)]
pub struct Server {
    world: Arc<World>,
    url: String,
    engine: String,
    ssh_port: u16,
    serving: JoinHandle<()>,
}

/// Starts a server with the clusters of the configuration and the two built-in task definitions.
pub async fn start(mut config: Config) -> Result<Server, StartError> {
    if !config.listen.ip().is_loopback() {
        return Err(StartError::NotLoopback(config.listen));
    }
    let agent = config.agent.canonicalize().map_err(|error| StartError::Agent(config.agent.clone(), error))?;
    config.agent = agent;
    let record = config
        .record
        .as_deref()
        .map(|file| Record::open(file).map_err(|error| StartError::Record(file.to_owned(), error)));
    let record = record.transpose()?;
    allow_many_files();
    let engine = Engine::start(config.engine, config.root.as_deref(), &config.agent).await?;
    let listener = TcpListener::bind(config.listen).await.map_err(|error| StartError::Listen(config.listen, error))?;
    let address = listener.local_addr().map_err(|error| StartError::Listen(config.listen, error))?;
    let addresses = Addresses::claim().map_err(StartError::Addresses)?;

    let ssh_port = addresses.port();
    let state = first_state(&config, addresses);
    let description = engine.description().to_owned();
    let world = Arc::new(World::new(config, engine, state, record));
    let router = Router::new()
        .route("/", post(call))
        .route("/_embedded/faults", post(add_fault).delete(clear_faults))
        .route("/_embedded/tasks/{id}/log", get(task_log))
        .layer(DefaultBodyLimit::max(1024 * 1024))
        .with_state(world.clone());
    let service = router.into_make_service_with_connect_info::<Scissors>();
    let closing = world.closing.clone();
    let serving = tokio::spawn(async move {
        let server = axum::serve(CuttableListener(listener), service);
        // It ends without an error: the listener retries by itself.
        let _ = server.with_graceful_shutdown(closing.cancelled_owned()).await;
    });
    Ok(Server { world, url: format!("http://{address}"), engine: description, ssh_port, serving })
}

fn first_state(config: &Config, addresses: Addresses) -> State {
    let mut state = State {
        region: config.region.clone(),
        clusters: BTreeMap::new(),
        definitions: BTreeMap::new(),
        tasks: BTreeMap::new(),
        tokens: HashMap::new(),
        rates: HashMap::new(),
        addresses,
        sessions: HashMap::new(),
        calls: BTreeMap::new(),
    };
    for name in &config.clusters {
        let arn = match name.starts_with("arn:") {
            true => name.clone(),
            false => state.arn(ACCOUNT, &format!("cluster/{name}")),
        };
        let name = name.rsplit('/').next().unwrap_or(name).to_owned();
        let capacity_providers = vec!["FARGATE".into(), "FARGATE_SPOT".into()];
        let cluster = Cluster { arn: arn.clone(), name, capacity_providers, default_strategy: Vec::new() };
        state.clusters.insert(arn, cluster);
    }
    ecs_api::built_in_definitions(&mut state, SystemTime::now())
        .expect("the built-in definitions are valid: they are constants, and a test registers them");
    state
}

/// A task costs two descriptors, and the usual soft limit is 1,024. Without more, many tasks at once fail to start,
/// each with a reason that says so.
fn allow_many_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

impl Server {
    /// The endpoint for ECS, EC2 and STS alike.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// One sentence: how tasks are kept apart here, and why so.
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// The port of every task's SSH server: 22 where this process may bind it, else 2222.
    pub fn ssh_port(&self) -> u16 {
        self.ssh_port
    }

    pub fn faults(&self) -> &Faults {
        &self.world.faults
    }

    /// Every task that is still visible or running.
    pub fn tasks(&self) -> Vec<TaskView> {
        self.world.look(|state| state.tasks.values().map(|task| task.view()).collect())
    }

    /// How often each API was called, refused calls included.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.world.look(|state| state.calls.clone())
    }

    /// The role that STS gave these keys for, also when their time is over.
    pub fn role_session(&self, access_key: &str) -> Option<RoleSession> {
        self.world.look(|state| state.sessions.get(access_key).map(|taken| taken.session.clone()))
    }

    /// Waits until `predicate` holds for the tasks, and gives them; `None` if it does not happen in time.
    pub async fn wait_for(
        &self,
        within: Duration,
        mut predicate: impl FnMut(&[TaskView]) -> bool,
    ) -> Option<Vec<TaskView>> {
        let mut changes = self.world.changes();
        let reached = async {
            loop {
                changes.borrow_and_update();
                let looking = Instant::now();
                let tasks = self.tasks();
                if predicate(&tasks) {
                    return Some(tasks);
                }
                // A look costs as much as there are tasks. A thousand that start at once must not be slowed by it.
                tokio::time::sleep(looking.elapsed() * 4).await;
                changes.changed().await.ok()?;
            }
        };
        tokio::time::timeout(within, reached).await.ok().flatten()
    }

    /// Gives a task the Spot notice now. These three do nothing to a task that is not alive.
    pub fn interrupt_task(&self, arn: &str, notice: Duration) {
        self.order(arn, Order::Interrupt { notice });
    }

    /// Takes the host away under a task.
    pub fn kill_host(&self, arn: &str) {
        self.order(arn, Order::LoseHost);
    }

    /// Kills a task for its memory.
    pub fn out_of_memory(&self, arn: &str) {
        self.order(arn, Order::RunOutOfMemory);
    }

    /// The newest output of a task's containers, up to 64 KiB.
    pub fn task_log(&self, arn: &str) -> Option<Vec<u8>> {
        self.world.look(|state| state.tasks.get(task_id(arn)).map(|task| task.log.read()))
    }

    /// Kills every task, waits until nothing is left of them, and stops listening.
    pub async fn shutdown(mut self) {
        self.world.closing.cancel();
        self.world.lives.close();
        self.world.lives.wait().await;
        // Clients may keep idle connections; those are closed, and a client that reads slowly is not waited for.
        if tokio::time::timeout(Duration::from_secs(1), &mut self.serving).await.is_err() {
            self.serving.abort();
        }
    }

    fn order(&self, arn: &str, order: Order) {
        self.world.look(|state| {
            if let Some(task) = state.tasks.get(task_id(arn)) {
                let _ = task.orders.send(order);
            }
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.world.closing.cancel();
    }
}

/// One of the three protocols of a call, and what it asks for.
enum Call {
    Ecs(String),
    Ec2(String, Parameters),
    Sts(String, Parameters),
}

/// `POST /`: ECS if it has a target, else the Query protocol.
async fn call(
    Shared(world): Shared<Arc<World>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let call = match recognize(&headers, &body) {
        Ok(call) => call,
        Err(failure) => return failure.into_json(),
    };
    let name = call.name();
    let signer = Signer::of(&headers);
    let caller = world.look(|state| {
        *state.calls.entry(name.to_owned()).or_default() += 1;
        state.caller(signer.access_key, Timestamp::now())
    });
    let role = caller.as_ref().ok().and_then(|caller| caller.session.as_ref()).map(|session| session.role.clone());
    let fault = world.faults.next_for_call(name);
    let answer = match &fault {
        Some(CallFault::Throttle) => call.refuse(Failure::throttled()),
        Some(CallFault::ServerError { status }) => call.refuse(Failure::server(*status)),
        Some(CallFault::CapacityUnavailable) if name == "RunTask" => json(ecs_api::capacity_unavailable()),
        _ => {
            caller.and_then(|caller| call.answer(&world, &body, &caller)).unwrap_or_else(|failure| call.refuse(failure))
        }
    };
    if let Some(record) = &world.record {
        let (service, parameters, gives) = (call.service(), call.parameters(&body), answer.extensions().get());
        record.add(signer, &Recorded { role: role.as_deref(), service, action: name, parameters, gives });
    }
    match fault {
        Some(CallFault::AnswerLost) => scissors.cut(),
        Some(CallFault::Slow { by }) => {
            tokio::select! {
                () = tokio::time::sleep(by) => {}
                () = world.closing.cancelled() => scissors.cut(),
            }
        }
        _ => {}
    }
    answer
}

fn recognize(headers: &HeaderMap, body: &[u8]) -> Result<Call, Failure> {
    if !headers.contains_key(header::AUTHORIZATION) {
        return Err(Failure::new("MissingAuthenticationTokenException", "Missing Authentication Token"));
    }
    if let Some(target) = headers.get("x-amz-target") {
        let operation = target.to_str().ok().and_then(|target| target.strip_prefix(ecs_api::TARGET));
        let unknown = || Failure::new("UnknownOperationException", "Only ECS is served here");
        return operation.map(|name| Call::Ecs(name.to_owned())).ok_or_else(unknown);
    }
    let unreadable = || Failure::new("MalformedQueryString", "neither an X-Amz-Target nor a form");
    let form = std::str::from_utf8(body).map_err(|_| unreadable())?;
    let uri: Uri = format!("/?{form}").parse().map_err(|_| unreadable())?;
    let Query(parameters) = Query::<Parameters>::try_from_uri(&uri).map_err(|_| unreadable())?;
    match parameters.get("Action").map(String::as_str) {
        Some(action) if sts_api::serves(action) => Ok(Call::Sts(action.to_owned(), parameters)),
        Some(action) => Ok(Call::Ec2(action.to_owned(), parameters)),
        None => Err(unreadable()),
    }
}

impl Call {
    fn name(&self) -> &str {
        match self {
            Call::Ecs(operation) => operation,
            Call::Ec2(action, _) | Call::Sts(action, _) => action,
        }
    }

    fn service(&self) -> &'static str {
        match self {
            Call::Ecs(_) => "ecs",
            Call::Ec2(..) => "ec2",
            Call::Sts(..) => "sts",
        }
    }

    /// As they stand on the wire; those of a body that cannot be read are none.
    fn parameters(&self, body: &[u8]) -> serde_json::Value {
        match self {
            Call::Ecs(_) => serde_json::from_slice(body).unwrap_or_default(),
            Call::Ec2(_, parameters) | Call::Sts(_, parameters) => serde_json::json!(parameters),
        }
    }

    fn refuse(&self, failure: Failure) -> Response {
        match self {
            Call::Ecs(_) => failure.into_json(),
            Call::Ec2(..) => failure.into_ec2_xml(),
            Call::Sts(..) => failure.into_sts_xml(),
        }
    }

    fn answer(&self, world: &Arc<World>, body: &[u8], caller: &Caller) -> Result<Response, Failure> {
        match self {
            Call::Ecs(operation) => ecs_api::answer(world, operation, body, caller).map(json),
            Call::Ec2(action, parameters) => {
                world.look(|state| ec2_api::answer(state, &caller.account, action, parameters))
            }
            Call::Sts(action, parameters) => {
                let (roles, now) = (&world.config.roles, Timestamp::now());
                world.look(|state| sts_api::answer(state, roles, action, parameters, caller, now))
            }
        }
    }
}

fn json(answer: serde_json::Value) -> Response {
    ([(header::CONTENT_TYPE, ecs_api::CONTENT_TYPE)], answer.to_string()).into_response()
}

async fn add_fault(Shared(world): Shared<Arc<World>>, body: Bytes) -> Response {
    match serde_json::from_slice::<Rule>(&body) {
        Ok(rule) => {
            world.faults.add(rule);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

async fn clear_faults(Shared(world): Shared<Arc<World>>) -> StatusCode {
    world.faults.clear();
    StatusCode::NO_CONTENT
}

async fn task_log(Shared(world): Shared<Arc<World>>, Path(id): Path<String>) -> Response {
    match world.look(|state| state.tasks.get(&id).map(|task| task.log.read())) {
        Some(log) => log.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
