//! The details of all rows, in the form that the page's script reads.

use std::fmt;

use serde_json::Value;

/// The details of all rows, as a JSON array. Each is written at once, because the values take
/// several times the memory of their text.
#[derive(Debug, Default)]
pub(super) struct Details {
    json: String,
    rows: usize,
}

impl Details {
    /// Returns the number of rows.
    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    /// Adds the details of the next row.
    pub(super) fn push(&mut self, details: &Value) {
        if self.rows > 0 {
            self.json.push(',');
        }
        self.json.push_str(&embedded(details));
        self.rows += 1;
    }
}

impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", self.json)
    }
}

/// Formats JSON for a script element: characters that could end the element or begin a comment are
/// escaped.
fn embedded(json: &Value) -> String {
    json.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_value_ends_the_script() {
        let json = embedded(&Value::from("</script><!--&\u{2028}\""));
        assert_eq!(json, "\"\\u003c/script\\u003e\\u003c!--\\u0026\u{2028}\\\"\"");
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap_or_default(), "</script><!--&\u{2028}\"");
    }
}
