//! The form of a guest's answer, taken apart strictly: a line that is none of ours refuses it all.

use std::collections::BTreeMap;

/// Why an answer tells nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A line that is neither a header nor content.
    #[error("could not read the guest's answer: line {0} is none of ours")]
    Line(usize),
    /// It was cut off.
    #[error("could not read the guest's answer: its end is missing")]
    NoEnd,
}

/// What the guest says its files hold; none for one it cannot read.
pub(super) type Files<'a> = BTreeMap<&'a str, Option<Vec<&'a str>>>;

pub(super) fn parse(text: &str) -> Result<Files<'_>, AnswerError> {
    let mut files = Files::new();
    let mut ended = false;
    for (number, line) in text.lines().enumerate() {
        if ended {
            return Err(AnswerError::Line(number + 1));
        }
        match line.split_at_checked(1) {
            Some(("@", name)) => drop(files.insert(name, Some(Vec::new()))),
            Some(("!", name)) => drop(files.insert(name, None)),
            Some((".", "")) => ended = true,
            _ => {
                let told = line.split_once(':').and_then(|(name, content)| {
                    files.get_mut(name)?.as_mut().map(|lines| lines.push(content))
                });
                told.ok_or(AnswerError::Line(number + 1))?;
            }
        }
    }
    if ended { Ok(files) } else { Err(AnswerError::NoEnd) }
}
