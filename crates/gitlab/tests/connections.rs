//! How calls reach GitLab: by new and old connections, with a certificate, through proxies.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gitlab::{Client, ClientConfig, Info, JobAnswer, JobRequest, Proxies};
use job::hand_over::ClientCertificate;
use job::ids::SystemId;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use support::{Server, status, with_headers};

const AUTHORITY: &str = include_str!("certificates/authority.pem");
const CERTIFICATE: &str = include_str!("certificates/server.pem");
const KEY: &str = include_str!("certificates/server.key");

fn config(url: &str) -> ClientConfig {
    ClientConfig::new(url, Info::new("fargate", "bash"))
}

async fn ask(client: &Client) -> JobAnswer {
    let (token, system_id) = ("glrt-runner".into(), SystemId::new("s_0123456789ab"));
    client.request_job(&JobRequest { token: &token, system_id: &system_id, last_update: None }).await.answer
}

/// Reads one request; the body is known by its length.
fn read_request(reader: &mut impl BufRead) -> std::io::Result<String> {
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
    }
    reader.read_exact(&mut vec![0; length])?;
    Ok(first)
}

/// Says 204 to everything and keeps its connections open; tells the first line of each request with the number of its
/// connection.
fn keep_alive_server() -> (SocketAddr, Receiver<(usize, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for (number, connection) in listener.incoming().enumerate() {
            let (Ok(mut connection), tell) = (connection, tell.clone()) else { return };
            std::thread::spawn(move || {
                let mut reader = BufReader::new(connection.try_clone()?);
                loop {
                    let first = read_request(&mut reader)?;
                    if first.is_empty() || tell.send((number, first)).is_err() {
                        return Ok::<_, std::io::Error>(());
                    }
                    connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
                }
            });
        }
    });
    (address, told)
}

#[tokio::test]
async fn a_connection_is_used_again_until_its_age_is_over() {
    let (address, told) = keep_alive_server();
    let url = format!("http://{address}");
    for (max_age, connections) in [(Duration::from_secs(900), 1), (Duration::ZERO, 1), (Duration::from_nanos(1), 3)] {
        let client = Client::new(ClientConfig { connection_max_age: max_age, ..config(&url) }).expect("a client");
        for _ in 0..3 {
            assert!(matches!(ask(&client).await, JobAnswer::None));
        }
        let mut seen: Vec<usize> = told.try_iter().map(|(number, _)| number).collect();
        assert_eq!(seen.len(), 3);
        seen.dedup();
        assert_eq!(seen.len(), connections, "{max_age:?}");
    }
}

#[tokio::test]
async fn a_certificate_authority_that_is_replaced_is_read_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, "not yet").expect("a file");
    let Mutual { address, .. } = mutual_tls(2);
    let mut config = config(&format!("https://{address}"));
    config.tls_client = Some(ClientCertificate { certificate: CERTIFICATE.into(), key: KEY.into() });
    config.tls_ca_file = Some(file.clone());
    let client = Client::new(config).expect("a client");
    assert!(matches!(ask(&client).await, JobAnswer::Unavailable { .. }), "an unknown authority");
    std::fs::write(&file, AUTHORITY).expect("a file");
    // The clock of files may be too coarse to tell the two writes apart.
    let later = std::time::SystemTime::now() + Duration::from_secs(60);
    std::fs::File::options().write(true).open(&file).and_then(|file| file.set_modified(later)).expect("a time");
    let answer = ask(&client).await;
    assert!(matches!(answer, JobAnswer::None), "{answer:?}");
}

struct Mutual {
    address: SocketAddr,
    /// The certificate that the client showed, for each connection that came so far.
    shown: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// Serves so many connections of clients that show a certificate of the authority.
fn mutual_tls(connections: usize) -> Mutual {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(AUTHORITY.as_bytes()).expect("a certificate")).expect("an authority");
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_client_cert_verifier(verifier.expect("a verifier"))
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("a certificate")],
            PrivateKeyDer::from_pem_slice(KEY.as_bytes()).expect("a key"),
        )
        .expect("a certificate and its key");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let shown = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let seen = shown.clone();
    std::thread::spawn(move || {
        for connection in listener.incoming().take(connections).flatten() {
            let served = serve_one(connection, config.clone());
            seen.lock().expect("no panic").extend(served);
        }
    });
    Mutual { address, shown }
}

fn serve_one(connection: TcpStream, config: Arc<rustls::ServerConfig>) -> Option<Vec<u8>> {
    let tls = rustls::ServerConnection::new(config).ok()?;
    let mut reader = BufReader::new(rustls::StreamOwned::new(tls, connection));
    read_request(&mut reader).ok()?;
    let certificate = reader.get_ref().conn.peer_certificates()?.first()?.to_vec();
    let stream = reader.get_mut();
    stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").ok()?;
    stream.conn.send_close_notify();
    stream.flush().ok()?;
    Some(certificate)
}

#[tokio::test]
async fn the_client_certificate_is_shown_from_files_and_from_text() {
    let directory = tempfile::tempdir().expect("a directory");
    let (certificate, key) = (directory.path().join("client.pem"), directory.path().join("client.key"));
    std::fs::write(&certificate, CERTIFICATE).expect("a file");
    std::fs::write(&key, KEY).expect("a file");
    let server = mutual_tls(3);
    let trusting =
        ClientConfig { tls_ca_pem: Some(AUTHORITY.into()), ..config(&format!("https://{}", server.address)) };

    let without = Client::new(trusting.clone()).expect("a client");
    assert!(matches!(ask(&without).await, JobAnswer::Unavailable { .. }), "the server wants a certificate");
    assert!(without.certificate().is_none());

    let of_files = ClientConfig { tls_cert_file: Some(certificate), tls_key_file: Some(key), ..trusting.clone() };
    let of_files = Client::new(of_files).expect("a client");
    assert!(matches!(ask(&of_files).await, JobAnswer::None));

    // As it travels to the agent.
    let of_text = ClientConfig { tls_client: of_files.certificate(), ..trusting };
    assert!(matches!(ask(&Client::new(of_text).expect("a client")).await, JobAnswer::None));

    let expected = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("a certificate").to_vec();
    assert_eq!(*server.shown.lock().expect("no panic"), [expected.clone(), expected]);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_said() {
    let unusable = ClientCertificate { certificate: CERTIFICATE.into(), key: "no key".into() };
    let config = ClientConfig { tls_client: Some(unusable), ..config("https://gitlab.example.com") };
    let error = Client::new(config).err().expect("no client").to_string();
    assert!(error.contains("the key of the client certificate"), "{error}");
}

fn proxies(pairs: &[(&str, String)]) -> Proxies {
    Proxies::of(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone()))
}

#[tokio::test]
async fn calls_go_through_the_proxy_but_for_what_is_excepted() {
    let (proxy, told) = keep_alive_server();
    let of = |url: &str, except: &str| {
        let proxies = proxies(&[
            ("http_proxy", proxy.to_string()),
            ("HTTPS_PROXY", format!("http://{proxy}")),
            ("NO_PROXY", except.into()),
        ]);
        Client::new(ClientConfig { proxies, ..config(url) }).expect("a client")
    };
    assert!(matches!(ask(&of("http://gitlab.invalid", "")).await, JobAnswer::None));
    assert_eq!(told.recv().expect("a request").1, "POST http://gitlab.invalid/api/v4/jobs/request HTTP/1.1\r\n");
    ask(&of("https://gitlab.invalid", "")).await;
    assert_eq!(told.recv().expect("a request").1, "CONNECT gitlab.invalid:443 HTTP/1.1\r\n");

    for excepted in ["gitlab.invalid", ".invalid", "*", "other.example.com, gitlab.invalid"] {
        let answer = ask(&of("http://gitlab.invalid", excepted)).await;
        assert!(matches!(answer, JobAnswer::Unavailable { .. }), "NO_PROXY={excepted}: there is no such host");
    }
    // This machine is never behind a proxy.
    let server = Server::start(|_| status(204)).await;
    assert!(matches!(ask(&of(&server.url(), "")).await, JobAnswer::None));
    assert_eq!(server.seen().len(), 1);
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn what_is_not_a_proxy_is_left_out() {
    let server = Server::start(|_| status(204)).await;
    let proxies = proxies(&[("HTTP_PROXY", "::not a proxy::".into())]);
    let client = Client::new(ClientConfig { proxies, ..config(&server.url()) }).expect("a client");
    assert!(matches!(ask(&client).await, JobAnswer::None));
}

#[tokio::test]
async fn every_call_is_told_to_who_observes() {
    let mut answers = [503, 204, 204].into_iter();
    let server = Server::start(move |_| status(answers.next().expect("an answer"))).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = told.clone();
    let client = server.client().observed(move |called| {
        let call = (called.method.to_string(), called.path.to_owned(), called.status, called.attempts);
        seen.lock().expect("no panic").push(call);
    });
    ask(&client).await;
    ask(&client.clone()).await;
    drop(server);
    let call = |attempts| ("POST".to_owned(), "jobs/request".to_owned(), Some(204), attempts);
    assert_eq!(*told.lock().expect("no panic"), [call(2), call(1)]);
}

#[tokio::test]
async fn the_way_to_a_store_follows_no_redirect() {
    let other = Server::start(|_| status(200)).await;
    let target = other.url();
    let store = Server::start(move |_| with_headers(307, &[("Location", &target)])).await;
    let http = gitlab::elsewhere(None, &Proxies::default()).expect("a client");
    let answer = http.put(store.url()).body("a cache").send().await.expect("an answer");
    assert_eq!(answer.status(), 307);
    assert!(other.seen().is_empty());
}
