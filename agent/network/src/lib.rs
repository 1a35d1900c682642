//! Addresses, bridge, veth and routes of a node
