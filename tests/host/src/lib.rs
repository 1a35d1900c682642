//! Tests on the real kernel: layers, runtime, network
