//! Parses what clients send: JSON objects and query strings. Errors name every invalid field.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::{
    error::{Error, FieldErrors},
    json::compact,
};

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
