//! Workloads to pods, purely
