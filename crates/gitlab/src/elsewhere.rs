//! The way to other servers than GitLab: object stores with caches.

use std::time::Duration;

use crate::client::{ClientConfig, ClientError, describe};
use crate::info::Info;
use crate::proxies::Proxies;
use crate::tls::Tls;

/// A client that trusts the usual authorities and `authority` (PEM), and shows no certificate of its own. It follows no
/// redirect: a signed address is good for its own host only, and what a job saves goes nowhere else. Each call brings its
/// own time-out.
pub fn elsewhere(authority: Option<String>, proxies: &Proxies) -> Result<reqwest::Client, ClientError> {
    let trusting = ClientConfig { tls_ca_pem: authority, ..ClientConfig::new("", Info::new("", "")) };
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(Tls::new(&trusting)?.config)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(30))
        .tcp_keepalive(Duration::from_secs(30))
        .pool_idle_timeout(Duration::from_secs(90));
    proxies.apply(builder).build().map_err(|error| ClientError::Tls(describe(error)))
}
