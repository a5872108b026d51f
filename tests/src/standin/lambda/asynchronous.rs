//! Asynchronous invocation: up to two retries, after one and two minutes, and then the dead letters.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{DeadLetter, Inner, environment, request_id};
use crate::lock::lock;

/// The waits before the retries, in AWS's time. The last one repeats.
const WAITS: [Duration; 2] = [Duration::from_mins(1), Duration::from_mins(2)];

/// Accepts an event and delivers it in the background: twice if the test requested a duplicate.
pub(super) fn accept(lambda: &Arc<Inner>, function: &str, payload: Value) {
    let once_less = |left: u32| left.checked_sub(1);
    let duplicates = lambda
        .duplicates
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, once_less);
    let id = request_id();
    let payload = Arc::new(payload);
    for _ in 0..=u32::from(duplicates.is_ok()) {
        lambda.pending.fetch_add(1, Ordering::SeqCst);
        let lambda = Arc::clone(lambda);
        let (function, payload, id) = (function.to_owned(), Arc::clone(&payload), id.clone());
        tokio::spawn(async move {
            let dead = deliver(&lambda, &function, &payload, &id).await;
            lock(&lambda.dead_letters).extend(dead);
            lambda.pending.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// Invokes the function until it succeeds. Returns a dead letter if it fails too often or the event is too old.
async fn deliver(
    lambda: &Arc<Inner>,
    function: &str,
    payload: &Value,
    id: &str,
) -> Option<DeadLetter> {
    let accepted = Instant::now();
    let scale = lambda.settings.time_scale;
    let limits = lambda
        .functions
        .get(function)
        .map(|hosted| &hosted.function);
    let (retries, max_age) =
        limits.map_or((0, Duration::MAX), |one| (one.retries, one.max_event_age));
    let mut attempts = 0;
    loop {
        attempts += 1;
        // A retry has the same request id as the first attempt.
        let attempt = Arc::clone(lambda).invoke(function, payload.clone(), id.to_owned());
        let error = attempt.await.err()?;
        let wait = WAITS[usize::min(attempts, WAITS.len()) - 1].div_f64(scale);
        let age = (accepted.elapsed() + wait).as_secs_f64() * scale;
        if lambda.closed() {
            return None;
        }
        let too_old = age > max_age.as_secs_f64();
        if too_old || attempts > retries as usize {
            let error = if too_old {
                environment::failure("EventAgeExceeded", &error.to_string())
            } else {
                error
            };
            return Some(DeadLetter {
                function: function.to_owned(),
                payload: payload.clone(),
                error,
                attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            });
        }
        tokio::time::sleep(wait).await;
    }
}
