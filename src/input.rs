//! Parses what clients send: JSON objects and query strings. Errors name every invalid field.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::{
    error::{Error, FieldErrors},
    json::compact,
    model::{Time, UserId},
};

/// What an id that is none is told.
pub const NOT_A_USER_ID: &str = "must have 1 to 128 characters, none of them a control character";

/// Checks a user id.
pub fn check_user_id(raw: &str) -> Result<(), &'static str> {
    UserId::parse(raw).map(|_| ()).ok_or(NOT_A_USER_ID)
}

/// A JSON object whose fields are taken one by one; the rest is ignored.
#[derive(Debug, Default)]
pub struct Fields {
    values: BTreeMap<String, Box<RawValue>>,
    errors: FieldErrors,
}

impl Fields {
    /// Parses an object: `invalid_json` unless it is JSON in UTF-8, `validation_failed` unless it
    /// is an object. Of duplicate keys the last counts.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(body)
            .map_err(|error| Error::InvalidJson(format!("not UTF-8: {error}")))?;
        match serde_json::from_str(text) {
            Ok(values) => Ok(Self { values, errors: FieldErrors::default() }),
            Err(error) if error.classify() == serde_json::error::Category::Data => {
                Err(Error::field("body", "must be a JSON object"))
            }
            Err(error) => Err(Error::InvalidJson(error.to_string())),
        }
    }

    /// Whether a field is present; null counts as missing.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name) && !self.is_null(name)
    }

    /// Takes a required string.
    pub fn required_string(
        &mut self,
        name: &str,
        check: impl Fn(&str) -> Result<(), &'static str>,
    ) -> Option<String> {
        if !self.values.contains_key(name) {
            self.errors.add(name, "is required");
            return None;
        }
        if self.is_null(name) {
            self.errors.add(name, "must be a string");
            return None;
        }
        self.optional_string(name, check)
    }

    /// Takes a string; `None` if it is missing or null.
    pub fn optional_string(
        &mut self,
        name: &str,
        check: impl Fn(&str) -> Result<(), &'static str>,
    ) -> Option<String> {
        let raw = self.take(name)?;
        let Ok(text) = serde_json::from_str::<String>(raw.get()) else {
            self.errors.add(name, "must be a string of Unicode text");
            return None;
        };
        match check(&text) {
            Ok(()) => Some(text),
            Err(reason) => {
                self.errors.add(name, reason);
                None
            }
        }
    }

    /// Takes an integer of at least `min`, if present.
    pub fn optional_integer(&mut self, name: &str, min: i64) -> Option<i64> {
        let raw = self.take(name)?;
        match serde_json::from_str::<i64>(raw.get()) {
            Ok(value) if value >= min => Some(value),
            Ok(_) => {
                self.errors.add(name, format!("must be at least {min}"));
                None
            }
            Err(_) => {
                self.errors.add(name, "must be an integer");
                None
            }
        }
    }

    /// Takes an integer within inclusive bounds, if present.
    pub fn bounded_integer(&mut self, name: &str, min: i64, max: i64) -> Option<i64> {
        let raw = self.take(name)?;
        let value = serde_json::from_str(raw.get()).ok().filter(|it| (min..=max).contains(it));
        if value.is_none() {
            self.errors.add(name, format!("must be an integer from {min} to {max}"));
        }
        value
    }

    /// Takes a boolean, if present.
    pub fn optional_bool(&mut self, name: &str) -> Option<bool> {
        let raw = self.take(name)?;
        let value = serde_json::from_str(raw.get()).ok();
        if value.is_none() {
            self.errors.add(name, "must be true or false");
        }
        value
    }

    /// Takes a word of a closed set, if present; `words` names the set for the error.
    pub fn optional_word<T: DeserializeOwned>(&mut self, name: &str, words: &str) -> Option<T> {
        let raw = self.take(name)?;
        let value = serde_json::from_str(raw.get()).ok();
        if value.is_none() {
            self.errors.add(name, format!("must be {words}"));
        }
        value
    }

    /// Takes a time in the future (RFC 3339), if present. By this machine's clock: bounds of time need no
    /// more.
    pub fn future_time(&mut self, name: &str) -> Option<Time> {
        let raw = self.take(name)?;
        let Ok(time) = serde_json::from_str::<Time>(raw.get()) else {
            self.errors.add(name, "must be a time in RFC 3339");
            return None;
        };
        if time.0 <= jiff::Timestamp::now() {
            self.errors.add(name, "must be in the future");
            return None;
        }
        Some(time)
    }

    /// Takes a user id, if present.
    pub fn optional_user_id(&mut self, name: &str) -> Option<UserId> {
        let raw = self.optional_string(name, check_user_id)?;
        UserId::parse(&raw)
    }

    /// Takes a list of at most `max` user ids, if present. Each faulty one is named by its place.
    pub fn optional_user_ids(&mut self, name: &str, max: usize) -> Option<Vec<UserId>> {
        let ids = self.optional_strings(name)?;
        if ids.len() > max {
            self.errors.add(name, format!("must have {max} items at most"));
            return None;
        }
        let parsed: Vec<UserId> = ids.iter().filter_map(|raw| UserId::parse(raw)).collect();
        if parsed.len() < ids.len() {
            for (place, raw) in
                ids.iter().enumerate().filter(|(_, raw)| UserId::parse(raw).is_none())
            {
                let reason = check_user_id(raw).err().unwrap_or(NOT_A_USER_ID);
                self.errors.add(&format!("{name}[{place}]"), reason);
            }
            return None;
        }
        Some(parsed)
    }

    /// Takes an object as fields of their own, if present. Give it back to [`Self::nest`].
    pub fn optional_fields(&mut self, name: &str) -> Option<Fields> {
        let raw = self.take(name)?;
        let values = serde_json::from_str(raw.get()).ok();
        if values.is_none() {
            self.errors.add(name, "must be an object");
        }
        values.map(|values| Fields { values, errors: FieldErrors::default() })
    }

    /// Adds the errors of the object `name`.
    pub fn nest(&mut self, name: &str, inner: Fields) {
        self.errors.nest(name, inner.errors);
    }

    /// Takes a field that null clears: `None` if it is missing, `Some(None)` if it is null.
    pub fn clearable<T>(
        &mut self,
        name: &str,
        take: impl FnOnce(&mut Self, &str) -> Option<T>,
    ) -> Option<Option<T>> {
        self.values.contains_key(name).then(|| take(self, name))
    }

    /// Whether a field is given, null or not.
    pub fn is_given(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Takes a required boolean.
    pub fn required_bool(&mut self, name: &str) -> Option<bool> {
        let value = self.take(name).and_then(|raw| serde_json::from_str(raw.get()).ok());
        if value.is_none() {
            self.errors.add(name, "must be true or false");
        }
        value
    }

    /// Takes a JSON object, if present: as sent if it has at most `max_bytes`, else in its
    /// [`compact`] form, which must fit. So the limit does not depend on how a client's library
    /// writes JSON.
    pub fn object(&mut self, name: &str, max_bytes: usize) -> Option<Box<RawValue>> {
        let raw = self.take(name)?;
        // Refuses values that many parsers reject: lone surrogates, numbers beyond the range of a
        // double, more than 127 levels.
        if serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(raw.get()).is_err() {
            self.errors.add(name, "must be a JSON object, or null");
            return None;
        }
        if raw.get().len() <= max_bytes {
            return Some(raw);
        }
        let compact = compact(&raw).ok().filter(|compact| compact.get().len() <= max_bytes);
        if compact.is_none() {
            self.errors.add(name, format!("must have {max_bytes} bytes of JSON at most"));
        }
        compact
    }

    /// Takes a required list of objects.
    pub fn required_list(&mut self, name: &str, max: usize) -> Vec<Fields> {
        let Some(raw) = self.take(name) else {
            self.errors.add(name, "is required");
            return Vec::new();
        };
        let Ok(items) = serde_json::from_str::<Vec<BTreeMap<String, Box<RawValue>>>>(raw.get())
        else {
            self.errors.add(name, "must be a list of objects");
            return Vec::new();
        };
        if items.is_empty() || items.len() > max {
            self.errors.add(name, format!("must have 1 to {max} items"));
            return Vec::new();
        }
        items.into_iter().map(|values| Fields { values, errors: FieldErrors::default() }).collect()
    }

    /// Takes a list of strings, if present.
    pub fn optional_strings(&mut self, name: &str) -> Option<Vec<String>> {
        let raw = self.take(name)?;
        let list = serde_json::from_str(raw.get()).ok();
        if list.is_none() {
            self.errors.add(name, "must be a list of strings");
        }
        list
    }

    /// Takes any value as sent; null counts as missing.
    pub fn take(&mut self, name: &str) -> Option<Box<RawValue>> {
        self.values.remove(name).filter(|raw| raw.get() != "null")
    }

    pub fn refuse(&mut self, name: &str, reason: impl Into<String>) {
        self.errors.add(name, reason);
    }

    /// Returns all errors, if any.
    pub fn finish(self) -> Result<(), Error> {
        self.errors.finish()
    }

    /// Returns the errors so far, to be reported under another name.
    pub fn into_errors(self) -> FieldErrors {
        self.errors
    }

    fn is_null(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|raw| raw.get() == "null")
    }
}

/// The parameters of a query string; those not taken are ignored.
#[derive(Debug, Default)]
pub struct Params {
    values: BTreeMap<String, String>,
    errors: FieldErrors,
}

impl Params {
    pub fn parse(query: &str) -> Self {
        let values = url::form_urlencoded::parse(query.as_bytes())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        Self { values, errors: FieldErrors::default() }
    }

    pub fn string(&mut self, name: &str) -> Option<String> {
        self.values.remove(name)
    }

    /// Takes a word of a closed set; `words` names the set for the error.
    pub fn word<T: DeserializeOwned>(&mut self, name: &str, words: &str) -> Option<T> {
        let raw = self.values.remove(name)?;
        let value = serde_json::from_value(serde_json::Value::String(raw)).ok();
        if value.is_none() {
            self.errors.add(name, format!("must be {words}"));
        }
        value
    }

    /// Takes an integer within inclusive bounds.
    pub fn integer(&mut self, name: &str, min: i64, max: i64) -> Option<i64> {
        let raw = self.values.remove(name)?;
        match raw.parse::<i64>() {
            Ok(value) if (min..=max).contains(&value) => Some(value),
            _ if max == i64::MAX => {
                self.errors.add(name, format!("must be an integer of at least {min}"));
                None
            }
            _ => {
                self.errors.add(name, format!("must be an integer from {min} to {max}"));
                None
            }
        }
    }

    pub fn refuse(&mut self, name: &str, reason: impl Into<String>) {
        self.errors.add(name, reason);
    }

    pub fn finish(self) -> Result<(), Error> {
        self.errors.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Notify;

    fn fields(body: &str) -> Fields {
        Fields::parse(body.as_bytes()).expect("an object")
    }

    fn at_fault(fields: Fields) -> Vec<String> {
        match fields.finish() {
            Err(Error::Validation(fields)) => fields.into_iter().map(|one| one.field).collect(),
            other => panic!("expected field errors, got {other:?}"),
        }
    }

    #[test]
    fn each_id_at_fault_is_named_by_its_place() {
        let mut body = fields(r#"{"user_ids":["a","","b","c\u0001"]}"#);
        assert_eq!(body.optional_user_ids("user_ids", 4), None);
        assert_eq!(at_fault(body), ["user_ids[1]", "user_ids[3]"]);
        let mut body = fields(r#"{"user_ids":["a","b"]}"#);
        assert_eq!(body.optional_user_ids("user_ids", 1), None);
        assert_eq!(at_fault(body), ["user_ids"]);
    }

    #[test]
    fn null_clears_what_may_be_cleared_and_what_is_missing_stays() {
        let string = |body: &mut Fields, name: &str| body.optional_string(name, |_| Ok(()));
        let mut body = fields(r#"{"a":null,"b":"x"}"#);
        assert_eq!(body.clearable("a", string), Some(None));
        assert_eq!(body.clearable("b", string), Some(Some("x".to_owned())));
        assert_eq!(body.clearable("c", string), None);
        assert!(body.finish().is_ok());
    }

    #[test]
    fn errors_of_an_inner_object_carry_its_name() {
        let mut body = fields(r#"{"settings":{"slow":-1},"notify":"some"}"#);
        let mut inner = body.optional_fields("settings").expect("an object");
        assert_eq!(inner.bounded_integer("slow", 0, 5), None);
        body.nest("settings", inner);
        assert_eq!(body.optional_word::<Notify>("notify", "all, mentions or none"), None);
        assert_eq!(at_fault(body), ["settings.slow", "notify"]);
    }

    #[test]
    fn only_a_time_to_come_bounds_something() {
        let mut body =
            fields(r#"{"a":"2020-01-01T00:00:00Z","b":"soon","c":"9000-01-01T00:00:00Z"}"#);
        let times = ["a", "b", "c"].map(|name| body.future_time(name).is_some());
        assert_eq!(times, [false, false, true]);
        assert_eq!(at_fault(body), ["a", "b"]);
    }
}
