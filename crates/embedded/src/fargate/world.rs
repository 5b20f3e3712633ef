//! What the API and the lives of the tasks share.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Config;
use super::engine::Engine;
use super::faults::Faults;
use super::record::Record;
use super::state::{State, Task};

#[derive(Debug)]
pub(super) struct World {
    pub config: Config,
    pub engine: Engine,
    pub faults: Faults,
    pub record: Option<Record>,
    /// One entry for each task that has not stopped yet.
    pub lives: TaskTracker,
    /// Cancelled when the server ends: tasks are killed and slow answers are given up.
    pub closing: CancellationToken,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl World {
    pub(super) fn new(config: Config, engine: Engine, state: State, record: Option<Record>) -> World {
        World {
            config,
            engine,
            faults: Faults::default(),
            record,
            lives: TaskTracker::new(),
            closing: CancellationToken::new(),
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
        }
    }

    /// Reads or changes the state, and wakes everybody who waits for a change.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let result = self.look(|state| act(state));
        self.changed.send_replace(());
        result
    }

    /// Like `with`, for what changes nothing that anybody waits for.
    pub(super) fn look<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes one task. It is there as long as it lives: only stopped tasks are forgotten.
    pub(super) fn task<T>(&self, id: &str, change: impl FnOnce(&mut Task) -> T) -> Option<T> {
        self.with(|state| state.tasks.get_mut(id).map(change))
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
