//! The proxies on the way to AWS: `HTTPS_PROXY` and `NO_PROXY` (for an endpoint of plain HTTP, `HTTP_PROXY`), in capitals
//! or small.

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider::Rustls;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode::Ring;
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

/// Reached directly whatever the variables say: this machine, and the link, where AWS has its metadata.
const NEVER_PROXIED: &str = "localhost,127.0.0.0/8,::1,169.254.0.0/16";

/// For the clients of the SDK.
pub(crate) fn http_client(endpoint_url: Option<&str>) -> SharedHttpClient {
    let proxy = of_environment(endpoint_url);
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder().proxy_config(proxy.clone());
        builder.set_connector_settings(settings.cloned());
        builder.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        builder.tls_provider(Rustls(Ring)).build()
    })
}

/// For calls that are made without the SDK.
pub(crate) fn connector(endpoint_url: Option<&str>) -> Connector {
    Connector::builder().proxy_config(of_environment(endpoint_url)).tls_provider(Rustls(Ring)).build()
}

fn of_environment(endpoint_url: Option<&str>) -> ProxyConfig {
    let variable = |name: &str| {
        let filled = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        filled(name).or_else(|| filled(&name.to_ascii_lowercase()))
    };
    let is_plain = endpoint_url.is_some_and(|url| url.starts_with("http://"));
    let name = if is_plain { "HTTP_PROXY" } else { "HTTPS_PROXY" };
    let Some(address) = variable(name) else { return ProxyConfig::disabled() };
    let address = if address.contains("://") { address } else { format!("http://{address}") };
    match if is_plain { ProxyConfig::http(address) } else { ProxyConfig::https(address) } {
        Ok(proxy) => proxy.no_proxy(format!("{},{NEVER_PROXIED}", variable("NO_PROXY").unwrap_or_default())),
        Err(_) => {
            // The value may hold a password.
            tracing::warn!("{name} is not the address of a proxy; AWS is called without one");
            ProxyConfig::disabled()
        }
    }
}
