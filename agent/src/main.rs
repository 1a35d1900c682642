//! The agent: makes one node match its assignments

fn main() {}
