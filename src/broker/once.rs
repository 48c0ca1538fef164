//! One-time claims, for tickets.

use fred::{
    interfaces::KeysInterface,
    types::{Expiration, SetOptions, Value},
};

use super::{RedisClient, RedisUnavailable};

/// Expiry of a claim, in seconds: twice a ticket's minute, because clocks differ.
const REMEMBERED_SECONDS: i64 = 120;

impl RedisClient {
    /// Returns true to the first caller with this name, on any replica, and false to all others.
    pub async fn claim_once(&self, name: &str) -> Result<bool, RedisUnavailable> {
        let pipeline = self.pipeline()?;
        let key = self.key(name);
        let options = (Some(Expiration::EX(REMEMBERED_SECONDS)), Some(SetOptions::NX));
        // In a pipeline this only queues.
        pipeline
            .set::<(), _, _>(key, 1, options.0, options.1, false)
            .await
            .map_err(|_| RedisUnavailable)?;
        match self.send(&pipeline, 1).await?.into_iter().next() {
            Some(Ok(Value::Null)) => Ok(false),
            Some(Ok(_)) => Ok(true),
            _ => Err(RedisUnavailable),
        }
    }
}
