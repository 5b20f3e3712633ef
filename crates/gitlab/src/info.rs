/// What this runner is and can do (2.2, 2.3).
#[derive(Debug, Clone)]
pub struct Info {
    pub executor: String,
    pub shell: String,
}

impl Info {
    pub fn new(executor: impl Into<String>, shell: impl Into<String>) -> Self {
        Self { executor: executor.into(), shell: shell.into() }
    }
}
