//! DNS for the pods of this node: names of services are a pure function of what the controller told ([`Names`]), all other names are asked of
//! the node's own resolvers ([`serve`]).

mod names;
mod server;

pub use names::{Answer, Data, Names, Question};
pub use server::serve;
