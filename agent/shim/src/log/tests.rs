#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::File;
use std::io::{Read, Seek, Write};

use super::*;

fn temporary() -> File {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let file = File::from(rustix::fs::memfd_create("log", flags).unwrap());
    rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::APPEND).unwrap();
    file
}

fn text(file: &mut File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

/// Feeds chunks through a stream; gives the lines of both files without their times.
fn check(chunks: &[&[u8]], limit: u64) -> (Vec<String>, Vec<String>) {
    let (mut a, mut b) = (temporary(), temporary());
    let mut log = LogFiles::new(a.try_clone().unwrap().into(), b.try_clone().unwrap().into(), limit).unwrap();
    let (read, write) = rustix::pipe::pipe().unwrap();
    let (mut stream, mut write) = (Stream::new(read, false, false), File::from(write));
    for chunk in chunks {
        for piece in chunk.chunks(4096) {
            write.write_all(piece).unwrap();
            stream.pump(&mut log);
        }
    }
    drop(write);
    while stream.pump(&mut log) != Progress::Ended {}
    let lines = |text: String| text.lines().map(|l| l.split_once(' ').unwrap().1.to_owned()).collect();
    (lines(text(&mut a)), lines(text(&mut b)))
}

#[test]
fn lines_are_whole_across_reads() {
    let (a, b) = check(&[b"one\ntw", b"o\n\nrest"], 1 << 20);
    assert_eq!(a, ["stdout F one", "stdout F two", "stdout F ", "stdout P rest"]);
    assert!(b.is_empty());
}

#[test]
fn a_long_line_is_written_in_parts() {
    let long = vec![b'x'; PART_BYTES * 2 + 10];
    let (a, _) = check(&[&long, b"\nnext\n"], 1 << 20);
    let lengths: Vec<_> = a.iter().map(|l| (l.as_bytes()[7], l.len() - 9)).collect();
    assert_eq!(lengths, [(b'P', PART_BYTES), (b'P', PART_BYTES), (b'F', 10), (b'F', 4)]);
}

#[test]
fn a_line_of_exactly_one_part_is_no_part() {
    let (a, _) = check(&[&vec![b'x'; PART_BYTES], b"\n"], 1 << 20);
    assert!(a.len() <= 2 && a.last().unwrap().starts_with("stdout F"));
}

#[test]
fn the_files_take_turns_and_stay_bounded() {
    let lines: Vec<u8> = (0..20_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
    let limit = MIN_LIMIT_BYTES * 2;
    let (a, b) = check(&[&lines], limit);
    let size = |lines: &[String]| lines.iter().map(|l| l.len() as u64 + 32).sum::<u64>();
    assert!(size(&a) <= limit && size(&b) <= limit && size(&a) + size(&b) > limit);
    let (older, newer) = if a.last().unwrap().ends_with("line 19999") { (b, a) } else { (a, b) };
    let number = |l: &String| l.rsplit(' ').next().unwrap().parse::<u32>().unwrap();
    let all: Vec<u32> = older.iter().chain(&newer).map(number).collect();
    assert!(all.windows(2).all(|w| w[1] == w[0] + 1), "a gap");
    assert_eq!(all.last(), Some(&19_999));
}

#[test]
fn a_full_disk_drops_lines_and_counts_them() {
    // A file that cannot grow stands for the disk that is full.
    let full = || {
        let file = rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::GROW).unwrap();
        file
    };
    let mut log = LogFiles::new(full(), full(), 1 << 20).unwrap();
    let (read, write) = rustix::pipe::pipe().unwrap();
    File::from(write).write_all(b"lost\n").unwrap();
    let mut stream = Stream::new(read, true, false);
    while stream.pump(&mut log) != Progress::Ended {}
    assert!(log.lost() > 5);
}
