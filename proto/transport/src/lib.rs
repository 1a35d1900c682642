//! Mutual-TLS channels and servers, certificates and join tokens
