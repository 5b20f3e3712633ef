//! GitLab behind HTTPS with an authority of its own. The key in `certificates` is good for 127.0.0.1
//! with the authority beside it, for nothing else, until 2120.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use gitlab::{ArtifactUpload, Client, ClientConfig, Info, JobAnswer, JobReply, JobRequest};
use job::ids::{JobId, SystemId};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use support::{DEADLINE, Server, status};

const AUTHORITY: &str = include_str!("certificates/authority.pem");

fn serve_one_job() -> (SocketAddr, JoinHandle<std::io::Result<()>>) {
    let body = r#"{"id":7,"token":"glcbt-job"}"#;
    serve_one("\r\n", format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

/// Answers one connection after the request's line `last`.
fn serve_one(last: &'static str, answer: String) -> (SocketAddr, JoinHandle<std::io::Result<()>>) {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("certificates/server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("certificates/server.key")).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let server = std::thread::spawn(move || {
        let (connection, _) = listener.accept()?;
        let tls = rustls::ServerConnection::new(Arc::new(config)).map_err(std::io::Error::other)?;
        let mut reader = BufReader::new(rustls::StreamOwned::new(tls, connection));
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 && line != last {
            line.clear();
        }
        reader.get_mut().write_all(answer.as_bytes())
    });
    (address, server)
}

async fn ask(config: ClientConfig) -> JobReply {
    let (token, system_id) = ("glrt-runner".into(), SystemId::new("s_0123456789ab"));
    let client = Client::new(config).expect("a client");
    client.request_job(&JobRequest { token: &token, system_id: &system_id, last_update: None }).await
}

#[tokio::test]
async fn the_configured_authority_is_trusted_and_reaches_the_job() {
    let (address, server) = serve_one_job();
    let mut config = ClientConfig::new(format!("https://{address}"), Info::new("fargate", "bash"));
    config.tls_ca_file = Some(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/authority.pem").into());
    let reply = ask(config).await;
    let JobAnswer::Job(job) = reply.answer else { panic!("no job: {reply:?}") };
    assert_eq!(job.tls_chain_pem.as_deref(), Some(AUTHORITY));
    server.join().expect("no panic").expect("served");
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let (address, server) = serve_one_job();
    let reply = ask(ClientConfig::new(format!("https://{address}"), Info::new("fargate", "bash"))).await;
    let JobAnswer::Unavailable { reason, .. } = reply.answer else { panic!("trusted: {reply:?}") };
    assert!(reason.contains("certificate"), "{reason}");
    server.join().expect("no panic").expect_err("the client refuses");
}

#[tokio::test]
async fn an_upload_does_not_move_out_of_tls() {
    let other = Server::start(|_| status(201)).await;
    let moved = format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", other.url());
    // The end of a body in chunks.
    let (address, server) = serve_one("0\r\n", moved);
    let config = ClientConfig {
        tls_ca_pem: Some(AUTHORITY.into()),
        ..ClientConfig::new(format!("https://{address}"), Info::new("fargate", "bash"))
    };
    let content = || {
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        for part in [b"zip".to_vec(), Vec::new()] {
            sender.try_send(Ok(part)).expect("there is room");
        }
        receiver
    };
    let upload = ArtifactUpload {
        name: "default.zip",
        artifact_type: "archive",
        format: "zip",
        expire_in: "",
        content: &content,
        timeout: DEADLINE,
        header_timeout: DEADLINE,
        failed_try: &|reason| panic!("tried again after: {reason}"),
    };
    let client = Client::new(config).expect("a client");
    let error = client.upload_artifact(JobId(7), &"glcbt-job".into(), &upload).await.expect_err("refused").to_string();
    assert!(error.contains("from https to http"), "{error}");
    assert!(other.seen().is_empty(), "the token stays");
    server.join().expect("no panic").expect("served");
}
