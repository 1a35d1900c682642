//! What the command line understands.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use clap::CommandFactory as _;
use std::time::Duration;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_explains_itself() {
    for verb in Cli::command().get_subcommands() {
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(about.len() > 10, "{} has no help", verb.get_name());
    }
}

#[test]
fn the_lines_of_the_contract_are_understood() {
    for line in [
        "ctl apply -f a.yaml -f dir -f - --wait --timeout 90s",
        "ctl apply --dry-run -f a.yaml",
        "ctl apply --dry-run=client -f a.yaml",
        "ctl apply --dry-run=server -f a.yaml -o json",
        "ctl get pods",
        "ctl get po web-3 -o json -n prod",
        "ctl get pods -A --all -o wide",
        "ctl get deploy -l app=web,tier=front -l x=y -w",
        "ctl get nodes -o name",
        "ctl describe workload web",
        "ctl delete workload web --wait",
        "ctl delete -f a.yaml --ignore-not-found",
        "ctl logs web-3 -f --tail 10 -c main --timestamps",
        "ctl logs --tail=-1 workload/web",
        "ctl exec -it web-3 -c main -- sh -c exit",
        "ctl exec web-3 -- ls -l",
        "ctl run busybox",
        "ctl run busybox --name x -it --rm --env A=b --env C=d -- echo -n hi",
        "ctl run nginx --detach",
        "ctl scale web --replicas 10",
        "ctl wait workload web --for ready --timeout 60s",
        "ctl wait --for=phase=Running pod/web-3",
        "ctl events -w",
        "ctl node ls -o wide",
        "ctl image ls",
        "ctl image pull nginx:1 --all-nodes",
        "ctl image import - --name a/b:1",
        "ctl image rm a/b:1 --force",
        "ctl image inspect a/b:1",
        "ctl token create --ttl 1h --uses 3",
        "ctl token ls -o json",
        "ctl system backup cluster.backup",
        "ctl system restore cluster.backup --dry-run",
        "ctl token rm 0123456789abcdef",
        "ctl completion bash",
        "ctl version --client -o json",
    ] {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
}

#[test]
fn lines_that_make_no_sense_are_refused() {
    for line in [
        "ctl",
        "ctl frobnicate",
        "ctl apply",
        "ctl apply -f a --dry-run=maybe",
        "ctl apply -f a --timeout soon",
        "ctl apply -f a --wait --dry-run",
        "ctl get",
        "ctl get pods -o xml",
        "ctl get pods -l app",
        "ctl get pods -l app!=x",
        "ctl get pods -A -n x",
        "ctl delete",
        "ctl delete pod x -f a.yaml",
        "ctl exec web-3",
        "ctl scale web",
        "ctl scale web --replicas -1",
        "ctl scale web --replicas 100001",
        "ctl wait pod x",
        "ctl run x --detach -it",
        "ctl completion tcsh",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn dry_run_alone_means_client_and_the_timeout_has_a_default() {
    let Verb::Apply(args) = parse("ctl apply --dry-run -f a").unwrap().verb else { panic!() };
    assert_eq!(args.dry_run, Some(crate::verb::apply::DryRun::Client));
    assert_eq!(args.timeout, Duration::from_secs(300));
}

#[test]
fn only_exec_and_attached_run_pass_exit_codes_on() {
    for (line, passes_on) in
        [("ctl exec x -- y", true), ("ctl run x", true), ("ctl run x --detach", false), ("ctl get pods", false)]
    {
        assert_eq!(parse(line).unwrap().passes_on_exit_codes(), passes_on, "{line}");
    }
}
