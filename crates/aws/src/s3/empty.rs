//! Empties a bucket, which CloudFormation does not do: it deletes none that has objects.

use aws_smithy_types::base64;

use crate::errors::{self, CallError};
use crate::session::Session;
use crate::signed_post::Service;
use crate::xml::Element;

/// Deletes all objects of a bucket; one that is not there has none. `told` gets how many are gone so far. Needs
/// `s3:ListBucket` and `s3:DeleteObject`.
pub async fn empty(session: &Session, bucket: &str, told: &mut dyn FnMut(u64)) -> Result<(), CallError> {
    let mut deleted = 0;
    loop {
        let page = match call(session, bucket, "GET", "?list-type=2", String::new()).await {
            Err(CallError::Refused(refusal)) if refusal.code == "NoSuchBucket" => return Ok(()),
            page => page?,
        };
        // S3 has no list around them.
        let objects = page.children.iter().filter(|child| child.name == "Contents");
        let keys: Vec<_> = objects.map(|object| object.text("Key")).collect();
        if keys.is_empty() {
            return Ok(());
        }
        call(session, bucket, "POST", "?delete", question(&keys)).await?;
        deleted += keys.len() as u64;
        told(deleted);
    }
}

/// Tells errors only.
fn question(keys: &[&str]) -> String {
    let mut body = String::from("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>");
    for key in keys {
        body.push_str("<Object><Key>");
        for character in key.chars() {
            match character {
                '&' => body.push_str("&amp;"),
                '<' => body.push_str("&lt;"),
                '>' => body.push_str("&gt;"),
                // A line end in XML is always read as \n.
                '\r' => body.push_str("&#13;"),
                other => body.push(other),
            }
        }
        body.push_str("</Key></Object>");
    }
    body.push_str("</Delete>");
    body
}

/// Repeated when S3 asks to slow down: what is gone already is no error to it.
async fn call(
    session: &Session,
    bucket: &str,
    method: &'static str,
    query: &str,
    body: String,
) -> Result<Element, CallError> {
    let region = session.region();
    let endpoint = session.endpoint("s3").map(|url| format!("{}/{bucket}", url.trim_end_matches('/')));
    let service = Service::at("s3", &format!("{bucket}.s3.{region}"), region, endpoint.as_deref());
    // S3 asks for a sum of what names the objects that go.
    let sum = base64::encode(crc32fast::hash(body.as_bytes()).to_be_bytes());
    let headers: &[(&str, &str)] = if body.is_empty() { &[] } else { &[("x-amz-checksum-crc32", &sum)] };
    let asked = || async {
        let keys = session.credentials().await?;
        let (status, answer) = service.send(method, query, headers, body.clone(), keys).await?;
        read(status, &answer)
    };
    session.repeated(asked).await
}

fn read(status: u16, answer: &str) -> Result<Element, CallError> {
    match Element::read(answer) {
        Ok(root) if status == 200 => match root.children.iter().find(|child| child.name == "Error") {
            None => Ok(root),
            // Of one object among those that were to be deleted. Its trouble has no status of its own.
            Some(error) => {
                let status = if error.text("Code") == "InternalError" { 500 } else { status };
                let message = format!("{}: {}", error.text("Key"), error.text("Message"));
                Err(errors::of_answer(status, error.text("Code"), &message))
            }
        },
        Ok(error) => Err(errors::of_answer(status, error.text("Code"), error.text("Message"))),
        Err(_) if status != 200 => Err(errors::of_answer(status, "", &format!("an answer {status} that is not S3's"))),
        Err(error) => Err(CallError::NoAnswer(format!("not understood: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_cannot_become_markup() {
        let body = question(&["a/b c.zip", "</Key><Key>&\r\n"]);
        let root = Element::read(&body).expect("XML");
        let keys: Vec<_> = root.children[1..].iter().map(|object| object.text("Key")).collect();
        assert_eq!(keys, ["a/b c.zip", "</Key><Key>&\r\n"]);
    }

    #[test]
    fn only_what_may_help_is_repeated() {
        let one = |code: &str| format!("<DeleteResult><Error><Key>a</Key><Code>{code}</Code></Error></DeleteResult>");
        let slow = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
        assert!(matches!(read(503, slow), Err(CallError::Throttled(_))));
        assert!(matches!(read(200, &one("SlowDown")), Err(CallError::Throttled(_))));
        assert!(matches!(read(200, &one("InternalError")), Err(CallError::NoAnswer(_))));
        assert!(matches!(read(200, &one("AccessDenied")), Err(CallError::Refused(_))));
        assert!(read(200, "<DeleteResult/>").is_ok());
    }
}
