//! What the tests share: images from busybox, a registry, a running cluster
