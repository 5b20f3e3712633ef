//! TLS in front of a server that speaks plain HTTP, with a certificate of an authority that no machine knows.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// `authority.pem`, and `server.pem` with `server.key` for 127.0.0.1.
pub const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../gitlab/tests/certificates");

/// Whom a proxy lets in.
#[derive(PartialEq, Eq)]
pub enum LetsIn {
    Everybody,
    /// Those who show a certificate of the authority.
    ItsOwn,
}

/// Carries what comes to `listener` to `target`.
pub fn serve(listener: TcpListener, target: SocketAddr, lets_in: LetsIn) {
    let read = |name: &str| std::fs::read(format!("{CERTIFICATES}/{name}")).expect("a file");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("protocol versions");
    let builder = match lets_in {
        LetsIn::Everybody => builder.with_no_client_auth(),
        LetsIn::ItsOwn => {
            let mut roots = RootCertStore::empty();
            let authority = CertificateDer::from_pem_slice(&read("authority.pem")).expect("a certificate");
            roots.add(authority).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        }
    };
    let certificate = CertificateDer::from_pem_slice(&read("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(&read("server.key")).expect("a key");
    let config = builder.with_single_cert(vec![certificate], key).expect("a certificate and its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let (mut client, mut server) = (acceptor.accept(client).await?, TcpStream::connect(target).await?);
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
}

/// A port of its own.
pub async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}
