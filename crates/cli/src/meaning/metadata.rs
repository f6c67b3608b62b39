//! User metadata as `aws s3` takes it: `NAME=VALUE`, several separated by commas, or a JSON object.
//!
//! A comma always separates, as it does there, so that a line copied from an `aws` script means the
//! same; a value that holds one is given as JSON.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::failure::Usage;

/// All of `typed` together. A name given twice is an error: which one was meant?
pub(super) fn parse(typed: &[String]) -> Result<BTreeMap<String, String>> {
    let mut metadata = BTreeMap::new();
    for text in typed {
        for (name, value) in pairs(text)? {
            check(&name, &value)?;
            // Names are headers: stores compare and return them in lower case.
            if metadata.insert(name.to_ascii_lowercase(), value).is_some() {
                return Err(Usage::error(format!("--metadata gives {name} twice; give it once")));
            }
        }
    }
    Ok(metadata)
}

fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    if text.trim_start().starts_with('{') {
        let object: BTreeMap<String, String> = serde_json::from_str(text).map_err(|error| {
            Usage::error(format!(
                "--metadata is no JSON object of texts ({error}); write for example \
                 '{{\"team\":\"red, blue\"}}'"
            ))
        })?;
        return Ok(object.into_iter().collect());
    }
    text.split(',')
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(Usage::error(format!(
                "--metadata has no '=' in {pair:?}; write NAME=VALUE, or a JSON object for a \
                 value with commas"
            ))),
        })
        .collect()
}

/// Names and values travel as headers, and S3 takes only ASCII there.
fn check(name: &str, value: &str) -> Result<()> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(is_token) {
        return Err(Usage::error(format!(
            "--metadata has the name {name:?}; a name is made of letters, digits, '-', '_' and '.'"
        )));
    }
    if !value.chars().all(|c| c.is_ascii() && !c.is_ascii_control()) {
        return Err(Usage::error(format!(
            "--metadata gives {name} a value that is not printable ASCII, which S3 does not keep; \
             encode it, in base64 for example"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(typed: &[&str]) -> Result<Vec<(String, String)>> {
        let typed: Vec<String> = typed.iter().map(ToString::to_string).collect();
        Ok(parse(&typed)?.into_iter().collect())
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn all_three_forms_add_up() {
        let read = read(&["Team=red", "a=1,b=x=y", r#"{"note":"red, blue"}"#]).expect("fine");
        let expected =
            [pair("a", "1"), pair("b", "x=y"), pair("note", "red, blue"), pair("team", "red")];
        assert_eq!(read, expected);
    }

    #[test]
    fn what_cannot_be_a_header_is_refused() {
        for (typed, part) in [
            (&["a"][..], "no '=' in \"a\""),
            (&["a=1,b"], "no '=' in \"b\""),
            (&["=1"], "the name \"\""),
            (&["a b=1"], "the name \"a b\""),
            (&["a=ü"], "not printable ASCII"),
            (&["a=1\r\nx: y"], "not printable ASCII"),
            (&["a=1", "A=2"], "gives A twice"),
            (&["{\"a\":1}"], "no JSON object of texts"),
        ] {
            let said = read(typed).expect_err("refused").to_string();
            assert!(said.contains(part), "{said}");
        }
    }
}
