//! Writes JSON. Bytes become hexadecimal strings, so that every one of them is told.

use std::fmt::Write;

/// An object that is being written.
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn new() -> Self {
        Self("{".into())
    }

    /// Adds a member whose value is JSON already.
    pub(crate) fn raw(&mut self, key: &str, value: &str) -> &mut Self {
        let separator = if self.0.len() > 1 { "," } else { "" };
        let _ = write!(self.0, "{separator}\"{key}\":{value}");
        self
    }

    /// Adds a number, a boolean, or null.
    pub(crate) fn value(&mut self, key: &str, value: impl ToString) -> &mut Self {
        let value = value.to_string();
        self.raw(key, &value)
    }

    /// Adds a number, or null.
    pub(crate) fn optional(&mut self, key: &str, value: Option<impl ToString>) -> &mut Self {
        let value = value.map_or_else(|| "null".into(), |value| value.to_string());
        self.raw(key, &value)
    }

    /// Adds bytes.
    pub(crate) fn bytes(&mut self, key: &str, value: &[u8]) -> &mut Self {
        let value = bytes(value);
        self.raw(key, &value)
    }

    /// Adds a list of numbers.
    pub(crate) fn list(&mut self, key: &str, values: impl IntoIterator<Item = impl ToString>) -> &mut Self {
        let value = list(values.into_iter().map(|value| value.to_string()));
        self.raw(key, &value)
    }

    pub(crate) fn end(&self) -> String {
        format!("{}}}", self.0)
    }
}

/// A list of values that are JSON already.
pub(crate) fn list(values: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", values.into_iter().collect::<Vec<_>>().join(","))
}

/// Bytes as a hexadecimal string.
pub(crate) fn bytes(value: &[u8]) -> String {
    let mut out = String::from("\"");
    for byte in value {
        let _ = write!(out, "{byte:02x}");
    }
    out + "\""
}
