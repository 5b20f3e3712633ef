//! The accounts and regions of a deployment, and who calls there.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anyhow::Context;
use aws::stack::{Place, Stack};
use aws::{AssumedRole, Session};

type Key = (String, String, Option<AssumedRole>);

/// One session for each account and region.
pub struct Places(HashMap<Key, Session>);

impl Places {
    /// Of all these stacks. Nothing is sent yet.
    pub async fn of(stacks: &[Stack]) -> anyhow::Result<Self> {
        let mut sessions = HashMap::new();
        for Stack { name, place, .. } in stacks {
            if let Entry::Vacant(entry) = sessions.entry(key(place)) {
                let session = Session::open(Some(&place.region), None, place.deploy_role.as_ref()).await;
                entry.insert(session.with_context(|| format!("{name} cannot be reached"))?);
            }
        }
        Ok(Self(sessions))
    }

    pub fn session(&self, place: &Place) -> &Session {
        self.0.get(&key(place)).expect("every stack's place was opened")
    }
}

fn key(place: &Place) -> Key {
    (place.account.clone(), place.region.clone(), place.deploy_role.clone())
}
