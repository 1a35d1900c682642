//! "Did you mean ...?"

/// The candidate that is most like `word`, if one is like enough.
pub(crate) fn suggest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    let candidates: Vec<&str> = candidates.into_iter().collect();
    let part_of_other = |c: &&str| {
        let c = c.to_lowercase();
        let (short, long) = if c.len() < lower.len() { (&c, &lower) } else { (&lower, &c) };
        short.len() >= 3 && (long.starts_with(short.as_str()) || long.ends_with(short.as_str()))
    };
    let near = candidates
        .iter()
        .copied()
        .map(|c| (distance(&lower, &c.to_lowercase()), c))
        .filter(|(d, c)| *d <= (c.len().min(word.len()) / 3).max(1))
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c);
    near.or_else(|| candidates.iter().copied().filter(part_of_other).max_by_key(|c| c.len()))
}

/// " (did you mean `x`?)" or nothing.
pub(crate) fn did_you_mean<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
    suggest(word, candidates).map(|c| format!(" (did you mean `{c}`?)")).unwrap_or_default()
}

/// Edits that turn one word into the other: insert, delete, replace, swap neighbours (Damerau, optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let fields = ["image", "command", "args", "readOnlyRootFilesystem", "env"];
        for (word, want) in [
            ("imagee", Some("image")),
            ("iamge", Some("image")),
            ("Image", Some("image")),
            ("readonlyRootFileSystem", Some("readOnlyRootFilesystem")),
            ("arg", Some("args")),
            ("imageName", Some("image")),
            ("myReadOnlyRootFilesystem", Some("readOnlyRootFilesystem")),
            ("rootFilesystem", Some("readOnlyRootFilesystem")),
            ("nodes", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(suggest(word, fields), want, "{word}");
        }
    }
}
