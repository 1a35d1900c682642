//! The verbs, one file each.

pub mod apply;
pub mod build;
pub mod completion;
pub mod delete;
pub mod describe;
pub mod events;
pub mod exec;
pub mod get;
pub mod image;
pub mod logs;
pub mod node;
pub mod port_forward;
pub mod run;
pub mod scale;
pub mod system;
pub mod token;
pub mod version;
pub mod wait;
