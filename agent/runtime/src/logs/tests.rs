#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write;

use super::*;

fn line(second: u32, stream: &str, tag: &str, text: &str) -> String {
    format!("2026-01-01T00:00:{second:02}.000000000Z {stream} {tag} {text}\n")
}

async fn texts(dir: &Path, options: ReadOptions) -> Vec<String> {
    let mut entries = read(dir, "c", options);
    let mut texts = Vec::new();
    while let Some(entry) = entries.recv().await {
        texts.push(String::from_utf8(entry.unwrap().text).unwrap());
    }
    texts
}

fn write(dir: &Path, which: usize, lines: &[String]) {
    std::fs::write(&paths(dir, "c")[which], lines.concat()).unwrap();
}

#[tokio::test]
async fn both_files_are_read_in_the_order_of_time() {
    let dir = tempfile::tempdir().unwrap();
    assert!(texts(dir.path(), ReadOptions::default()).await.is_empty());
    write(dir.path(), 0, &[line(3, "stdout", "F", "c"), line(4, "stderr", "F", "d")]);
    write(dir.path(), 1, &[line(1, "stdout", "F", "a"), "torn\n".into(), line(2, "stdout", "F", "b"), "no end".into()]);
    assert_eq!(texts(dir.path(), ReadOptions::default()).await, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_tail_counts_whole_lines_across_files() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 0, &[line(1, "stdout", "F", "a"), line(2, "stdout", "P", "b1"), line(2, "stdout", "F", "b2")]);
    write(dir.path(), 1, &[line(3, "stdout", "F", "c"), line(4, "stdout", "F", "d")]);
    for (tail, expected) in
        [(0, vec![]), (1, vec!["d"]), (3, vec!["b1", "b2", "c", "d"]), (9, vec!["a", "b1", "b2", "c", "d"])]
    {
        assert_eq!(texts(dir.path(), ReadOptions { tail: Some(tail), follow: None }).await, expected, "tail {tail}");
    }
}

#[tokio::test]
async fn a_follower_sees_the_files_change_and_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let [mut a, mut b] = open(dir.path(), "c").unwrap();
    a.write_all(line(1, "stdout", "F", "a").as_bytes()).unwrap();
    let (ended, follow) = watch::channel(false);
    let mut entries = read(dir.path(), "c", ReadOptions { tail: None, follow: Some(follow) });
    assert_eq!(entries.recv().await.unwrap().unwrap().text, b"a");
    a.write_all(line(2, "stdout", "F", "b").as_bytes()).unwrap();
    b.write_all(line(3, "stdout", "F", "c").as_bytes()).unwrap();
    assert_eq!(entries.recv().await.unwrap().unwrap().text, b"b");
    assert_eq!(entries.recv().await.unwrap().unwrap().text, b"c");
    // The writer comes round: a is emptied and written again.
    a.set_len(0).unwrap();
    a.write_all(line(4, "stdout", "F", "d").as_bytes()).unwrap();
    assert_eq!(entries.recv().await.unwrap().unwrap().text, b"d");
    a.write_all(line(5, "stderr", "P", "e").as_bytes()).unwrap();
    ended.send(true).unwrap();
    let last = entries.recv().await.unwrap().unwrap();
    assert_eq!((last.stderr, last.partial, last.bytes()), (true, true, b"e".to_vec()));
    assert!(entries.recv().await.is_none());
}
