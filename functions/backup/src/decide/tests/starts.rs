//! Whether a backup is started.

use super::*;

fn group() -> GroupFacts {
    GroupFacts {
        application: Ok("dtr".parse().unwrap()),
        rivals: Vec::new(),
        in_service: vec![instance(1)],
        ping: Some(Ping::Online),
        executing: None,
        requested: None,
    }
}

#[test]
fn a_tick_backs_up_the_one_instance_in_service() {
    let expected = Start::Start {
        application: "dtr".parse().unwrap(),
        instance: instance(1),
    };
    assert_eq!(on_tick(&group()), expected);
}

#[test]
fn a_tick_skips_with_the_first_reason_that_holds() {
    let rivals = vec!["a".to_owned(), "b".to_owned()];
    let table = [
        (
            GroupFacts {
                application: Err("bad".to_owned()),
                rivals: rivals.clone(),
                ..group()
            },
            Skip::MalformedTag("bad".to_owned()),
            true,
        ),
        (
            GroupFacts {
                rivals: rivals.clone(),
                in_service: vec![],
                ..group()
            },
            Skip::ApplicationClaimedTwice(rivals),
            true,
        ),
        (
            GroupFacts {
                in_service: vec![],
                ping: None,
                ..group()
            },
            Skip::NoInstanceInService,
            false,
        ),
        (
            GroupFacts {
                in_service: vec![instance(1), instance(2)],
                ..group()
            },
            Skip::SeveralInService(vec![instance(1), instance(2)]),
            true,
        ),
        (
            GroupFacts {
                requested: Some(command_id()),
                executing: Some(command_id()),
                ..group()
            },
            Skip::AlreadyRequested(command_id()),
            false,
        ),
        (
            GroupFacts {
                executing: Some(command_id()),
                ping: None,
                ..group()
            },
            Skip::CommandExecuting(command_id()),
            false,
        ),
        (
            GroupFacts {
                ping: None,
                ..group()
            },
            Skip::AgentNotRegistered(instance(1)),
            false,
        ),
        (
            GroupFacts {
                ping: Some(Ping::ConnectionLost),
                ..group()
            },
            Skip::AgentConnectionLost(instance(1)),
            false,
        ),
    ];
    for (facts, reason, refusal) in table {
        assert_eq!(reason.is_refusal(), refusal, "{reason}");
        assert_eq!(on_tick(&facts), Start::Skip(reason));
    }
}

#[test]
fn a_late_tick_and_one_from_the_future_start_nothing() {
    let age = |seconds: i64| late(NOW - Duration::seconds(seconds), NOW);
    assert_eq!(age(0), None);
    assert_eq!(age(i64::from(budget::BACKUP_EVENT_AGE)), None);
    assert!(
        age(i64::from(budget::BACKUP_EVENT_AGE) + 1)
            .unwrap()
            .contains("601 s old")
    );
    assert_eq!(age(-60), None);
    assert!(age(-61).unwrap().contains("future"));
}

#[test]
fn adopting_over_existing_backups_has_to_be_said() {
    let newest = backup_id();
    assert_eq!(on_adopt(None, false), Ok(()));
    assert_eq!(on_adopt(Some(&newest), true), Ok(()));
    let refusal = on_adopt(Some(&newest), false).unwrap_err();
    assert!(refusal.contains(newest.as_str()) && refusal.contains("over_existing_backups"));
}
