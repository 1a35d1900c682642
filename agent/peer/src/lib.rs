//! Layer and blob exchange between agents
