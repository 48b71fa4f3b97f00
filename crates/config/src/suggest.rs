//! "Did you mean": the nearest known word, tolerant of other naming habits.

/// The candidate nearest to `written`, when one is near enough to be meant.
///
/// `hostNetworking`, `host_networking` and `HOST-NETWORKING` all find `host-networking`.
pub fn nearest<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Long garbage has no near neighbour, and edit distance is quadratic.
    if written.len() > 64 {
        return None;
    }
    let written = kebab(written);
    let limit = match written.chars().count() {
        0..=2 => 1,
        3..=5 => 2,
        _ => 3,
    };
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&written, candidate), candidate))
        // Replacing every letter is no likeness.
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `camelCase`, `snake_case` and `UPPER` as kebab-case.
fn kebab(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 4);
    let mut after_lower = false;
    for letter in text.chars() {
        if letter.is_uppercase() && after_lower {
            out.push('-');
        }
        after_lower = letter.is_lowercase() || letter.is_ascii_digit();
        match letter {
            '_' | ' ' => out.push('-'),
            other => out.extend(other.to_lowercase()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn other_naming_habits_are_understood() {
        let known = ["host-networking", "memory", "cpus"];
        assert_eq!(nearest("hostNetworking", known), Some("host-networking"));
        assert_eq!(nearest("host_networking", known), Some("host-networking"));
        assert_eq!(nearest("memroy", known), Some("memory"));
        assert_eq!(nearest("zzzz", known), None);
    }
}
