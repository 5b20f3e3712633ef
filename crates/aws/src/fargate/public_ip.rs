//! Public addresses of tasks: ECS does not tell them, EC2 does. This is the only EC2 call, so it is written by hand
//! (EC2 Query, signed with SigV4): the SDK's EC2 crate costs ten minutes of every clean build.

use std::collections::HashMap;
use std::net::IpAddr;

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_xml::decode::{Document, ScopedDecoder, XmlDecodeError, try_data};

use crate::errors::{self, CallError, Refusal};
use crate::sdk::Keys;
use crate::signed_post::Service;

const HEADERS: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];

/// The EC2 client of one region.
pub(super) struct Ec2 {
    service: Service,
    keys: Keys,
}

impl Ec2 {
    pub fn new(region: &str, endpoint_url: Option<&str>, keys: SharedCredentialsProvider) -> Self {
        Self { service: Service::new("ec2", region, endpoint_url), keys: Keys::new(keys) }
    }

    /// The public addresses of those network interfaces that have one.
    pub async fn public_addresses(&self, interfaces: &[String]) -> Result<HashMap<String, IpAddr>, CallError> {
        let mut body = String::from("Action=DescribeNetworkInterfaces&Version=2016-11-15");
        for (index, interface) in interfaces.iter().enumerate() {
            body.push_str(&format!("&NetworkInterfaceId.{}={interface}", index + 1));
        }
        let (status, body) = self.service.post(&HEADERS, body, self.keys.get().await?).await?;
        read_answer(status, &body)
    }
}

/// The interfaces that are left when EC2 refuses some by name, for it then answers nothing of the others either: one task that
/// ends must not hide the addresses of all. None where it refuses for another reason.
pub(super) fn without_unknown(interfaces: &[String], refusal: &Refusal) -> Option<Vec<String>> {
    let words = || refusal.message.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let left: Vec<_> = interfaces.iter().filter(|id| !words().any(|word| word == *id)).cloned().collect();
    (refusal.code.starts_with("InvalidNetworkInterfaceI") && left.len() < interfaces.len()).then_some(left)
}

fn read_answer(status: u16, body: &str) -> Result<HashMap<String, IpAddr>, CallError> {
    if status != 200 {
        let (code, message) = read_error(body).unwrap_or_default();
        return Err(errors::of_answer(status, &code, &message));
    }
    read_addresses(body).map_err(|error| CallError::NoAnswer(format!("not understood: {error}")))
}

fn read_addresses(body: &str) -> Result<HashMap<String, IpAddr>, XmlDecodeError> {
    let mut document = Document::new(body);
    let mut root = document.root_element()?;
    let mut addresses = HashMap::new();
    while let Some(mut set) = root.next_tag() {
        if !set.start_el().matches("networkInterfaceSet") {
            continue;
        }
        while let Some(mut item) = set.next_tag() {
            if let (Some(id), Some(address)) = read_interface(&mut item)? {
                addresses.insert(id, address);
            }
        }
    }
    Ok(addresses)
}

fn read_interface(item: &mut ScopedDecoder<'_, '_>) -> Result<(Option<String>, Option<IpAddr>), XmlDecodeError> {
    let (mut id, mut address) = (None, None);
    while let Some(mut tag) = item.next_tag() {
        match tag.start_el().local() {
            "networkInterfaceId" => id = Some(try_data(&mut tag)?.into_owned()),
            // Only this one belongs to the interface; the same element stands at each of its private addresses.
            "association" => {
                while let Some(mut part) = tag.next_tag() {
                    if part.start_el().matches("publicIp") {
                        address = try_data(&mut part)?.parse().ok();
                    }
                }
            }
            _ => {}
        }
    }
    Ok((id, address))
}

/// `<Response><Errors><Error><Code>…</Code><Message>…</Message></Error></Errors></Response>`
fn read_error(body: &str) -> Option<(String, String)> {
    let mut document = Document::new(body);
    let mut root = document.root_element().ok()?;
    let mut errors = root.next_tag()?;
    let mut error = errors.next_tag()?;
    let (mut code, mut message) = (String::new(), String::new());
    while let Some(mut tag) = error.next_tag() {
        match tag.start_el().local() {
            "Code" => code = try_data(&mut tag).ok()?.into_owned(),
            "Message" => message = try_data(&mut tag).ok()?.into_owned(),
            _ => {}
        }
    }
    Some((code, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interfaces_own_public_address_is_read() {
        let body = r#"<?xml version="1.0" encoding="UTF-8"?>
            <DescribeNetworkInterfacesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
              <requestId>1</requestId>
              <networkInterfaceSet>
                <item>
                  <networkInterfaceId>eni-1</networkInterfaceId>
                  <privateIpAddressesSet><item><association><publicIp>192.0.2.9</publicIp></association></item></privateIpAddressesSet>
                  <association><ipOwnerId>amazon</ipOwnerId><publicIp>192.0.2.1</publicIp></association>
                </item>
                <item><networkInterfaceId>eni-2</networkInterfaceId></item>
              </networkInterfaceSet>
            </DescribeNetworkInterfacesResponse>"#;
        let addresses = read_answer(200, body).expect("an answer");
        assert_eq!(addresses, HashMap::from([("eni-1".to_owned(), "192.0.2.1".parse().expect("an address"))]));
    }

    #[test]
    fn interfaces_that_ec2_does_not_know_are_left_out() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let asked = ids(&["eni-1", "eni-12", "eni-3"]);
        for (code, message, left) in [
            (
                "InvalidNetworkInterfaceID.NotFound",
                "The networkInterface ID 'eni-1' does not exist",
                Some(ids(&["eni-12", "eni-3"])),
            ),
            (
                "InvalidNetworkInterfaceID.NotFound",
                "The networkInterface IDs 'eni-1, eni-3' do not exist",
                Some(ids(&["eni-12"])),
            ),
            ("InvalidNetworkInterfaceId.Malformed", "Invalid id: \"eni-3\"", Some(ids(&["eni-1", "eni-12"]))),
            ("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID 'eni-9' does not exist", None),
            ("UnauthorizedOperation", "You may not describe 'eni-1'", None),
        ] {
            let refusal = Refusal { code: code.into(), message: message.into() };
            assert_eq!(without_unknown(&asked, &refusal), left, "{message}");
        }
    }

    #[test]
    fn an_error_is_understood_and_so_is_no_xml() {
        let body = "<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>Request limit exceeded.</Message>\
                    </Error></Errors><RequestID>1</RequestID></Response>";
        assert!(matches!(read_answer(503, body), Err(CallError::Throttled(_))));
        let body =
            body.replace("RequestLimitExceeded", "InvalidNetworkInterfaceID.NotFound").replace("Request limit", "x");
        assert!(
            matches!(read_answer(400, &body), Err(CallError::Refused(Refusal { code, .. })) if code.ends_with("NotFound"))
        );
        assert!(matches!(read_answer(502, "Bad Gateway"), Err(CallError::NoAnswer(_))));
        assert!(matches!(read_answer(200, "what"), Err(CallError::NoAnswer(_))));
    }
}
