//! Signatures that the rest is written against (the implementation follows):
//!
//! start(config: Config) -> Result<Server, StartError>                              async
//! Server::url() -> &str                      "http://127.0.0.1:PORT" for ECS, EC2 and STS alike
//! Server::engine() -> &str                   one sentence: which engine, and why
//! Server::ssh_port() -> u16                  the port of every task: 22 as root where it is free, else 2222
//! Server::faults() -> &Faults
//! Server::tasks() -> Vec<TaskView>
//! Server::calls() -> BTreeMap<String, u64>   calls so far by API name, refused ones included
//! Server::wait_for(within: Duration, |&[TaskView]| -> bool) -> Option<Vec<TaskView>>   async; None: not in time
//! Server::interrupt_task(arn, notice: Duration) / kill_host(arn) / out_of_memory(arn)
//! Server::task_log(arn) -> Option<Vec<u8>>   the last 64 KiB of the containers' output
//! Server::shutdown(self)                     async; ends every task and waits for it. Drop kills them too.
//!
//! TaskView { arn, task_definition, last_status: String, desired_status: String, stop_code: Option<String>, stopped_reason: Option<String>,
//!   exit_code: Option<i32>, address: Option<Ipv4Addr>, started_by: Option<String>, environment: BTreeMap<String, String> (overrides) }
