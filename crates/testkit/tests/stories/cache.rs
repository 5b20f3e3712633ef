//! Caches: from one job to the next through a store, whatever happens to the store, the keys and the manager.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use axum::http::Method;
use embedded::gitlab::{PipelineId, Status};
use nix::sys::signal::Signal;
use testkit::{ManagerProcess, Moto, PATIENCE, Setup, StoreFault, StoreFront, World};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// The keys of the store at `address`, and a bucket. `more` are lines of `[runners.cache.s3]`.
fn cache_table(address: &str, bucket: &str, shared: bool, more: &str) -> String {
    format!(
        r#"
[runners.cache]
Type = "s3"
Path = "ci"
Shared = {shared}
[runners.cache.s3]
ServerAddress = "{address}"
Insecure = true
AccessKey = "manager"
SecretKey = "secret"
BucketName = "{bucket}"
BucketLocation = "us-east-1"
{more}
"#
    )
}

async fn world(address: &str, bucket: &str, more: &str) -> World {
    Moto::shared().create_bucket(bucket).await;
    let runner = cache_table(address, bucket, true, more);
    World::start(Setup { runner, ..Setup::default() }).await
}

const SAVE_AND_FIND: &str = "
stages: [save, find]
default: { tags: [dev], cache: { key: main, paths: [deps/] } }
save: { stage: save, script: [mkdir -p deps/bin, echo it > deps/bin/tool, chmod 750 deps/bin/tool] }
find: { stage: find, script: [stat -c 'found %n %a' deps/bin/tool] }
";

/// A job that finds a cache of another runner's making, and changes nothing in it.
const FIND: &str = "  cache: { key: main, paths: [deps/] }\n  script: [cat deps/tool || echo nothing found]";

#[tokio::test(flavor = "multi_thread")]
async fn what_one_job_saves_the_next_one_finds() {
    let moto = Moto::shared();
    moto.create_bucket("journey").await;
    let runner = cache_table(moto.address(), "journey", false, "");
    let mut world = World::start(Setup { runner, ..Setup::default() }).await;
    let pipeline = world.pipeline(SAVE_AND_FIND).await;
    assert_eq!(world.finished(pipeline).await, Status::Success, "{}{}", world.trace("save"), world.trace("find"));

    let (save, find) = (world.trace("save"), world.trace("find"));
    for line in [
        "Restoring cache",
        "Checking cache for main",
        "WARNING: file does not exist",
        "WARNING: Failed to extract cache",
    ] {
        assert!(save.contains(line), "{line}: {save}");
    }
    for line in ["Saving cache for successful job", "Creating cache main", "deps/: found 3 matching", "Created cache"] {
        assert!(save.contains(line), "{line}: {save}");
    }
    for line in ["Successfully extracted cache", "found deps/bin/tool 750", "Archive is up to date!"] {
        assert!(find.contains(line), "{line}: {find}");
    }
    assert!(!find.contains("X-Amz-") && !save.contains("X-Amz-"), "no signature is shown");

    let keys = moto.keys("journey").await;
    let [key] = &keys[..] else { panic!("{keys:?}") };
    let parts: Vec<_> = key.split('/').collect();
    assert!(
        matches!(parts[..], ["ci", "runner", token, "project", _, name] if token.len() == 9 && name.starts_with("main")),
        "{key}"
    );
    assert_eq!(moto.head("journey", key).await["x-amz-meta-cachekey"], *parts[5]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cache.zip");
    std::fs::write(&file, moto.object("journey", key).await.expect("the archive")).expect("a file");
    let listed = Command::new("unzip").args(["-l"]).arg(&file).output().expect("unzip");
    let listed = String::from_utf8(listed.stdout).expect("text");
    assert!(listed.contains("deps/bin/tool") && listed.contains("deps/bin/\n"), "{listed}");
    world.end().await;
}

/// What GitLab's runner would have put there: the same name, and a zip.
async fn store_foreign_archive(bucket: &str, make: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("deps")).expect("a folder");
    std::fs::write(folder.path().join("deps/tool"), "of another runner\n").expect("a file");
    make(folder.path());
    let archive = std::fs::read(folder.path().join("cache.zip")).expect("an archive");
    Moto::shared().put_object(bucket, &object_of("main-protected"), archive).await;
}

/// With `Shared`, and with what the server puts behind a key for a protected branch.
fn object_of(key: &str) -> String {
    format!("ci/project/{}/{key}", embedded::gitlab::PROJECT_ID)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_of_gitlabs_runner_is_found() {
    let moto = Moto::shared();
    let mut world = world(moto.address(), "foreign", "").await;
    // With sizes before the content, and, as Go writes it, behind it. Both have the extra fields of GitLab's runner: times, owners.
    for how in ["zip -qr cache.zip deps", "zip -qr - deps | cat > cache.zip"] {
        store_foreign_archive("foreign", |folder| {
            let zip = Command::new("sh").args(["-c", how]).current_dir(folder).status();
            assert!(zip.expect("a shell").success());
        })
        .await;
        let (job, trace) = world.run_job(FIND).await;
        assert_eq!(job.status, Status::Success);
        assert!(trace.contains("of another runner") && trace.contains("Successfully extracted cache"), "{trace}");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_ill_never_fails_a_job_and_says_why() {
    let moto = Moto::shared();
    let front = StoreFront::start(moto, Duration::from_secs(3600)).await;
    let mut world = world(front.address(), "ill", "").await;
    let saved = "  cache: { key: main, paths: [deps/] }\n  script: [mkdir -p deps, date +%N > deps/new]";
    let unwell: [(Method, u32, StoreFault, &[&str]); 6] = [
        (
            Method::GET,
            1,
            StoreFault::Refuses(403, "AccessDenied"),
            &["received: 403 Forbidden. Request failed with code: AccessDenied", "Failed to extract cache"],
        ),
        (
            Method::GET,
            3,
            StoreFault::Refuses(503, "SlowDown"),
            &["Retrying...", "received: 503 Service Unavailable", "Failed to extract cache"],
        ),
        (
            Method::PUT,
            3,
            StoreFault::Refuses(500, "InternalError"),
            &["Retrying...", "received: 500 Internal Server Error", "Failed to create cache"],
        ),
        (Method::PUT, 1, StoreFault::Refuses(503, "SlowDown"), &["Retrying...", "Created cache"]),
        (
            Method::GET,
            1,
            StoreFault::Corrupt(b"PK\x03\x04 this is no archive"),
            &["cannot be read", "Failed to extract cache"],
        ),
        (Method::GET, 1, StoreFault::CutShort, &["Retrying...", "Successfully extracted cache"]),
    ];
    for (method, times, fault, told) in unwell {
        let name = format!("{fault:?}");
        front.fault(method, times, fault);
        let (job, trace) = world.run_job(saved).await;
        assert_eq!(job.status, Status::Success, "{name}: {trace}");
        for text in told {
            assert!(trace.contains(text), "{name}: {text:?} is missing: {trace}");
        }
    }
    front.fault(Method::GET, 1, StoreFault::Slow(Duration::from_secs(2)));
    let (job, trace) = world.run_job(saved).await;
    assert!(job.status == Status::Success && trace.contains("Successfully extracted cache"), "{trace}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_cannot_be_taken_costs_the_job_its_cache_only() {
    // Nothing listens there, and STS is asked nowhere else.
    let mut world = World::without_manager(Setup {
        runner: cache_table("127.0.0.1:9", "nobody", true, "RoleARN = \"arn:aws:iam::123456789012:role/none\""),
        ..Setup::default()
    })
    .await;
    let mut command = manager(&world.config_file(), "127.0.0.1:9");
    command.env("AWS_MAX_ATTEMPTS", "1");
    let manager = ManagerProcess::of(command);
    let (job, trace) = world.run_job(FIND).await;
    assert_eq!(job.status, Status::Success, "{trace}");
    assert!(trace.contains("the role arn:aws:iam::123456789012:role/none cannot be used for the cache"), "{trace}");
    assert!(trace.contains("No URL provided, cache will not be downloaded"), "{trace}");
    drop(manager);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_cancelled_while_its_addresses_are_signed_ends_at_once() {
    let sts = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = sts.local_addr().expect("an address").to_string();
    let role = "RoleARN = \"arn:aws:iam::123456789012:role/slow\"";
    let runner = cache_table("127.0.0.1:9", "nobody", true, role);
    let mut world = World::without_manager(Setup { runner, ..Setup::default() }).await;
    let manager = ManagerProcess::of(manager(&world.config_file(), &address));
    let pipeline = world.pipeline(&format!("it:\n  tags: [dev]\n{FIND}")).await;
    // It is asked, and never answers.
    let asked = timeout(PATIENCE, sts.accept()).await.expect("a call of STS").expect("a connection");
    world.until_trace("it", "Handing the job over to its task").await;
    world.gitlab.cancel_job(world.job("it").id);
    assert_eq!(world.finished(pipeline).await, Status::Canceled);
    let trace = world.trace("it");
    assert!(!trace.contains("runs without its cache"), "STS was waited for: {trace}");
    drop((asked, manager));
    world.end().await;
}

/// The manager as a process, whose STS is at `sts`.
fn manager(config: &Path, sts: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(testkit::program("staffetta"));
    command.args(["run", "--config"]).arg(config).env("AWS_ENDPOINT_URL_STS", format!("http://{sts}"));
    command
}

/// Longer than the keys of the role live, and until the renewal that is due by then has come.
async fn outlive_the_keys(front: &StoreFront, lives: Duration) {
    let over = tokio::time::Instant::now() + lives + Duration::from_secs(1);
    let renewals = front.seen().iter().filter(|line| line.starts_with("POST")).count();
    testkit::eventually("the keys of the hand-over are over", || tokio::time::Instant::now() > over).await;
    testkit::eventually("a role is taken again", || {
        front.seen().iter().filter(|line| line.starts_with("POST")).count() > renewals
    })
    .await;
}

pub const SHORT: Duration = Duration::from_secs(12);

/// Where a job waits until the test lets it go on. A task shares this machine's network, but not its files.
pub struct Gate(TcpListener);

impl Gate {
    pub async fn shut() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("a port"))
    }

    /// Saves its cache when the gate is opened.
    pub fn pipeline(&self) -> String {
        let port = self.0.local_addr().expect("an address").port();
        format!(
            "it:
  tags: [dev]
  cache: {{ key: main, paths: [deps/] }}
  script:
    - mkdir deps && echo it > deps/tool && echo under way
    - read -r word < /dev/tcp/127.0.0.1/{port}
"
        )
    }

    pub async fn open(&self) {
        let (mut job, _) = timeout(PATIENCE, self.0.accept()).await.expect("a waiting job").expect("a connection");
        job.write_all(b"go\n").await.expect("an open connection");
    }
}

struct ShortLived {
    world: World,
    front: StoreFront,
    gate: Gate,
}

/// The manager signs with keys of a role that live for seconds.
async fn short_lived(bucket: &str, task_definition: &'static str) -> ShortLived {
    let moto = Moto::shared();
    moto.create_bucket(bucket).await;
    let front = StoreFront::start(moto, SHORT).await;
    let role = "RoleARN = \"arn:aws:iam::123456789012:role/caches\"";
    let runner = cache_table(front.address(), bucket, true, role);
    let world = World::without_manager(Setup { runner, task_definition, ..Setup::default() }).await;
    ShortLived { world, front, gate: Gate::shut().await }
}

impl ShortLived {
    async fn saved(self, bucket: &str, pipeline: PipelineId) {
        self.gate.open().await;
        assert_eq!(self.world.finished(pipeline).await, Status::Success);
        let trace = self.world.trace("it");
        assert!(trace.contains("Created cache"), "{trace}\n{:#?}", self.front.seen());
        assert!(Moto::shared().object(bucket, &object_of("main-protected")).await.is_some());
        self.world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_outlives_the_keys_of_its_addresses_still_saves_its_cache() {
    for (bucket, task_definition) in [("outlives", "staffetta-agent"), ("outlives-sshd", "staffetta-sshd")] {
        let mut short = short_lived(bucket, task_definition).await;
        let manager = ManagerProcess::of(manager(&short.world.config_file(), short.front.address()));
        let pipeline = short.world.pipeline(&short.gate.pipeline()).await;
        short.world.until_trace("it", "under way").await;
        outlive_the_keys(&short.front, SHORT).await;
        short.saved(bucket, pipeline).await;
        drop(manager);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_successor_of_a_killed_manager_renews_the_addresses_of_the_jobs_that_it_finds() {
    let mut short = short_lived("successor", "staffetta-agent").await;
    let first = ManagerProcess::of(manager(&short.world.config_file(), short.front.address()));
    let pipeline = short.world.pipeline(&short.gate.pipeline()).await;
    short.world.until_trace("it", "under way").await;
    first.signal(Signal::SIGKILL);
    first.ended().await;
    let mut second = ManagerProcess::of(manager(&short.world.config_file(), short.front.address()));
    second.until_log("found a running job of an earlier manager").await;
    outlive_the_keys(&short.front, SHORT).await;
    short.saved("successor", pipeline).await;
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_is_saved_while_no_manager_is_alive() {
    let moto = Moto::shared();
    moto.create_bucket("alone").await;
    let runner = cache_table(moto.address(), "alone", true, "");
    let mut world = World::without_manager(Setup { runner, ..Setup::default() }).await;
    let gate = Gate::shut().await;
    let manager = ManagerProcess::start(&world.config_file());
    let pipeline = world.pipeline(&gate.pipeline()).await;
    world.until_trace("it", "under way").await;
    manager.signal(Signal::SIGKILL);
    manager.ended().await;
    gate.open().await;
    assert_eq!(world.finished(pipeline).await, Status::Success);
    assert!(moto.object("alone", &object_of("main-protected")).await.is_some(), "{}", world.trace("it"));
    // Whoever comes next makes sure of the task's end.
    let next = ManagerProcess::start(&world.config_file());
    world.end().await;
    drop(next);
}
