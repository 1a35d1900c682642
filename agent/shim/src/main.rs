//! Parent of one pod's containers; outlives the agent

fn main() {}
