//! Templates are read as AWS deploys them.

use super::*;
use crate::repository::project;

const TEMPLATE: &str = r#"
Parameters:
  Bucket: {Type: String}
  Minutes: {Type: Number, Default: 15}
  Zone: {Type: String, Default: ""}
  Unused: {Type: String}
Mappings:
  Sizes: {large: {memory: 512}}
Conditions:
  InZone: !Not [!Equals [!Ref Zone, ""]]
  Never: !And [!Condition InZone, !Equals [!Ref Minutes, 16]]
Globals:
  Function:
    Timeout: 900
    Environment:
      Variables: {BUCKET: !Ref Bucket, DOCUMENT: !Ref Run, SHARED: global}
Resources:
  Work:
    Type: AWS::Serverless::Function
    Metadata: {BuildProperties: {Binary: work}}
    Properties:
      FunctionName: !Sub "${AWS::StackName}-work"
      MemorySize: !FindInMap [Sizes, large, memory]
      Role: !GetAtt WorkRole.Arn
      Environment:
        Variables:
          SHARED: own
          ZONE: !If [InZone, !Ref Zone, !Ref "AWS::NoValue"]
          JOINED: !Join ["-", [a, !Select [1, !Split [",", "x,y"]]]]
      EventInvokeConfig: {MaximumRetryAttempts: 1, MaximumEventAgeInSeconds: 60}
      Events:
        Tick: {Type: Schedule, Properties: {Schedule: !Sub "rate(${Minutes} minutes)", Input: '{"a":1}'}}
        Off: {Type: Schedule, Properties: {Schedule: rate(1 minute), State: DISABLED}}
        Done:
          Type: EventBridgeRule
          Properties: {Pattern: {detail: {document-name: [!Ref Run]}}}
  Elsewhere: {Type: "AWS::Serverless::Function", Properties: {Handler: index.handler}}
  Run:
    Type: AWS::SSM::Document
    Properties:
      Content:
        run: !Sub ['{{ Hash }} ${Bucket} ${!literal} ${Word} ${Work.Arn}', {Word: !Ref Minutes}]
  Named: {Type: "AWS::SSM::Document", Properties: {Name: !Sub "${AWS::StackName}-named", Content: {}}}
  Absent: {Type: "AWS::SSM::Document", Condition: Never, Properties: {Content: {}}}
  Group:
    Type: AWS::AutoScaling::AutoScalingGroup
    Properties:
      LifecycleHookSpecificationList:
        - {LifecycleHookName: launch, LifecycleTransition: "autoscaling:EC2_INSTANCE_LAUNCHING", HeartbeatTimeout: 300}
"#;

fn parameters(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    list.iter().map(owned).collect()
}

#[test]
fn functions_are_read_with_globals_and_resolved() {
    let template = Template::parse(TEMPLATE, &parameters(&[("Bucket", "backups")])).unwrap();
    assert_eq!(template.functions.len(), 1);
    let function = template.function("Work").unwrap();
    assert_eq!(
        (function.name.as_str(), function.binary.as_str()),
        ("rekindle-work", "work")
    );
    let variables = [
        ("BUCKET", "backups"),
        ("DOCUMENT", "Run"),
        ("SHARED", "own"),
        ("JOINED", "a-y"),
    ];
    assert_eq!(function.environment, parameters(&variables));
    assert_eq!(function.timeout, Duration::from_mins(15));
    assert_eq!((function.memory_mb, function.retries), (512, 1));
    assert_eq!(function.max_event_age, Duration::from_mins(1));
    let tick = Rule::Schedule {
        every: Duration::from_mins(15),
        input: Some(serde_json::json!({"a": 1})),
    };
    assert_eq!(function.rules.len(), 2);
    assert!(function.rules.contains(&tick));
    let done = Rule::Pattern(serde_json::json!({"detail": {"document-name": ["Run"]}}));
    assert!(function.rules.contains(&done));
}

#[test]
fn a_condition_decides_about_values_and_resources() {
    let given = parameters(&[("Bucket", "b"), ("Zone", "z"), ("Minutes", "16")]);
    let template = Template::parse(TEMPLATE, &given).unwrap();
    assert_eq!(template.function("Work").unwrap().environment["ZONE"], "z");
    assert!(template.document("Absent").is_some());
}

#[test]
fn documents_and_hooks_are_read() {
    let template = Template::parse(TEMPLATE, &parameters(&[("Bucket", "backups")])).unwrap();
    let names: Vec<_> = template
        .documents
        .iter()
        .map(|document| document.name.as_str())
        .collect();
    assert_eq!(names, ["rekindle-named", "Run"]);
    assert_eq!(
        template.document("Run").unwrap().content["run"],
        "{{ Hash }} backups ${literal} 15 Work.Arn"
    );
    let hook = HookSpec {
        name: "launch".to_owned(),
        transition: "autoscaling:EC2_INSTANCE_LAUNCHING".to_owned(),
        heartbeat: Duration::from_mins(5),
        default_result: "ABANDON".to_owned(),
    };
    assert_eq!(template.hooks, [hook]);
}

#[test]
fn a_missing_or_unknown_parameter_is_named() {
    let error = Template::parse(TEMPLATE, &BTreeMap::new()).unwrap_err();
    assert!(
        format!("{error:#}").contains("the parameter Bucket has no default"),
        "{error:#}"
    );
    let error = Template::parse(TEMPLATE, &parameters(&[("Bukket", "b")])).unwrap_err();
    assert!(
        format!("{error:#}").contains("no parameter Bukket"),
        "{error:#}"
    );
}

/// The stand-in must be able to deploy the same template as AWS.
#[test]
fn the_shipped_template_is_read() {
    let path = project().join("template.yaml");
    let given = parameters(&[("BackupBucketName", "backups")]);
    let template = Template::load(&path, &given).unwrap();
    for (logical_id, binary) in [("BackupFunction", "backup"), ("RestoreFunction", "restore")] {
        let function = template.function(logical_id).unwrap();
        assert_eq!(function.binary, binary);
        assert!(!function.rules.is_empty());
        for rule in &function.rules {
            if let Rule::Pattern(pattern) = rule {
                crate::standin::pattern::Pattern::new(pattern).unwrap();
            }
        }
        let document = template.document("BackupDocument").unwrap();
        assert_eq!(
            function.environment["REKINDLE_BACKUP_DOCUMENT"],
            document.name
        );
        assert_eq!(function.environment["REKINDLE_BUCKET"], "backups");
    }
    let steps = &template.document("RestoreDocument").unwrap().content["mainSteps"];
    let source = steps[0]["inputs"]["sourceInfo"].as_str().unwrap();
    assert!(
        source.contains("https://backups.s3.eu-central-1.amazonaws.com/agent/"),
        "{source}"
    );
}
