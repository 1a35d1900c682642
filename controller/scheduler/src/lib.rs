//! Pods to nodes, purely
