use super::*;

fn shell(script: &str) -> Program {
    Program::new("sh").args(["-c", script])
}

#[tokio::test]
async fn a_failure_quotes_the_last_lines_of_both_streams() {
    let script = "echo first; echo second >&2; exit 3";
    let failure = shell(script).run(ExitCode::Dump).await.unwrap_err();
    assert_eq!(failure.code, ExitCode::Dump);
    let chain = failure.chain();
    assert!(chain.starts_with("sh failed (exit status: 3): "), "{chain}");
    assert!(
        chain.contains("first") && chain.contains("second"),
        "{chain}"
    );

    let silent = shell("exit 4").label("a check").output(ExitCode::Dump);
    let failure = silent.await.unwrap_err();
    assert_eq!(
        failure.chain(),
        "a check failed (exit status: 4): no output on stderr"
    );
}

#[tokio::test]
async fn a_program_answers_while_it_reads() {
    let input = vec![b'x'; 4 * 1024 * 1024];
    let echo = Program::new("cat").input(input.clone());
    assert!(echo.output(ExitCode::Dump).await.unwrap() == input);
    let nothing = Program::new("cat").output(ExitCode::Dump);
    assert!(nothing.await.unwrap().is_empty());
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_killed() {
    let limited = Program::new("sleep")
        .args(["60"])
        .limit(Duration::from_millis(50));
    let failure = limited.run(ExitCode::StartCommand).await.unwrap_err();
    assert_eq!(failure.code, ExitCode::StartCommand);
    assert!(failure.chain().starts_with("sleep was killed"));
}

#[tokio::test]
async fn a_program_that_does_not_read_all_of_its_input_has_failed() {
    let (sender, chunks) = mpsc::channel(1);
    let sending =
        async move { while sender.send(Bytes::from(vec![0; 256 * 1024])).await.is_ok() {} };
    let progress = Progress::default();
    let reading = shell("echo enough >&2").stdin_from(chunks, &progress, ExitCode::Restore);
    let ((), read) = tokio::join!(sending, reading);
    let chain = read.unwrap_err().chain();
    assert!(
        chain.contains("before it had read all of its input"),
        "{chain}"
    );
    assert!(chain.ends_with(": enough"), "{chain}");
}

#[tokio::test]
async fn output_counts_only_if_the_program_succeeds() {
    let progress = Progress::default();
    let collect = async |script: &str| {
        let (sender, mut chunks) = mpsc::channel(1);
        let sending = shell(script).stdout_to(sender, &progress, ExitCode::Dump);
        let collecting = async {
            let mut all = Vec::new();
            while let Some(chunk) = chunks.recv().await {
                all.extend_from_slice(&chunk);
            }
            all
        };
        tokio::join!(sending, collecting)
    };
    let (sent, all) = collect("head -c 700000 /dev/zero").await;
    assert_eq!((sent.unwrap(), all.len()), (700_000, 700_000));
    let (sent, _) = collect("echo some; exit 1").await;
    assert!(matches!(sent, Err(Stop::Failed(_))), "{sent:?}");
}

#[tokio::test]
async fn a_program_has_ended_although_its_daemon_holds_its_output_open() {
    let began = std::time::Instant::now();
    shell("sleep 30 &")
        .run(ExitCode::StartCommand)
        .await
        .unwrap();
    let failing = shell("echo why; sleep 30 & exit 1").run(ExitCode::StartCommand);
    assert!(failing.await.unwrap_err().chain().ends_with(": why"));
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_tool_gets_no_credentials_and_a_command_gets_the_whole_environment() {
    // Cargo sets this for every test; it is not among the kept variables.
    let print = "echo ${CARGO_MANIFEST_DIR-none}; echo $PATH";
    let output = shell(print).output(ExitCode::Dump).await.unwrap();
    assert!(output.starts_with(b"none\n/"));
    let whole = Program::with_agent_environment("sh").args(["-c", print]);
    assert!(
        !whole
            .output(ExitCode::Dump)
            .await
            .unwrap()
            .starts_with(b"none")
    );
}
