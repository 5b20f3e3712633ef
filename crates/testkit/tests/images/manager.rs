use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use embedded::gitlab::Status;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use testkit::{Setup, World};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::build::{self, CANARY, Image};
use crate::container::Container;

/// `USER` of the image.
const USER: u32 = 65532;
const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../gitlab/tests/certificates");

fn image() -> &'static Image {
    build::manager()
}

/// A new volume as the image asks for it: it belongs to its user.
fn volume() -> TempDir {
    let volume = tempfile::tempdir().expect("a folder");
    chown(volume.path(), Some(USER), Some(USER)).expect("an owner");
    volume
}

/// Puts a file for the manager into its volume.
fn put(volume: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = volume.path().join(name);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    fs::write(&path, content).expect("a file");
    chown(&path, Some(USER), Some(USER)).expect("an owner");
    path
}

/// Both servers, and the token of a runner for dev.
async fn world() -> (World, String) {
    let world = World::without_manager(Setup { task_definition: "staffetta-sshd", ..Setup::default() }).await;
    let token = world.gitlab.register_runner("dev in a container", &["container"]);
    (world, token)
}

/// What ECS would set, and where the servers of the test are.
fn surroundings(world: &World) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_ACCESS_KEY_ID", "made-up".into()),
        ("AWS_SECRET_ACCESS_KEY", "made-up".into()),
        ("AWS_ENDPOINT_URL", world.fargate.url().into()),
        ("SSH_PORT", world.fargate.ssh_port().to_string()),
    ]
}

/// The variables of the manual.
fn variables(world: &World, gitlab: &str) -> Vec<(&'static str, String)> {
    let mut variables = surroundings(world);
    variables.extend([
        ("GITLAB_URL", gitlab.to_owned()),
        ("RUNNER_TAGS", "container".into()),
        ("SUBNET", "subnet-1,subnet-2".into()),
        ("SECURITY_GROUP_ID", "sg-1".into()),
        ("CLUSTER", "dev".into()),
        // An image with sshd only: the manager sends the agent that its own image has.
        ("TASK_DEFINITION", "staffetta-sshd".into()),
    ]);
    variables
}

fn start(volume: &TempDir, variables: &[(&'static str, String)]) -> Container {
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Container::start(image(), volume.path(), &variables, &[])
}

async fn passes_a_job(world: &mut World) {
    let pipeline = world.pipeline("it: { tags: [container], script: [echo from a task] }\n").await;
    assert_eq!(world.finished(pipeline).await, Status::Success, "{}", world.trace("it"));
}

/// SIGTERM reaches the first process, and it ends in order.
async fn stop(container: Container) -> String {
    container.terminate();
    let (status, said) = container.ended().await;
    assert_eq!(status.code(), Some(0), "{said}");
    said
}

#[test]
#[ignore = "needs root, buildah and the static programs: run by `make test`"]
fn the_image_has_two_programs_the_authorities_and_a_volume_and_no_root() {
    let image = image();
    let agent = format!("-rwxr-xr-x 0/0 usr/local/bin/staffetta-agent-{}", std::env::consts::ARCH);
    let mut files = image.files();
    files.sort_unstable();
    let authorities = "-rw-r--r-- 0/0 etc/ssl/certs/ca-certificates.crt";
    assert_eq!(files, [authorities, "-rwxr-xr-x 0/0 usr/local/bin/staffetta", &agent]);
    assert!(image.listing.contains(&format!("drwxr-xr-x {USER}/{USER} etc/gitlab-runner/")), "{:?}", image.listing);
    assert_eq!(image.config["User"], format!("{USER}:{USER}"));
    assert_eq!(image.config["Volumes"], serde_json::json!({"/etc/gitlab-runner": {}}));
    assert!(image.config["ExposedPorts"].is_null());
    for variable in image.words("Env") {
        assert!(["PATH=", "CONFIG_FILE="].iter().any(|known| variable.starts_with(known)), "{variable}");
    }
    assert!(!image.has(CANARY), "what was secret where the image was built is in it");
}

#[tokio::test]
#[ignore = "needs root, buildah and the static programs: run by `make test`"]
async fn other_commands_run_in_the_image_too() {
    let (status, said) = Container::start(image(), volume().path(), &[], &["--version"]).ended().await;
    assert_eq!((status.code(), said), (Some(0), format!("staffetta {}\n", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
#[ignore = "needs root, buildah and the static programs: run by `make test`"]
async fn without_variables_all_that_is_missing_is_told_at_once() {
    let (status, said) = Container::start(image(), volume().path(), &[], &[]).ended().await;
    assert_eq!(status.code(), Some(2), "{said}");
    for name in ["GITLAB_URL", "RUNNER_TAGS", "SUBNET", "SECURITY_GROUP_ID", "AWS_REGION", "RUNNER_TOKEN"] {
        assert!(said.contains(&format!("{name} is not set: ")), "{name} in {said}");
    }
}

/// The kernel spares the first process of a container every signal that it has no handler for.
#[tokio::test]
#[ignore = "needs root, buildah and the static programs: run by `make test`"]
async fn a_signal_at_the_very_start_is_not_lost() {
    let volume = volume();
    let nobody = "http://127.0.0.1:1";
    let config = format!(
        "concurrent = 1\n[[runners]]\nurl = \"{nobody}\"\ntoken = \"glrt-none\"\nexecutor = \"fargate\"\n\
         [runners.fargate]\ncluster = \"dev\"\nsubnets = [\"subnet-1\"]\nsecurity_groups = [\"sg-1\"]\ntask_definition = \"x\"\n"
    );
    put(&volume, "config.toml", config);
    let mut container = start(&volume, &[("AWS_REGION", "us-east-1".into())]);
    container.until_said(" starts").await;
    stop(container).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, buildah and the static programs: run by `make test`"]
async fn variables_are_enough_for_a_job_and_the_token_is_in_no_file() {
    let (mut world, token) = world().await;
    let volume = volume();
    let mut variables = variables(&world, world.gitlab.url());
    // As a secret that was stored with `echo`.
    variables.push(("RUNNER_TOKEN", format!("{token}\n")));
    let container = start(&volume, &variables);
    passes_a_job(&mut world).await;

    let config = volume.path().join("config.toml");
    let found = fs::metadata(&config).expect("a configuration");
    assert_eq!((found.mode() & 0o777, found.uid()), (0o600, USER));
    assert!(fs::read_to_string(&config).expect("text").contains("token = \"$RUNNER_TOKEN\""));
    // All else is read-only, and was built before there was a token.
    assert!(!found_in(&token, volume.path()), "the token is in a file");
    let first = container.first_process().expect("it runs");
    let command_line = fs::read_to_string(format!("/proc/{first}/cmdline")).expect("a command line");
    assert!(command_line.contains("run\0") && !command_line.contains(&token), "{command_line:?}");

    container.must_bury_an_orphan().await;
    let said = stop(container).await;
    assert!(!said.contains(&token), "{said}");
    world.end().await;
}

fn found_in(text: &str, folder: &Path) -> bool {
    Command::new("grep").args(["-rqF", "-e", text]).arg(folder).status().expect("grep").success()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, buildah and the static programs: run by `make test`"]
async fn a_mounted_configuration_is_used_as_it_is_and_the_token_may_be_in_a_file() {
    let (mut world, token) = world().await;
    let volume = volume();
    let config = format!(
        "concurrent = 1\n[[runners]]\nurl = \"{}\"\ntoken = \"$RUNNER_TOKEN\"\nexecutor = \"fargate\"\n[runners.fargate]\n\
         cluster = \"dev\"\nsubnets = [\"subnet-1\"]\nsecurity_groups = [\"sg-1\"]\ntask_definition = \"staffetta-agent\"\n\
         ssh_port = {}\n",
        world.gitlab.url(),
        world.fargate.ssh_port(),
    );
    let file = put(&volume, "config.toml", &config);
    put(&volume, "secrets/token", token + "\n");
    let mut variables = surroundings(&world);
    variables.push(("CLUSTER", "another".into()));
    variables.push(("RUNNER_TOKEN_FILE", "/etc/gitlab-runner/secrets/token".into()));
    let container = start(&volume, &variables);
    passes_a_job(&mut world).await;
    assert_eq!(fs::read_to_string(&file).expect("text"), config);
    let said = stop(container).await;
    assert!(said.contains("without effect: CLUSTER, SSH_PORT"), "{said}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, buildah and the static programs: run by `make test`"]
async fn a_private_authority_is_trusted_by_the_manager_and_by_the_job() {
    let (mut world, token) = world().await;
    let port = with_tls(world.gitlab.url()).await.port();
    // By name: a static program resolves names too.
    let mut variables = variables(&world, &format!("https://localhost:{port}"));
    variables.push(("RUNNER_TOKEN", token));

    let volume = volume();
    let mut stranger = start(&volume, &variables);
    stranger.until_said("UnknownIssuer").await;
    stop(stranger).await;

    put(&volume, "certs/ca.crt", fs::read(format!("{CERTIFICATES}/authority.pem")).expect("a certificate"));
    let container = start(&volume, &variables);
    passes_a_job(&mut world).await;
    stop(container).await;
    world.end().await;
}

/// The same server by TLS, with the certificates of the tests.
async fn with_tls(url: &str) -> SocketAddr {
    let server: SocketAddr = url.strip_prefix("http://").expect("plain HTTP").parse().expect("an address");
    let read = |name: &str| fs::read(format!("{CERTIFICATES}/{name}")).expect("a file of the tests");
    let certificate = CertificateDer::from_pem_slice(&read("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(&read("server.key")).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust us hangs up.
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = TcpStream::connect(server).await.expect("the embedded GitLab");
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}
