//! `listen_address`: where the metrics are served (protocol 10.4).

use super::section::Section;

/// GitLab's port for them.
const PORT: u16 = 9252;

/// `HOST:PORT`, or what is wrong. Without a port it is 9252; without a host, every address of the machine.
pub fn listen_address(text: &str) -> Result<String, String> {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an IPv6 address stand within brackets.
        Some((host, port)) if !port.contains(']') => (host, port.parse::<u16>().map_err(|_| port)),
        _ => (text, Ok(PORT)),
    };
    let is_ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).is_some();
    match port {
        Err(port) => Err(format!("has a port that is no number: {port:?}")),
        Ok(_) if host.contains([':', '[', ']', '/']) && !is_ipv6 => {
            Err("must be HOST:PORT, such as \"localhost:9252\", \":9252\" or \"[::1]:9252\"".to_owned())
        }
        Ok(port) => Ok(format!("{host}:{port}")),
    }
}

pub fn listen_address_in(section: &mut Section) -> Option<String> {
    let found = section.filled_text("listen_address")?;
    match listen_address(&found.value) {
        Ok(address) => Some(address),
        Err(message) => {
            section.wrong("listen_address", &message);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_gitlabs_unless_it_is_named() {
        for (text, expected) in [
            (":9100", Some(":9100")),
            ("localhost", Some("localhost:9252")),
            ("127.0.0.1:0", Some("127.0.0.1:0")),
            ("[::1]", Some("[::1]:9252")),
            ("[::1]:80", Some("[::1]:80")),
            ("::1", None),
            ("localhost:http", None),
            ("localhost:99999", None),
            ("http://localhost:9252", None),
        ] {
            assert_eq!(listen_address(text).ok().as_deref(), expected, "{text}");
        }
    }
}
