//! A fetch in version 2 of Git's protocol: what can the server do, which references has it, and the pack.

use std::collections::{BTreeMap, BTreeSet};

use gitlab::{Client, GitRemote};
use tokio::sync::mpsc;

use super::packets::{DELIMITER, FLUSH, Packet, Packets, line, protocol, text};
use super::refspecs::{Refspec, select};
use super::{GitError, Sources, blocking, store};

/// Pieces of the pack that wait for the disk, 64 KiB each at most.
const WAITING: usize = 16;

/// Makes the repository of `sources` anew, with all its references, and with HEAD on nothing yet.
pub async fn fetch(client: &Client, mut remote: GitRemote, sources: &Sources) -> Result<(), GitError> {
    let format = object_format(client, &mut remote).await?;
    if format != sources.object_format {
        return Err(protocol(&format!("its objects are named by {format}, not by {}", sources.object_format)));
    }
    let refspecs: Vec<_> = sources.refspecs.iter().filter_map(|text| Refspec::parse(text)).collect();
    let listed = list(client, &remote, &refspecs, &format).await?;
    let references = select(&refspecs, &listed)?;
    let new = sources.clone();
    let repository = blocking(move |_| store::create(&new)).await?;
    if !references.is_empty() {
        let shallow = download(client, &remote, sources, &references, &repository).await?;
        repository.write_shallow(&shallow)?;
    }
    repository.write_references(&references)?;
    Ok(())
}

/// Object format of the repository, from the server's capabilities.
async fn object_format(client: &Client, remote: &mut GitRemote) -> Result<String, GitError> {
    let mut packets = Packets::of(client.git_capabilities(remote).await?);
    let mut first = packets.line().await?.unwrap_or_default().to_owned();
    // Smart HTTP puts a headline before the protocol's own first line.
    if first.starts_with("# service=") {
        packets.line().await?;
        first = packets.line().await?.unwrap_or_default().to_owned();
    }
    if first != "version 2" {
        return Err(protocol(&first));
    }
    let mut format = "sha1".to_owned();
    while let Some(capability) = packets.line().await? {
        if let Some(of_server) = capability.strip_prefix("object-format=") {
            format = of_server.to_owned();
        }
    }
    Ok(format)
}

fn command(name: &str, format: &str) -> Vec<u8> {
    [line(&format!("command={name}")), line(&format!("object-format={format}")), DELIMITER.to_vec()].concat()
}

/// Name and object of each reference that a refspec may mean.
async fn list(
    client: &Client,
    remote: &GitRemote,
    refspecs: &[Refspec<'_>],
    format: &str,
) -> Result<Vec<(String, String)>, GitError> {
    let prefixes: BTreeSet<_> = refspecs.iter().filter_map(Refspec::prefix).collect();
    if prefixes.is_empty() {
        return Ok(Vec::new());
    }
    let mut body = command("ls-refs", format);
    body.extend(prefixes.into_iter().flat_map(|prefix| line(&format!("ref-prefix {prefix}"))));
    body.extend_from_slice(FLUSH);
    let mut packets = Packets::of(client.git_command(remote, body).await?);
    let mut listed = Vec::new();
    while let Some(line) = packets.line().await? {
        let (object, name) = line.split_once(' ').ok_or_else(|| protocol(line))?;
        // A branch without commits has a word in the place of the object.
        if object.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            listed.push((name.split(' ').next().unwrap_or_default().to_owned(), object.to_owned()));
        }
    }
    Ok(listed)
}

/// Gets the pack onto the disk, and returns the commits whose parents are not in it.
async fn download(
    client: &Client,
    remote: &GitRemote,
    sources: &Sources,
    references: &BTreeMap<String, String>,
    repository: &store::Repository,
) -> Result<BTreeSet<String>, GitError> {
    let mut body = command("fetch", &sources.object_format);
    body.extend(["ofs-delta", "no-progress"].iter().flat_map(|option| line(option)));
    if sources.depth > 0 {
        body.extend(line(&format!("deepen {}", sources.depth)));
    }
    let objects: BTreeSet<_> = references.values().collect();
    body.extend(objects.into_iter().flat_map(|object| line(&format!("want {object}"))));
    body.extend(line("done"));
    body.extend_from_slice(FLUSH);

    let mut packets = Packets::of(client.git_command(remote, body).await?);
    let mut shallow = BTreeSet::new();
    loop {
        match packets.line().await? {
            Some("packfile") => break,
            Some("shallow-info") => {
                while let Some(line) = packets.line().await? {
                    shallow.extend(line.strip_prefix("shallow ").map(str::to_owned));
                }
            }
            // The end of a section that we did not ask for, and its content.
            Some(_) => while packets.line().await?.is_some() {},
            None => return Err(protocol("the answer has no pack")),
        }
    }
    let (chunks, arriving) = mpsc::channel(WAITING);
    let repository = repository.clone();
    let stored = blocking(move |abandoned| repository.store_pack(arriving, abandoned));
    // Together, so that both end when nobody waits for them any more.
    let (sent, stored) = tokio::join!(send_pack(&mut packets, chunks), stored);
    // When the server breaks off, the pack is broken too, and that is not the reason.
    sent?;
    stored?;
    Ok(shallow)
}

async fn send_pack(packets: &mut Packets, chunks: mpsc::Sender<Vec<u8>>) -> Result<(), GitError> {
    loop {
        match packets.next().await? {
            Packet::Data([1, pack @ ..]) => {
                // The pack is complete, or cannot be stored; who stores it knows.
                if chunks.send(pack.to_vec()).await.is_err() {
                    return Ok(());
                }
            }
            Packet::Data([3, message @ ..]) => return Err(GitError::Refused(text(message))),
            // Progress, which nobody asked for, and signs of life.
            Packet::Data(_) => {}
            Packet::Flush | Packet::Delimiter => return Ok(()),
        }
    }
}
