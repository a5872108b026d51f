//! The bound of the model.

/// How many more times each fault, and each event that could repeat without end, may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Budget {
    /// Ticks of the schedule.
    pub ticks: u8,
    /// Launches of the group.
    pub launches: u8,
    /// Launches while another member is in service.
    pub early_launches: u8,
    /// Living members that the group or an operator terminates.
    pub terminations: u8,
    /// Living members that turn unhealthy, so that the group launches a replacement before it terminates them.
    pub unhealthy: u8,
    /// Commands that SSM accepts.
    pub commands: u8,
    /// Instances that die without warning.
    pub deaths: u8,
    /// Agents that are killed.
    pub kills: u8,
    /// Commands that SSM delivers a second time.
    pub redeliveries: u8,
    /// Invocations that end between two calls.
    pub crashes: u8,
    /// Timeouts that pass although the agent, the command or the function is still alive.
    pub delays: u8,
    /// Commands that fail on the node without an outside cause.
    pub failures: u8,
    /// Objects and manifests that are damaged.
    pub damages: u8,
    /// Nodes that an operator adopts.
    pub adoptions: u8,
    /// Databases that lose most of their rows.
    pub emptied: u8,
    /// Quarantined backups that an operator accepts.
    pub acceptances: u8,
}
