//! What GitLab's certificate is checked against, and the chain that it showed (0.6).

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use job::hand_over::ClientCertificate;
use job::secret::ExposeSecret;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::client::{ClientConfig, ClientError};

/// The TLS side of one client.
pub(crate) struct Tls {
    pub(crate) config: rustls::ClientConfig,
    pub(crate) chain: Arc<ShownChain>,
    /// The configured authority, as text.
    pub(crate) authority: Option<String>,
    /// What is shown to GitLab.
    pub(crate) certificate: Option<ClientCertificate>,
}

impl Tls {
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, ClientError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = usual_roots();
        let authority = authority(config);
        if let Some(pem) = &authority {
            let given: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect();
            let (_, unusable) = roots.add_parsable_certificates(given.iter().cloned());
            if given.is_empty() || unusable > 0 {
                tracing::warn!("the configured certificate authority cannot be used, or only in part");
            }
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| ClientError::Tls(error.to_string()))?;
        let chain = Arc::new(ShownChain { verifier, pem: Mutex::new(None) });
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ClientError::Tls(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(chain.clone());
        let certificate = certificate(config)?;
        let config = match &certificate {
            Some(shown) => {
                let (certificates, key) = identity(shown)?;
                let builder = builder.with_client_auth_cert(certificates, key);
                builder.map_err(|error| ClientError::Tls(format!("the client certificate: {error}")))?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self { config, chain, authority, certificate })
    }
}

/// The authorities that everybody trusts, and those of this machine.
pub fn usual_roots() -> RootCertStore {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn authority(config: &ClientConfig) -> Option<String> {
    if config.tls_ca_pem.is_some() {
        return config.tls_ca_pem.clone();
    }
    let path = config.tls_ca_file.as_ref()?;
    std::fs::read_to_string(path)
        .inspect_err(|error| {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "cannot read the certificate authority; it is left out");
            }
        })
        .ok()
}

/// The client's certificate and its key, as text.
fn certificate(config: &ClientConfig) -> Result<Option<ClientCertificate>, ClientError> {
    if config.tls_client.is_some() {
        return Ok(config.tls_client.clone());
    }
    let (Some(certificate), Some(key)) = (&config.tls_cert_file, &config.tls_key_file) else { return Ok(None) };
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path);
        text.map_err(|error| ClientError::File { path: path.into(), reason: error.to_string() })
    };
    Ok(Some(ClientCertificate { certificate: read(certificate)?, key: read(key)?.into() }))
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(shown: &ClientCertificate) -> Result<Identity, ClientError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(shown.certificate.as_bytes()).collect();
    let certificates = certificates.map_err(|error| ClientError::Tls(format!("the client certificate: {error}")))?;
    let key = PrivateKeyDer::from_pem_slice(shown.key.expose_secret().as_bytes());
    let key = key.map_err(|error| ClientError::Tls(format!("the key of the client certificate: {error}")))?;
    Ok((certificates, key))
}

/// Checks certificates as usual and remembers the last chain that passed: the job gets it to check
/// the same server by.
#[derive(Debug)]
pub(crate) struct ShownChain {
    verifier: Arc<WebPkiServerVerifier>,
    pem: Mutex<Option<String>>,
}

impl ShownChain {
    pub(crate) fn pem(&self) -> Option<String> {
        self.pem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for ShownChain {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let pem = std::iter::once(end_entity).chain(intermediates).map(|certificate| pem(certificate)).collect();
        *self.pem.lock().unwrap_or_else(PoisonError::into_inner) = Some(pem);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::Info;

    const AUTHORITY: &str = include_str!("../tests/certificates/authority.pem");
    const SERVER: &str = include_str!("../tests/certificates/server.pem");

    #[test]
    fn the_chain_that_was_shown_is_kept_if_it_is_good() {
        let mut config = ClientConfig::new("https://localhost", Info::new("fargate", "bash"));
        let certificate = CertificateDer::from_pem_slice(SERVER.as_bytes()).expect("a certificate");
        let name = ServerName::try_from("localhost").expect("a name");
        let verify = |tls: &Tls| tls.chain.verify_server_cert(&certificate, &[], &name, &[], UnixTime::now());
        let stranger = Tls::new(&config).expect("TLS");
        verify(&stranger).expect_err("an unknown authority");
        assert_eq!(stranger.chain.pem(), None);
        config.tls_ca_pem = Some(AUTHORITY.to_owned());
        let known = Tls::new(&config).expect("TLS");
        verify(&known).expect("a known authority");
        assert_eq!(known.chain.pem().as_deref(), Some(SERVER));
    }
}
