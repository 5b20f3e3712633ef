//! The proxies that programs are told of by variables (0.5): `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, in capitals or small.

use std::fmt;

use reqwest::{ClientBuilder, NoProxy, Proxy};

/// Reached directly whatever the variables say, as in GitLab's runner: this machine. And what no proxy can reach: the
/// link, where AWS has its metadata.
const NEVER_PROXIED: &str = "localhost,127.0.0.0/8,::1,169.254.0.0/16";

/// Through which proxies calls go. The default is none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    http: String,
    https: String,
    except: String,
}

impl Proxies {
    /// Those of this process.
    pub fn of_environment() -> Self {
        Self::of(|name| std::env::var(name).ok())
    }

    /// `variable` gives the value of a name.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let value = |name: &str| {
            let filled = |name: &str| variable(name).filter(|value| !value.is_empty());
            filled(name).or_else(|| filled(&name.to_ascii_lowercase())).unwrap_or_default()
        };
        Self { http: value("HTTP_PROXY"), https: value("HTTPS_PROXY"), except: value("NO_PROXY") }
    }

    /// A client that follows them, and no other setting of the machine. What is not the address of a proxy is left out.
    pub fn apply(&self, builder: ClientBuilder) -> ClientBuilder {
        let except = NoProxy::from_string(&format!("{},{NEVER_PROXIED}", self.except));
        let mut builder = builder.no_proxy();
        let given = [("HTTP_PROXY", Proxy::http(&self.http)), ("HTTPS_PROXY", Proxy::https(&self.https))];
        for ((name, proxy), value) in given.into_iter().zip([&self.http, &self.https]) {
            match proxy {
                Ok(proxy) if !value.is_empty() => builder = builder.proxy(proxy.no_proxy(except.clone())),
                // The value may hold a password.
                Err(_) if !value.is_empty() => tracing::warn!("{name} is not the address of a proxy; it is not used"),
                _ => {}
            }
        }
        builder
    }
}

/// Addresses of proxies hold passwords.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |value: &str| if value.is_empty() { "none" } else { "set" };
        write!(f, "Proxies(http: {}, https: {}, except: {:?})", set(&self.http), set(&self.https), self.except)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capitals_win_over_small_letters_and_empty_is_none() {
        let proxies = Proxies::of(|name| match name {
            "HTTP_PROXY" => Some("big".into()),
            "http_proxy" => Some("small".into()),
            "HTTPS_PROXY" => Some(String::new()),
            "https_proxy" => Some("user:password@small:3128".into()),
            _ => None,
        });
        let expected = Proxies { http: "big".into(), https: "user:password@small:3128".into(), except: String::new() };
        assert!(proxies == expected);
        assert!(!format!("{proxies:?}").contains("password"));
    }
}
