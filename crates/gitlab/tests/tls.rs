//! GitLab behind HTTPS with an authority of its own. The key in `certificates` is good for 127.0.0.1
//! with the authority beside it, for nothing else, until 2120.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use gitlab::{Client, ClientConfig, Info, JobAnswer, JobReply, JobRequest};
use job::ids::SystemId;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

const AUTHORITY: &str = include_str!("certificates/authority.pem");

/// Answers one connection with a job.
fn serve_one_job() -> (SocketAddr, JoinHandle<std::io::Result<()>>) {
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
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        let body = r#"{"id":7,"token":"glcbt-job"}"#;
        write!(reader.get_mut(), "HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n{body}", body.len())
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
