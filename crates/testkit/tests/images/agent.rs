use std::net::SocketAddr;
use std::time::Duration;

use ssh::client::{ConnectError, Connection, Target};
use ssh::keys::TaskKey;
use testkit::eventually;

use crate::build;
use crate::container::Container;

#[test]
#[ignore = "needs root, buildah and the static programs: run by `make test`"]
fn the_image_has_the_agent_and_nothing_else() {
    assert_eq!(build::agent().listing, ["-rwxr-xr-x 0/0 staffetta-agent"]);
    assert!(!build::agent().has(build::CANARY));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, buildah and the static programs: run by `make test`"]
async fn the_agent_starts_as_it_is_and_lets_in_the_key_of_its_task_only() {
    let key = TaskKey::random();
    let volume = tempfile::tempdir().expect("a folder");
    let address = free_address();
    let listen = address.to_string();
    let variables = [("SSH_PUBLIC_KEY", key.public_openssh()), ("STAFFETTA_LISTEN", listen)];
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let container = Container::start(build::agent(), volume.path(), &variables, &[]);
    eventually("the agent listens", || std::net::TcpStream::connect(address).is_ok()).await;

    let target = |key| Target { addr: address, user: "root".into(), key, pinned: None };
    let connection = Connection::open(&target(key), Duration::from_secs(30)).await.expect("a connection");
    assert!(connection.is_agent_itself());
    connection.close().await;
    let refused = Connection::open(&target(TaskKey::random()), Duration::from_secs(30)).await.err();
    assert!(matches!(refused, Some(ConnectError::KeyRefused { .. })), "{refused:?}");

    container.terminate();
    container.ended().await;
}

/// Somebody else may take it before it is used; nobody does on an address of our own.
pub fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}
