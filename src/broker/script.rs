//! Lua scripts that run inside Redis, many calls in one pipeline.

use std::fmt::Write as _;

use fred::{
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Value},
    util::redis_keyslot,
};

use super::{RedisClient, RedisUnavailable};

/// Calls in one pipeline. At about 10 µs each, Redis runs them well within the command time-out and
/// without keeping other clients waiting.
pub(super) const CALLS_A_PIPELINE: usize = 500;

/// Keys in one call of a script that takes many, at about 3 µs each: Redis does nothing else meanwhile.
const KEYS_A_CALL: usize = 100;

/// A script that runs on one server: it touches one key, or, outside a cluster, any number.
#[derive(Debug)]
pub(crate) struct Script {
    source: String,
    sha1: String,
}

/// One call of a script: its keys, at least one and all on one server, and its arguments.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) keys: Vec<String>,
    pub(crate) args: Vec<Value>,
}

impl Call {
    pub(crate) fn new(key: String, args: Vec<Value>) -> Self {
        Self { keys: vec![key], args }
    }
}

impl Script {
    pub(crate) fn new(source: impl Into<String>) -> Self {
        let source = source.into();
        // Redis names a script by this hash; it is no safeguard.
        let digest = aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
            source.as_bytes(),
        );
        let mut sha1 = String::with_capacity(40);
        for byte in digest.as_ref() {
            // Writing to a String cannot fail.
            let _ = write!(sha1, "{byte:02x}");
        }
        Self { source, sha1 }
    }
}

impl RedisClient {
    /// Runs a script for each of `calls` and returns their results in the same order. If one fails, all
    /// fail, because every write here can be repeated.
    pub(crate) async fn run(
        &self,
        script: &Script,
        calls: &[Call],
    ) -> Result<Vec<Value>, RedisUnavailable> {
        let mut results = Vec::with_capacity(calls.len());
        for chunk in calls.chunks(CALLS_A_PIPELINE) {
            let mut answers = self.run_by(chunk, "EVALSHA", &script.sha1).await?;
            // A new or restarted server does not know the script and learns it from EVAL. Calls that
            // were answered must not run again.
            let unknown: Vec<usize> = (0..answers.len())
                .filter(|&i| matches!(&answers[i], Err(e) if e.details().starts_with("NOSCRIPT")))
                .collect();
            if !unknown.is_empty() {
                let again: Vec<Call> = unknown.iter().map(|&i| chunk[i].clone()).collect();
                let learned = self.run_by(&again, "EVAL", &script.source).await?;
                for (i, answer) in unknown.into_iter().zip(learned) {
                    answers[i] = answer;
                }
            }
            for answer in answers {
                results.push(answer.map_err(|error| {
                    tracing::warn!(error = %error.details(), "Redis refused a script");
                    RedisUnavailable
                })?);
            }
        }
        Ok(results)
    }

    /// Runs a script that takes many keys, with `args` and then those of each key as arguments. It takes
    /// few calls, because a call costs a replica more than it costs Redis; in a cluster, one a key.
    /// Returns the answer of each call, in the order of the keys.
    pub(crate) async fn run_together(
        &self,
        script: &Script,
        args: &[Value],
        theirs: Vec<(String, Vec<Value>)>,
    ) -> Result<Vec<Value>, RedisUnavailable> {
        let keys_a_call = if self.is_clustered() { 1 } else { KEYS_A_CALL };
        let mut calls: Vec<Call> = Vec::with_capacity(theirs.len().div_ceil(keys_a_call));
        for (key, own) in theirs {
            match calls.last_mut().filter(|call| call.keys.len() < keys_a_call) {
                Some(call) => {
                    call.keys.push(key);
                    call.args.extend(own);
                }
                None => calls.push(Call::new(key, [args, &own].concat())),
            }
        }
        let mut answers = Vec::with_capacity(calls.len());
        for part in calls.chunks(CALLS_A_PIPELINE / keys_a_call) {
            answers.extend(self.run(script, part).await?);
        }
        Ok(answers)
    }

    async fn run_by(
        &self,
        calls: &[Call],
        command: &'static str,
        script: &str,
    ) -> Result<Vec<fred::interfaces::FredResult<Value>>, RedisUnavailable> {
        let pipeline = self.pipeline()?;
        for call in calls {
            let slot = ClusterHash::Custom(redis_keyslot(call.keys[0].as_bytes()));
            let mut args: Vec<Value> = Vec::with_capacity(2 + call.keys.len() + call.args.len());
            // A slice's length fits an i64.
            args.extend([script.into(), Value::Integer(call.keys.len() as i64)]);
            args.extend(call.keys.iter().map(|key| key.as_str().into()));
            args.extend(call.args.iter().cloned());
            let command = CustomCommand::new_static(command, slot, false);
            // In a pipeline this only queues.
            let _queued: Value =
                pipeline.custom(command, args).await.map_err(|_| RedisUnavailable)?;
        }
        self.send(&pipeline, calls.len()).await
    }
}
