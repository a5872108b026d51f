//! The first reason that holds keeps a backup from starting.

use super::*;

fn instance(number: u32) -> InstanceId {
    format!("i-{number:08x}").parse().unwrap()
}

fn command_id() -> CommandId {
    "6d2f0f0e-5d0b-4f0a-9b57-0d5b1a3f2c11".parse().unwrap()
}

fn group() -> StartFacts {
    StartFacts {
        application: Ok("dtr".parse().unwrap()),
        rivals: Vec::new(),
        in_service: vec![instance(1)],
        ping: Some(Ping::Online),
        executing: None,
        requested: None,
    }
}

#[test]
fn the_only_instance_in_service_is_backed_up() {
    let expected = Start::Start(Target {
        application: "dtr".parse().unwrap(),
        instance: instance(1),
    });
    assert_eq!(on_start(&group()), expected);
}

#[test]
fn a_group_is_skipped_for_the_first_reason_that_holds() {
    let rivals = vec!["a".to_owned(), "b".to_owned()];
    let table = [
        (
            StartFacts {
                application: Err("bad".to_owned()),
                rivals: rivals.clone(),
                ..group()
            },
            Skip::MalformedTag("bad".to_owned()),
            true,
        ),
        (
            StartFacts {
                rivals: rivals.clone(),
                in_service: vec![],
                ..group()
            },
            Skip::ApplicationClaimedTwice(rivals),
            true,
        ),
        (
            StartFacts {
                in_service: vec![],
                ping: None,
                ..group()
            },
            Skip::NoInstanceInService,
            false,
        ),
        (
            StartFacts {
                in_service: vec![instance(1), instance(2)],
                ..group()
            },
            Skip::SeveralInService(vec![instance(1), instance(2)]),
            true,
        ),
        (
            StartFacts {
                requested: Some(command_id()),
                executing: Some(command_id()),
                ..group()
            },
            Skip::AlreadyRequested(command_id()),
            false,
        ),
        (
            StartFacts {
                executing: Some(command_id()),
                ping: None,
                ..group()
            },
            Skip::CommandExecuting(command_id()),
            false,
        ),
        (
            StartFacts {
                ping: None,
                ..group()
            },
            Skip::AgentNotRegistered(instance(1)),
            false,
        ),
        (
            StartFacts {
                ping: Some(Ping::ConnectionLost),
                ..group()
            },
            Skip::AgentConnectionLost(instance(1)),
            false,
        ),
    ];
    for (facts, reason, refusal) in table {
        assert_eq!(reason.is_refusal(), refusal, "{reason}");
        assert_eq!(on_start(&facts), Start::Skip(reason));
    }
}
