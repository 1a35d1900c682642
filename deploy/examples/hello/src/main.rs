//! The demo: a very small static web server

fn main() {}
