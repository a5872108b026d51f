//! The conversion of failed calls into errors.

use aws_sdk_ssm::Client;
use aws_sdk_ssm::error::ErrorMetadata;
use aws_sdk_ssm::operation::cancel_command::CancelCommandError;
use aws_smithy_mocks::{RuleMode, mock, mock_client};

use super::ssm;
use crate::error::Error;

async fn cancel_with(code: &'static str) -> Error {
    let rule = mock!(Client::cancel_command).then_error(move || {
        let metadata = ErrorMetadata::builder()
            .code(code)
            .message("message of AWS")
            .build();
        CancelCommandError::generic(metadata)
    });
    let client = mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&rule]);
    let command = "6d2f0f0e-5d0b-4f0a-9b57-0d5b1a3f2c11".parse().unwrap();
    ssm::cancel(&client, &command).await.unwrap_err()
}

#[tokio::test]
async fn an_overload_is_retryable_and_a_refusal_is_not() {
    let table = [
        ("ThrottlingException", true, "AwsUnavailable"),
        ("InternalServerError", true, "AwsUnavailable"),
        ("AccessDeniedException", false, "AwsRefused"),
        ("InvalidInstanceId", false, "AwsRefused"),
        ("SomethingNew", false, "AwsRefused"),
    ];
    for (code, retryable, kind) in table {
        let error = cancel_with(code).await;
        assert_eq!(
            (error.aws_code(), error.retryable(), error.kind().as_str()),
            (Some(code), retryable, kind)
        );
        assert!(
            error
                .chain()
                .starts_with(&format!("ssm:CancelCommand failed ({code})")),
            "{error:?}"
        );
        assert!(error.chain().contains("message of AWS"), "{error:?}");
        assert_eq!(ssm::refuses_instance(&error), code == "InvalidInstanceId");
    }
}

#[tokio::test]
async fn a_server_error_without_a_code_is_retryable() {
    let rule = mock!(Client::cancel_command)
        .sequence()
        .http_status(500, None)
        .repeatedly()
        .build();
    let client = mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&rule]);
    let command = "6d2f0f0e-5d0b-4f0a-9b57-0d5b1a3f2c11".parse().unwrap();
    let error = ssm::cancel(&client, &command).await.unwrap_err();
    assert!(error.retryable(), "{error:?}");
}
