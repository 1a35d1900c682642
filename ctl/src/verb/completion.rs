use crate::{cli::Cli, exit::Failure, output};
use clap::CommandFactory as _;
use clap_complete::Shell;

/// Print the completion script of a shell.
///
/// Examples:
///   source <(ctl completion bash)
///   ctl completion fish > ~/.config/fish/completions/ctl.fish
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

pub fn perform(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ctl", &mut script);
    output::print_bytes(&script)
}
