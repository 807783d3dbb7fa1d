//! Fills `{{placeholders}}` in configuration files of peers.

/// Replaces every `{{key}}`; an unknown key or an unclosed bracket is an error.
pub(crate) fn fill_template(template: &str, values: &[(&str, &str)]) -> Result<String, String> {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, from_key)) = rest.split_once("{{") {
        let (key, after) =
            from_key.split_once("}}").ok_or_else(|| "a {{ without its }}".to_owned())?;
        let (_, value) = values
            .iter()
            .find(|(known, _)| *known == key)
            .ok_or_else(|| format!("nothing to put for {{{{{key}}}}}"))?;
        filled.push_str(before);
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}
