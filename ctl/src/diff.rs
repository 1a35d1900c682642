//! What differs between two texts, in the unified form.

/// Lines shown before and behind a change.
const CONTEXT: usize = 3;
/// Changed lines for which the shortest difference is looked for; beyond, what differs is shown as replaced.
const EDITS_MAX: usize = 1_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit {
    Same,
    Out,
    In,
}

/// The unified difference of two texts, with its two header lines; "" if there is none.
pub fn unified(old_name: &str, new_name: &str, old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let edits = edits(&old, &new);
    if edits.iter().all(|e| *e == Edit::Same) {
        return String::new();
    }
    let mut out = format!("--- {old_name}\n+++ {new_name}\n");
    let changed: Vec<usize> = (0..edits.len()).filter(|i| edits[*i] != Edit::Same).collect();
    let mut at = 0;
    while at < changed.len() {
        // A hunk: changes with less than two contexts between them.
        let mut last = at;
        while last + 1 < changed.len() && changed[last + 1] - changed[last] <= 2 * CONTEXT {
            last += 1;
        }
        let from = changed[at].saturating_sub(CONTEXT);
        let to = (changed[last] + CONTEXT + 1).min(edits.len());
        hunk(&mut out, &edits, from..to, &old, &new);
        at = last + 1;
    }
    out
}

fn hunk(out: &mut String, edits: &[Edit], range: std::ops::Range<usize>, old: &[&str], new: &[&str]) {
    let count = |edits: &[Edit], not: Edit| edits.iter().filter(|e| **e != not).count();
    let (before, here) = (&edits[..range.start], &edits[range]);
    let (mut i, mut j) = (count(before, Edit::In), count(before, Edit::Out));
    let (left, right) = (count(here, Edit::In), count(here, Edit::Out));
    // An empty side names the line before it.
    let first = |at: usize, len: usize| if len == 0 { at } else { at + 1 };
    out.push_str(&format!("@@ -{},{left} +{},{right} @@\n", first(i, left), first(j, right)));
    for edit in here {
        let (sign, line) = match edit {
            Edit::Same => (' ', old[i]),
            Edit::Out => ('-', old[i]),
            Edit::In => ('+', new[j]),
        };
        i += usize::from(*edit != Edit::In);
        j += usize::from(*edit != Edit::Out);
        out.extend([sign]);
        out.push_str(line);
        out.push('\n');
    }
}

/// How the new lines come out of the old ones.
fn edits(old: &[&str], new: &[&str]) -> Vec<Edit> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[head..], &new[head..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    let mut edits = vec![Edit::Same; head];
    edits.extend(shortest(old, new).unwrap_or_else(|| {
        let mut all = vec![Edit::Out; old.len()];
        all.extend(vec![Edit::In; new.len()]);
        all
    }));
    edits.extend(vec![Edit::Same; tail]);
    edits
}

/// The shortest way (E. Myers, "An O(ND) difference algorithm and its variations"); `None` if it is longer than [`EDITS_MAX`].
fn shortest(old: &[&str], new: &[&str]) -> Option<Vec<Edit>> {
    let (n, m) = (old.len(), new.len());
    let most = (n + m).min(EDITS_MAX);
    let middle = most + 1;
    // How far in the old text each diagonal has come, after each number of edits.
    let mut reached = vec![0usize; 2 * most + 3];
    let mut steps: Vec<Vec<usize>> = Vec::new();
    for d in 0..=most {
        steps.push(reached.clone());
        for k in (middle - d..=middle + d).step_by(2) {
            let down = k == middle - d || (k != middle + d && reached[k - 1] < reached[k + 1]);
            let mut x = if down { reached[k + 1] } else { reached[k - 1] + 1 };
            // y = x - (k - middle); what lies outside of the new text is no place.
            let Some(mut y) = (x + middle).checked_sub(k) else { continue };
            while x < n && y < m && old[x] == new[y] {
                (x, y) = (x + 1, y + 1);
            }
            reached[k] = x;
            if x >= n && y >= m {
                return Some(walk_back(&steps, d, n, m, middle));
            }
        }
    }
    None
}

/// The edits in order; `steps[d]` is how far each diagonal had come before edit `d`.
fn walk_back(steps: &[Vec<usize>], edits: usize, n: usize, m: usize, middle: usize) -> Vec<Edit> {
    let (mut x, mut y) = (n, m);
    let mut found = Vec::new();
    for d in (1..=edits).rev() {
        let reached = &steps[d];
        let k = x + middle - y;
        let down = k == middle - d || (k != middle + d && reached[k - 1] < reached[k + 1]);
        let before = if down { k + 1 } else { k - 1 };
        let (from_x, from_y) = (reached[before], reached[before] + middle - before);
        let (start_x, edit) = if down { (from_x, Edit::In) } else { (from_x + 1, Edit::Out) };
        found.extend(vec![Edit::Same; x - start_x]);
        found.push(edit);
        (x, y) = (from_x, from_y);
    }
    found.extend(vec![Edit::Same; x]);
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_shown_with_what_is_around_them() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\nm\n";
        let new = "a\nb\nC\nd\ne\nf\ng\nh\ni\nj\nk\nm\nn\n";
        let want =
            "--- old\n+++ new\n@@ -1,6 +1,6 @@\n a\n b\n-c\n+C\n d\n e\n f\n@@ -9,5 +9,5 @@\n i\n j\n k\n-l\n m\n+n\n";
        assert_eq!(unified("old", "new", old, new), want);
        assert_eq!(unified("old", "new", old, old), "");
        assert_eq!(unified("o", "n", "", "x\ny\n"), "--- o\n+++ n\n@@ -0,0 +1,2 @@\n+x\n+y\n");
        assert_eq!(unified("o", "n", "x\n", ""), "--- o\n+++ n\n@@ -1,1 +0,0 @@\n-x\n");
    }

    /// The new text comes out of the old one by the edits, whatever the two are.
    #[test]
    fn edits_lead_from_one_text_to_the_other() {
        let mut seed = 7u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize
        };
        let words = ["a", "b", "c", "d"];
        for _ in 0..2000 {
            let old: Vec<&str> = (0..next() % 12).map(|_| words[next() % 4]).collect();
            let new: Vec<&str> = (0..next() % 12).map(|_| words[next() % 4]).collect();
            let (mut i, mut made) = (0, Vec::new());
            let mut j = 0;
            let edits = edits(&old, &new);
            for edit in &edits {
                match edit {
                    Edit::Same => {
                        assert_eq!(old[i], new[j]);
                        made.push(old[i]);
                        (i, j) = (i + 1, j + 1);
                    }
                    Edit::Out => i += 1,
                    Edit::In => {
                        made.push(new[j]);
                        j += 1;
                    }
                }
            }
            assert_eq!((made, i, j), (new.clone(), old.len(), new.len()));
            assert_eq!(edits.iter().filter(|e| **e != Edit::Same).count(), distance(&old, &new), "{old:?} {new:?}");
        }
    }

    /// Insertions and deletions at least, by the textbook's table.
    fn distance(old: &[&str], new: &[&str]) -> usize {
        let mut table = vec![vec![0; new.len() + 1]; old.len() + 1];
        for i in 0..=old.len() {
            for j in 0..=new.len() {
                table[i][j] = match (i, j) {
                    (0, n) | (n, 0) => n,
                    _ if old[i - 1] == new[j - 1] => table[i - 1][j - 1],
                    _ => 1 + table[i - 1][j].min(table[i][j - 1]),
                };
            }
        }
        table[old.len()][new.len()]
    }

    #[test]
    fn texts_that_have_nothing_in_common_cost_little() {
        let text = |word: &str| (0..30_000).map(|i| format!("{word}{i}\n")).collect::<String>();
        let started = std::time::Instant::now();
        let shown = unified("o", "n", &text("a"), &text("b"));
        assert_eq!(shown.lines().count(), 60_003);
        assert!(started.elapsed() < std::time::Duration::from_secs(10));
    }
}
