//! Keeps a group at its size: replaces unhealthy instances, launches missing ones and terminates surplus ones.

use time::OffsetDateTime;
use uuid::Uuid;

use super::lifecycle::{self, Effect, Pace};
use super::model::{Group, Lifecycle, Member, record_activity};
use crate::standin::clock;

/// Advances every instance of a group and keeps the group at its size. Returns the effects outside of Auto Scaling.
pub(super) fn advance(group: &mut Group, pace: &Pace, now: OffsetDateTime) -> Vec<Effect> {
    let mut effects = Vec::new();
    let mut members = std::mem::take(&mut group.members);
    members.retain_mut(|member| {
        check_health(group, member, pace, now);
        replace_unhealthy(group, member, pace, now);
        lifecycle::step(group, member, pace, now, &mut effects)
    });
    group.members = members;
    shrink(group, pace, now);
    grow(group, pace, now, &mut effects);
    effects
}

/// Marks an instance without power as unhealthy, when a health check is due.
fn check_health(group: &Group, member: &mut Member, pace: &Pace, now: OffsetDateTime) {
    if group.is_suspended("HealthCheck") {
        return;
    }
    let next = pace.clock.after(now, pace.health_check);
    match member.health_check_at {
        Some(at) if at <= now => {
            member.health_check_at = Some(next);
            member.healthy &= member.running;
        }
        Some(_) => {}
        None => member.health_check_at = Some(next),
    }
}

/// Terminates an unhealthy instance.
fn replace_unhealthy(group: &mut Group, member: &mut Member, pace: &Pace, now: OffsetDateTime) {
    let held = ["ReplaceUnhealthy", "Terminate"]
        .into_iter()
        .any(|process| group.is_suspended(process));
    if member.healthy || held || !member.state.counts() {
        return;
    }
    let cause = format!(
        "At {} an instance was taken out of service in response to an EC2 health check indicating it has been \
         terminated or stopped, or to a user health-check.",
        clock::whole_seconds(now)
    );
    lifecycle::terminate(group, member, &cause, pace, now);
}

/// Returns the number of instances that count towards the desired capacity.
fn counted(group: &Group) -> usize {
    let members = group.members.iter();
    members.filter(|member| member.state.counts()).count()
}

/// Terminates the oldest surplus instances.
fn shrink(group: &mut Group, pace: &Pace, now: OffsetDateTime) {
    let surplus = counted(group).saturating_sub(group.desired);
    if surplus == 0 || group.is_suspended("Terminate") {
        return;
    }
    let mut members = std::mem::take(&mut group.members);
    let oldest = members.iter_mut().filter(|member| member.state.counts());
    for member in oldest.take(surplus) {
        let cause = format!(
            "At {} an instance was taken out of service in response to a difference between desired and actual \
             capacity, shrinking the capacity.",
            clock::whole_seconds(now)
        );
        lifecycle::terminate(group, member, &cause, pace, now);
    }
    group.members = members;
}

/// Launches missing instances, unless launches are suspended or delayed after a failure.
fn grow(group: &mut Group, pace: &Pace, now: OffsetDateTime, effects: &mut Vec<Effect>) {
    if group.is_suspended("Launch") || group.back_off.is_some_and(|until| until > now) {
        return;
    }
    for _ in counted(group)..group.desired {
        let id = instance_id();
        let cause = format!(
            "At {} an instance was started in response to a difference between desired and actual capacity, \
             increasing the capacity from {} to {}.",
            clock::whole_seconds(now),
            counted(group),
            group.desired
        );
        let description = format!("Launching a new EC2 instance: {id}");
        let activity = record_activity(group, &id, &description, &cause, now);
        group.members.push(Member {
            id: id.clone(),
            state: Lifecycle::Pending,
            healthy: true,
            running: true,
            due: Some(pace.clock.after(now, pace.boot)),
            health_check_at: None,
            waits: Vec::new(),
            served: false,
            activity,
        });
        effects.push(Effect::Boot {
            group: group.name.clone(),
            instance: id,
        });
    }
}

fn instance_id() -> String {
    let random = Uuid::new_v4().simple().to_string();
    format!("i-{}", &random[..17])
}
