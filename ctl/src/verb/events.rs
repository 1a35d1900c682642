use crate::{
    exit::Failure,
    kind::parse_targets,
    output::{self, Format, Number},
    session::Session,
    verb::{
        describe::is_about,
        get::{self, sort},
    },
};
use strata_client::Selection;
use strata_proto::types::Kind;

/// Show what happened, oldest first.
///
/// Examples:
///   ctl events
///   ctl events --for pod/web-3
///   ctl events -A -w
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Only events about one object
    #[arg(long = "for", value_name = "KIND/NAME", conflicts_with = "watch")]
    pub about: Option<String>,
    /// How to show them
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// Go on showing new ones
    #[arg(short, long)]
    pub watch: bool,
}

impl Args {
    pub fn check(&self) -> Result<(), Failure> {
        self.subject().map(drop)
    }

    fn subject(&self) -> Result<Option<(Kind, String)>, Failure> {
        let Some(about) = &self.about else { return Ok(None) };
        match parse_targets(std::slice::from_ref(about))? {
            (kind, names) if names.len() == 1 => Ok(names.into_iter().next().map(|name| (kind, name))),
            _ => Err(Failure::usage(format!("--for {about:?}: write KIND/NAME, as in pod/web-3"))),
        }
    }
}

pub async fn perform(args: &Args, session: &Session) -> Result<(), Failure> {
    if args.watch {
        let args =
            get::Args { targets: vec!["event".into()], output: args.output, selector: vec![], watch: true, all: false };
        return get::perform(&args, session).await;
    }
    let namespace = session.namespace_to_list(Kind::Event).to_owned();
    let mut events = session.client.list(Kind::Event, &Selection { namespace, ..Default::default() }).await?.objects;
    if let Some((kind, name)) = args.subject()? {
        events.retain(|event| is_about(event, kind, &name));
    }
    sort(&mut events);
    if events.is_empty() && matches!(args.output, Format::Table | Format::Wide) {
        output::talk("no events");
        return Ok(());
    }
    let now_ms = output::now_ms();
    output::print(&output::render(Kind::Event, &events, Number::Many, args.output, session.all_namespaces, now_ms)?)
}
