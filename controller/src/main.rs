//! The controller: keeps what should run, decides where

fn main() {}
