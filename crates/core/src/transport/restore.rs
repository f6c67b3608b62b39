//! The command that brings an archived object back, ready to be pasted into a shell.

/// For a week: long enough to fetch it at leisure, and what AWS's own examples use.
pub(super) fn restore_command(bucket: &str, key: &str, version_id: Option<&str>) -> String {
    let mut words = vec!["aws s3api restore-object --bucket".to_owned(), shell_word(bucket)];
    words.extend(["--key".to_owned(), shell_word(key)]);
    if let Some(version_id) = version_id {
        words.extend(["--version-id".to_owned(), shell_word(version_id)]);
    }
    words.push(r#"--restore-request '{"Days":7}'"#.to_owned());
    words.join(" ")
}

/// `text` as a shell reads it back.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    if !text.chars().any(char::is_control) {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    // What a terminal must not get to see needs the one quoting that spells it out.
    let mut word = "$'".to_owned();
    for c in text.chars() {
        match c {
            '\'' | '\\' => word.extend(['\\', c]),
            _ if c.is_control() => word += &spelled(c),
            _ => word.push(c),
        }
    }
    word + "'"
}

/// Its bytes, in octal: hexadecimal digits would go on with what follows them.
fn spelled(c: char) -> String {
    let mut bytes = [0; 4];
    let bytes = c.encode_utf8(&mut bytes).bytes();
    bytes.fold(String::new(), |word, byte| word + &format!("\\{byte:03o}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_can_be_pasted() {
        let command = restore_command("logs", "2026/it's a $(trap)", Some("v.1"));
        let key = r"'2026/it'\''s a $(trap)'";
        let request = r#"'{"Days":7}'"#;
        assert_eq!(
            command,
            format!(
                "aws s3api restore-object --bucket logs --key {key} --version-id v.1 \
                 --restore-request {request}"
            )
        );
        assert!(!restore_command("b", "k", None).contains("version"));
    }

    #[test]
    fn a_shell_reads_what_was_meant() {
        for text in ["", "a b", "it's", "a\nb'c\\d", "-x", "\u{85}1", "ü*", "a\x1bb"] {
            let script = format!("printf %s {}", shell_word(text));
            let read = std::process::Command::new("bash").args(["-c", &script]).output();
            assert_eq!(read.expect("a shell").stdout, text.as_bytes(), "{script}");
        }
    }
}
