//! Checks the whole database for what must always hold. Reads only, with one statement per check and page,
//! so that each check sees one snapshot of a running system.

mod checks;

use std::fmt;

use tokio_postgres::{Client, types::Type};
use uuid::Uuid;

use super::{StoreError, connect::connect};
use crate::config::DatabaseConfig;

/// Chats per statement. With large chats, one takes some seconds.
const PAGE: i64 = 1_000;

/// Examples kept for each check; further faults are only counted.
const KEPT: usize = 20;

/// The faults that one check found.
#[derive(Debug)]
pub struct Finding {
    pub check: &'static str,
    pub count: usize,
    /// The first faults, each with its chat.
    pub examples: Vec<String>,
}

/// The result of all checks.
#[derive(Debug, Default)]
pub struct Verified {
    pub chats: u64,
    /// The checks that failed.
    pub findings: Vec<Finding>,
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{}: {} wrong", finding.check, finding.count)?;
            for example in &finding.examples {
                writeln!(f, "  {example}")?;
            }
        }
        match self.findings.len() {
            0 => write!(f, "{} chats looked at: all is well", self.chats),
            n => write!(f, "{} chats looked at: {n} checks failed", self.chats),
        }
    }
}

/// Checks every chat. It is safe beside a running service: no write in flight can cause a finding.
pub async fn verify(config: &DatabaseConfig) -> Result<Verified, StoreError> {
    let client = connect(config).await?;
    let mut verified = Verified::default();
    for (check, sql) in checks::WHOLE {
        verified.look(&client, check, sql, &[]).await?;
    }
    let mut after = Uuid::nil();
    loop {
        let page =
            client.query_typed(PAGE_END, &[(&after, Type::UUID), (&PAGE, Type::INT8)]).await?;
        let (count, end): (i64, Option<Uuid>) =
            page.first().map_or((0, None), |row| (row.get("chats"), row.get("last")));
        verified.chats += count.unsigned_abs();
        // The last page goes up to the greatest id, to find rows whose chat does not exist.
        let last = if count < PAGE { Uuid::max() } else { end.unwrap_or(Uuid::max()) };
        for (check, sql) in checks::BY_CHAT {
            verified.look(&client, check, sql, &[after, last]).await?;
        }
        if count < PAGE {
            return Ok(verified);
        }
        after = last;
    }
}

impl Verified {
    async fn look(
        &mut self,
        client: &Client,
        check: &'static str,
        sql: &'static str,
        page: &[Uuid],
    ) -> Result<(), StoreError> {
        let params: Vec<_> = page.iter().map(|id| (id as _, Type::UUID)).collect();
        let rows = client.query_typed(sql, &params).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let known = self.findings.iter().position(|finding| finding.check == check);
        let known = known.unwrap_or_else(|| {
            self.findings.push(Finding { check, count: 0, examples: Vec::new() });
            self.findings.len() - 1
        });
        let finding = &mut self.findings[known];
        finding.count += rows.len();
        let room = KEPT.saturating_sub(finding.examples.len());
        finding.examples.extend(rows.iter().take(room).map(|row| row.get("example")));
        Ok(())
    }
}

const PAGE_END: &str = "\
-- store.verify_page
SELECT count(*) AS chats, (array_agg(chat_id ORDER BY chat_id DESC))[1] AS last
  FROM (SELECT chat_id FROM chats WHERE chat_id > $1 ORDER BY chat_id LIMIT $2) page";
