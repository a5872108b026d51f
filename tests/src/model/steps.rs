//! Everything that can happen next, in small steps.

use shared::exit_code::ExitCode;

use super::aws::ssm;
use crate::model::protocol::Protocol;
use crate::model::protocol::defects::Defect;
use crate::model::world::{
    Agent, AgentOutcome, BackupNumber, Breaker, CommandNumber, LaunchWait, Lifecycle, NodeNumber,
    Request, RunNumber, Status, World,
};

/// A step.
///
/// An event is a hint. Once it has a cause, it may be delivered at any time, any number of times, or never. The same holds
/// for the sweep that finds the same work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The schedule names the next backup.
    ScheduleTick,
    /// The tick's event is delivered, possibly again.
    DeliverTick,
    /// A tick checks the application's parameter.
    RepairParameter,
    /// An operator adopts the node in service.
    Adopt,
    /// An operator accepts a quarantined backup.
    AcceptQuarantined(BackupNumber),
    /// A sweep checks the breaker.
    SweepBreaker,
    /// Time passes since the breaker tripped.
    AgeBreaker,
    /// An event of a launch or of a finished restore is delivered, or a sweep finds the instance.
    HandleLaunching(NodeNumber),
    /// An event of a termination is delivered, or a sweep finds the instance.
    HandleTerminating(NodeNumber),
    /// An event of a finished backup is delivered, or a sweep finds the command.
    FinishBackup(CommandNumber),
    /// An invocation makes its next call.
    Call(usize),
    /// An invocation crashes before its next call.
    Crash(usize),
    /// An agent registers, or answers pings again.
    AgentOnline(NodeNumber),
    /// An agent does not answer a ping.
    AgentLost(NodeNumber),
    /// SSM delivers a command.
    Deliver(CommandNumber),
    /// SSM delivers a command again whose process died.
    Redeliver(CommandNumber),
    /// A timeout of SSM passes for a command.
    TimeOut(CommandNumber),
    /// The time for an agent to take a command passes.
    BecomeOverdue(CommandNumber),
    /// The commit window of a finished backup passes.
    BecomeLate(CommandNumber),
    /// A process of the agent moves to its next stage.
    AgentAdvances(NodeNumber, usize),
    /// A process of the agent fails.
    AgentFails(NodeNumber, usize, ExitCode),
    /// A process of the agent is killed.
    AgentKilled(NodeNumber, usize),
    /// A process of the agent stops waiting for the lock.
    LockWaitEnds(NodeNumber, usize),
    /// A final backup preempts a running one.
    Preempt(NodeNumber),
    /// The machine dies.
    InstanceDies(NodeNumber),
    /// The group launches an instance.
    Launch,
    /// The group terminates a member.
    Terminate(NodeNumber),
    /// Most rows of a node in service are deleted.
    DeleteRows(NodeNumber),
    /// The group marks a living member as unhealthy.
    TurnUnhealthy(NodeNumber),
    /// A member whose terminate hook is answered leaves the group.
    LeaveGroup(NodeNumber),
    /// A hook expires.
    HookExpires(NodeNumber),
    /// Time passes in a launch hook.
    LaunchWaits(NodeNumber, LaunchWait),
    /// An object of a backup attempt is damaged.
    DamageObject(RunNumber),
    /// A manifest is damaged.
    DamageManifest(BackupNumber),
}

/// Appends the steps that may be possible. `apply` decides whether a step has an effect.
pub(in crate::model) fn possible(protocol: &Protocol, world: &World, steps: &mut Vec<Step>) {
    if world.broken.is_some() {
        return;
    }
    if world.calls.len() < protocol.max_invocations {
        hints(protocol, world, steps);
    }
    for call in 0..world.calls.len() {
        steps.push(Step::Call(call));
        if world.budget.crashes > 0 {
            steps.push(Step::Crash(call));
        }
    }
    of_commands(world, steps);
    for (number, node) in world.numbered_nodes() {
        of_node(world, number, steps);
        for index in 0..node.processes.len() {
            of_process(world, number, index, steps);
        }
    }
    if matches!(world.breaker, Some(Breaker::Open { .. })) {
        steps.push(Step::AgeBreaker);
    }
    if world.budget.launches > 0 {
        steps.push(Step::Launch);
    }
    if world.budget.ticks > 0 {
        steps.push(Step::ScheduleTick);
    }
    if world.budget.damages > 0 {
        let sound = (0..)
            .zip(&world.runs)
            .filter(|(_, run)| run.complete && run.sound);
        steps.extend(sound.map(|(run, _)| Step::DamageObject(run)));
        let readable = world
            .manifests
            .iter()
            .filter(|(_, manifest)| manifest.readable);
        steps.extend(readable.map(|(backup, _)| Step::DamageManifest(*backup)));
    }
}

fn hints(protocol: &Protocol, world: &World, steps: &mut Vec<Step>) {
    if world.tick.is_some() {
        steps.push(Step::DeliverTick);
    }
    if !world.parameter && !world.manifests.is_empty() {
        steps.push(Step::RepairParameter);
    }
    if matches!(world.breaker, Some(Breaker::Open { .. })) {
        steps.push(Step::SweepBreaker);
    }
    if world.budget.adoptions > 0 {
        steps.push(Step::Adopt);
    }
    if world.budget.acceptances > 0 {
        steps.extend(
            world
                .quarantined
                .keys()
                .map(|backup| Step::AcceptQuarantined(*backup)),
        );
    }
    for (number, node) in world.numbered_nodes() {
        match node.lifecycle {
            Lifecycle::Launching => {
                let commanded = world.commands.iter().any(|command| command.node == number);
                if !commanded || !protocol.has(Defect::NeverSweepsLaunches) {
                    steps.push(Step::HandleLaunching(number));
                }
            }
            Lifecycle::Terminating => steps.push(Step::HandleTerminating(number)),
            Lifecycle::InService | Lifecycle::Proceeding | Lifecycle::Gone => {}
        }
    }
    let finished = world.numbered_commands().filter(|(_, command)| {
        matches!(command.request, Request::Backup { .. }) && command.status.is_finished()
    });
    steps.extend(finished.map(|(number, _)| Step::FinishBackup(number)));
}

fn of_commands(world: &World, steps: &mut Vec<Step>) {
    for (number, command) in world.numbered_commands() {
        match command.status {
            Status::Pending => {
                let deliver = [Step::Deliver(number), Step::TimeOut(number)];
                steps.extend(deliver);
                steps.push(Step::BecomeOverdue(number));
            }
            Status::Running => {
                steps.push(Step::TimeOut(number));
                if world.budget.redeliveries > 0 && !ssm::has_process(world, number) {
                    steps.push(Step::Redeliver(number));
                }
            }
            Status::Ended(AgentOutcome::BackedUp(_)) if world.budget.delays > 0 => {
                steps.push(Step::BecomeLate(number));
            }
            _ => {}
        }
    }
}

fn of_node(world: &World, number: NodeNumber, steps: &mut Vec<Step>) {
    let node = world.node(number);
    if node.lifecycle == Lifecycle::Gone {
        if node.alive {
            steps.push(Step::InstanceDies(number));
        }
        return;
    }
    match node.agent {
        Agent::Online => steps.push(Step::AgentLost(number)),
        _ => steps.push(Step::AgentOnline(number)),
    }
    if node.alive && world.budget.deaths > 0 {
        steps.push(Step::InstanceDies(number));
    }
    steps.push(Step::Preempt(number));
    match node.lifecycle {
        Lifecycle::Launching => {
            let limits = [
                LaunchWait::PastReady,
                LaunchWait::PastFence,
                LaunchWait::PastReadyAndFence,
                LaunchWait::PastHardCap,
            ];
            steps.extend(limits.map(|waited| Step::LaunchWaits(number, waited)));
            steps.extend([Step::Terminate(number), Step::HookExpires(number)]);
        }
        Lifecycle::InService => {
            steps.extend([Step::Terminate(number), Step::TurnUnhealthy(number)]);
            if world.budget.emptied > 0 && !node.emptied {
                steps.push(Step::DeleteRows(number));
            }
        }
        Lifecycle::Terminating => steps.push(Step::HookExpires(number)),
        Lifecycle::Proceeding => steps.push(Step::LeaveGroup(number)),
        Lifecycle::Gone => {}
    }
}

fn of_process(world: &World, node: NodeNumber, index: usize, steps: &mut Vec<Step>) {
    steps.push(Step::AgentAdvances(node, index));
    if world.budget.kills > 0 {
        steps.push(Step::AgentKilled(node, index));
    }
    if world.budget.delays > 0 {
        steps.push(Step::LockWaitEnds(node, index));
    }
    if world.budget.failures > 0 {
        let codes = [
            ExitCode::Dump,
            ExitCode::StartCommand,
            ExitCode::DiskTooSmall,
        ];
        steps.extend(codes.map(|code| Step::AgentFails(node, index, code)));
    }
}
