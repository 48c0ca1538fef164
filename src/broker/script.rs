//! Lua scripts that run inside Redis, many calls in one pipeline.

use std::fmt::Write as _;

use fred::{
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Value},
    util::redis_keyslot,
};

use super::{RedisClient, RedisUnavailable};

/// Keys in one pipeline. At about 10 µs each, Redis handles them well within the command time-out and
/// without keeping other clients waiting.
pub(super) const KEYS_A_PIPELINE: usize = 500;

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
pub(crate) struct Call<'a> {
    script: &'a Script,
    keys: Vec<String>,
    args: Vec<Value>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(script: &'a Script, key: String, args: Vec<Value>) -> Self {
        Self { script, keys: vec![key], args }
    }
}

/// What a script that takes many keys is to do: the arguments of every call, and keys with their own.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub(crate) script: &'a Script,
    pub(crate) args: Vec<Value>,
    pub(crate) keys: Vec<(String, Vec<Value>)>,
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
    /// Makes these calls and returns their results in the same order. If one fails, all fail, because every
    /// write here can be repeated.
    pub(crate) async fn run(&self, calls: &[Call<'_>]) -> Result<Vec<Value>, RedisUnavailable> {
        let mut results = Vec::with_capacity(calls.len());
        let mut rest = calls;
        while !rest.is_empty() {
            let mut keys = 0;
            let fits = |call: &&Call<'_>| {
                keys += call.keys.len();
                keys <= KEYS_A_PIPELINE
            };
            // One call has far fewer.
            let part = rest.iter().take_while(fits).count().max(1);
            let (chunk, later) = rest.split_at(part);
            rest = later;
            let mut answers = self.run_by(chunk.iter(), "EVALSHA", |script| &script.sha1).await?;
            // A new or restarted server does not know the script and learns it from EVAL. Calls that
            // were answered must not run again.
            let unknown: Vec<usize> = (0..answers.len())
                .filter(|&i| matches!(&answers[i], Err(e) if e.details().starts_with("NOSCRIPT")))
                .collect();
            if !unknown.is_empty() {
                let again = unknown.iter().map(|&i| &chunk[i]);
                let learned = self.run_by(again, "EVAL", |script| &script.source).await?;
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

    /// Returns the calls that do this work: few, because a call costs a replica more than it costs Redis; in
    /// a cluster, one a key.
    pub(crate) fn together<'a>(&self, work: Work<'a>) -> Vec<Call<'a>> {
        let Work { script, args, keys } = work;
        let keys_a_call = if self.is_clustered() { 1 } else { KEYS_A_CALL };
        let mut calls: Vec<Call<'a>> = Vec::new();
        for (key, own) in keys {
            match calls.last_mut().filter(|call| call.keys.len() < keys_a_call) {
                Some(call) => {
                    call.keys.push(key);
                    call.args.extend(own);
                }
                None => calls.push(Call::new(script, key, [args.as_slice(), &own].concat())),
            }
        }
        calls
    }

    async fn run_by<'a>(
        &self,
        calls: impl ExactSizeIterator<Item = &'a Call<'a>>,
        command: &'static str,
        named: impl Fn(&Script) -> &str,
    ) -> Result<Vec<fred::interfaces::FredResult<Value>>, RedisUnavailable> {
        let pipeline = self.pipeline()?;
        let count = calls.len();
        for call in calls {
            let slot = ClusterHash::Custom(redis_keyslot(call.keys[0].as_bytes()));
            let mut args: Vec<Value> = Vec::with_capacity(2 + call.keys.len() + call.args.len());
            // A slice's length fits an i64.
            args.extend([named(call.script).into(), Value::Integer(call.keys.len() as i64)]);
            args.extend(call.keys.iter().map(|key| key.as_str().into()));
            args.extend(call.args.iter().cloned());
            let command = CustomCommand::new_static(command, slot, false);
            // In a pipeline this only queues.
            let _queued: Value =
                pipeline.custom(command, args).await.map_err(|_| RedisUnavailable)?;
        }
        self.send(&pipeline, count).await
    }
}
