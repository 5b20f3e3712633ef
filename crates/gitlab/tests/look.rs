//! Each part of the way to GitLab fails in turn, and is told by its name.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::SystemTime;

use gitlab::{Client, ClientConfig, Info, Proxies, Unreached};

/// Answers every connection with these bytes, after it was asked.
fn server(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer);
        }
    });
    address.to_string()
}

async fn look(url: String) -> Result<gitlab::Seen, Unreached> {
    let config = ClientConfig { proxies: Proxies::default(), ..ClientConfig::new(url, Info::new("fargate", "bash")) };
    Client::new(config).expect("a client").look().await
}

#[tokio::test]
async fn gitlab_tells_its_clock_to_whoever_has_no_token() {
    let answer = b"HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\
        date: Sun, 22 Nov 2026 03:00:00 GMT\r\n\r\n{}";
    let seen = look(format!("http://{}", server(answer))).await.expect("a GitLab");
    let date = seen.date.expect("a date").duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    assert_eq!(date.as_secs(), 1_795_316_400);
}

#[tokio::test]
async fn a_name_that_is_not_found_is_told() {
    assert!(matches!(look("https://gitlab.invalid".into()).await, Err(Unreached::Name(_))));
}

#[tokio::test]
async fn a_port_that_is_closed_is_told() {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address");
    assert!(matches!(look(format!("https://{closed}")).await, Err(Unreached::Connection(_))));
}

#[tokio::test]
async fn a_server_without_tls_is_told() {
    let told = look(format!("https://{}", server(b"HTTP/1.1 400 Bad Request\r\n\r\n"))).await;
    assert!(matches!(told, Err(Unreached::Tls(_))), "{told:?}");
}

#[tokio::test]
async fn what_is_no_http_is_told() {
    let told = look(format!("http://{}", server(b"SSH-2.0-OpenSSH_9.9\r\n"))).await;
    assert!(matches!(told, Err(Unreached::Answer(_))), "{told:?}");
}

#[tokio::test]
async fn pages_and_redirects_of_something_else_are_told() {
    let page = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>";
    let redirect = b"HTTP/1.1 302 Found\r\nlocation: https://login.example.com/\r\ncontent-length: 0\r\n\r\n";
    let nothing = b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    for (answer, words) in [(&page[..], "HTML"), (redirect, "login.example.com"), (nothing, "404")] {
        match look(format!("http://{}", server(answer))).await {
            Err(Unreached::Elsewhere(told)) => assert!(told.contains(words), "{told}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_gitlab_that_is_being_upgraded_is_told() {
    let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    assert!(matches!(look(format!("http://{}", server(answer))).await, Err(Unreached::Ill { status: 503, .. })));
}
