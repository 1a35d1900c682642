//! OCI runtime spec and host facts to an InitPlan, and its launch
