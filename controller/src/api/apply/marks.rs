//! Labels and annotations over several applies: what an apply set and a later one leaves out goes, what others added stays.
//!
//! To tell the two apart the controller notes the keys of the last apply in an annotation of its own ([`APPLIED`]). Whoever writes back an
//! object as it was read (its uid and revision given, nothing changed since) has seen all of them: then they become just what is given.

use std::collections::{BTreeSet, HashMap};
use strata_proto::types::Meta;

/// The annotation with the keys that the last apply set: `label:app annotation:example.org/note`, sorted. Only the controller writes it.
pub(super) const APPLIED: &str = "strata.dev/applied";

const LABEL: &str = "label:";
const ANNOTATION: &str = "annotation:";

/// The meta of a new object, with the note of what it was made with.
pub(super) fn noted(mut wanted: Meta) -> Meta {
    wanted.annotations.remove(APPLIED);
    let keys = keys(&wanted);
    note(&mut wanted, &keys);
    wanted
}

/// What labels and annotations become when `wanted` is applied to `old`; the rest of `old` stays.
pub(super) fn merged(old: &Meta, mut wanted: Meta) -> Meta {
    wanted.annotations.remove(APPLIED);
    let was_read = wanted.revision != 0 && wanted.revision == old.revision && wanted.uid == old.uid;
    let (given, noted) = (keys(&wanted), read_note(old));
    let mut new = old.clone();
    new.annotations.remove(APPLIED);
    let before = keys(&new);
    let gone: &BTreeSet<String> = if was_read { &before } else { &noted };
    for key in gone.difference(&given) {
        if let Some(label) = key.strip_prefix(LABEL) {
            new.labels.remove(label);
        } else if let Some(annotation) = key.strip_prefix(ANNOTATION) {
            new.annotations.remove(annotation);
        }
    }
    new.labels.extend(wanted.labels);
    new.annotations.extend(wanted.annotations);
    // Of an object that is written back, what others added stays theirs.
    let keep = |key: &&String| !was_read || noted.contains(*key) || !before.contains(*key);
    let applied: BTreeSet<String> = given.iter().filter(keep).cloned().collect();
    note(&mut new, &applied);
    new
}

fn keys(meta: &Meta) -> BTreeSet<String> {
    let prefixed = |prefix: &str, map: &HashMap<String, String>| -> Vec<String> {
        map.keys().map(|key| format!("{prefix}{key}")).collect()
    };
    prefixed(LABEL, &meta.labels).into_iter().chain(prefixed(ANNOTATION, &meta.annotations)).collect()
}

fn read_note(meta: &Meta) -> BTreeSet<String> {
    meta.annotations.get(APPLIED).map(|note| note.split(' ').map(str::to_owned).collect()).unwrap_or_default()
}

fn note(meta: &mut Meta, keys: &BTreeSet<String>) {
    // A key with a space cannot be told apart in the note: such an annotation is not noted, and stays until it is overwritten.
    let words: Vec<&str> = keys.iter().map(String::as_str).filter(|key| !key.contains(' ')).collect();
    if !words.is_empty() {
        meta.annotations.insert(APPLIED.to_owned(), words.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(labels: &[&str], annotations: &[&str]) -> Meta {
        let map = |keys: &[&str]| keys.iter().map(|k| ((*k).to_owned(), "x".to_owned())).collect();
        Meta { uid: "u".into(), labels: map(labels), annotations: map(annotations), ..Meta::default() }
    }

    /// The keys without the note, and the note.
    fn shown(meta: &Meta) -> (String, String) {
        let mut meta = meta.clone();
        let note = meta.annotations.remove(APPLIED).unwrap_or_default();
        (keys(&meta).into_iter().collect::<Vec<_>>().join(" "), note)
    }

    #[test]
    fn what_an_apply_leaves_out_goes_and_what_others_added_stays() {
        let mut old = noted(meta(&["a", "b"], &["n", "with space"]));
        assert_eq!(shown(&old).1, "annotation:n label:a label:b");
        old.labels.insert("theirs".into(), "x".into());
        old.revision = 5;
        let new = merged(&old, Meta { uid: String::new(), ..meta(&["a", "c"], &[]) });
        let expected = ("annotation:with space label:a label:c label:theirs", "label:a label:c");
        assert_eq!(shown(&new), (expected.0.into(), expected.1.into()));
        let none = merged(&new, meta(&[], &[]));
        assert_eq!(shown(&none), ("annotation:with space label:theirs".into(), String::new()));
    }

    #[test]
    fn an_object_that_is_written_back_says_everything_and_adopts_nothing() {
        let mut old = noted(meta(&["a", "b"], &[]));
        old.labels.insert("theirs".into(), "x".into());
        old.revision = 5;
        assert_eq!(merged(&old, old.clone()), old, "as it was read: nothing changes");
        let mut edited = old.clone();
        edited.labels.remove("b");
        edited.labels.insert("new".into(), "x".into());
        assert_eq!(
            shown(&merged(&old, edited.clone())),
            ("label:a label:new label:theirs".into(), "label:a label:new".into())
        );
        edited.labels.remove("theirs");
        assert_eq!(shown(&merged(&old, edited)).0, "label:a label:new");
    }

    #[test]
    fn the_note_is_the_controllers() {
        let forged = Meta { annotations: [(APPLIED.to_owned(), "label:x".to_owned())].into(), ..meta(&["a"], &[]) };
        assert_eq!(shown(&noted(forged.clone())).1, "label:a");
        let old = noted(meta(&["a", "x"], &[]));
        assert_eq!(shown(&merged(&old, forged)), ("label:a".into(), "label:a".into()));
    }
}
