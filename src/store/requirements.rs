//! The requirements of the schema and its statements on the database.

use super::{StoreError, row::Row};

/// The oldest supported version, as `server_version_num`: the oldest one that still gets fixes.
const OLDEST_VERSION: i32 = 140_000;

/// Required settings of a session. Beseda sets them itself, unless a pooler refuses settings.
const SETTINGS: [(&str, &str); 2] =
    [("default_transaction_isolation", "read committed"), ("standard_conforming_strings", "on")];

/// The properties of the database that are checked.
#[derive(Debug)]
struct Facts {
    version: i32,
    /// The version as it is shown to operators.
    version_name: String,
    encoding: String,
    /// The schema of new tables; `None` if `search_path` names no existing schema.
    schema: Option<String>,
    synchronous_commit: String,
    /// In the order of [`SETTINGS`].
    settings: [String; 2],
}

/// Must run on a connection of the kind to be checked, because settings belong to the session.
pub(super) const FACTS: &str = "\
-- store.facts
SELECT current_setting('server_version_num')::int AS version,
       current_setting('server_version') AS version_name,
       current_setting('server_encoding') AS encoding, current_schema()::text AS schema,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('default_transaction_isolation') AS default_transaction_isolation,
       current_setting('standard_conforming_strings') AS standard_conforming_strings";

/// Checks the row of [`FACTS`]. The error lists every fault with its remedy.
pub(super) fn judge(rows: &[Row]) -> Result<(), StoreError> {
    let Some(row) = rows.first() else { return Ok(()) };
    let facts = Facts {
        version: row.get("version"),
        version_name: row.get("version_name"),
        encoding: row.get("encoding"),
        schema: row.get("schema"),
        synchronous_commit: row.get("synchronous_commit"),
        settings: SETTINGS.map(|(name, _)| row.get(name)),
    };
    match faults(&facts) {
        faults if faults.is_empty() => Ok(()),
        faults => Err(StoreError::Schema(faults.join("; "))),
    }
}

fn faults(facts: &Facts) -> Vec<String> {
    let mut faults = Vec::new();
    if facts.version < OLDEST_VERSION {
        faults.push(format!(
            "this is PostgreSQL {}: {} or newer is needed",
            facts.version_name,
            OLDEST_VERSION / 10_000
        ));
    }
    if facts.encoding != "UTF8" {
        faults.push(format!(
            "the database's encoding is {}: it must be UTF8, which only a new one can have (CREATE \
             DATABASE … ENCODING 'UTF8' TEMPLATE template0)",
            facts.encoding
        ));
    }
    if facts.schema.is_none() {
        faults.push("search_path names no schema that exists: CREATE SCHEMA makes one".to_owned());
    }
    if facts.synchronous_commit == "off" {
        // A crash would then lose acknowledged commits; with all other values it does not.
        faults.push(
            "synchronous_commit is off, so that a crash takes what was acknowledged: ALTER ROLE … \
             SET synchronous_commit = on"
                .to_owned(),
        );
    }
    for ((name, needed), found) in SETTINGS.iter().zip(&facts.settings) {
        if found != needed {
            faults.push(format!(
                "{name} is {found}: ALTER ROLE … SET {name} = '{needed}' mends that"
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit() -> Facts {
        Facts {
            version: 140_000,
            version_name: "14.0".to_owned(),
            encoding: "UTF8".to_owned(),
            schema: Some("public".to_owned()),
            synchronous_commit: "remote_apply".to_owned(),
            settings: SETTINGS.map(|(_, needed)| needed.to_owned()),
        }
    }

    #[test]
    fn an_old_server_is_told_apart_from_one_that_will_do() {
        assert_eq!(faults(&fit()), [""; 0]);
        let old = Facts { version: 130_018, version_name: "13.18 (Debian)".to_owned(), ..fit() };
        assert_eq!(faults(&old), ["this is PostgreSQL 13.18 (Debian): 14 or newer is needed"]);
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let wrong = Facts {
            encoding: "LATIN1".to_owned(),
            schema: None,
            synchronous_commit: "off".to_owned(),
            settings: ["serializable".to_owned(), "off".to_owned()],
            ..fit()
        };
        let said = faults(&wrong);
        assert_eq!(said.len(), 5, "{said:?}");
    }
}
