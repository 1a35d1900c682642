#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;

const SMALL: &str = "node = \"n1\"\ncontroller = \"10.0.0.1:7070\"\nstate_dir = \"/var/lib/strata\"\n";

fn parse(text: &str, env: &[(&str, &str)]) -> Result<Config, String> {
    let env = |name: &str| env.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
    Config::parse(Path::new("agent.toml"), text, env).map_err(|e| e.to_string())
}

#[test]
fn three_keys_are_enough() {
    let config = parse(SMALL, &[]).unwrap();
    assert_eq!(config.listen.port(), 7071);
    assert_eq!(config.id_start, 1 << 20);
}

#[test]
fn the_environment_wins() {
    let env = [
        ("STRATA_NODE", "n2"),
        ("STRATA_LABELS", "zone=a,disk=ssd"),
        ("STRATA_ID_START", "131072"),
        ("STRATA_CAPACITY_PODS", "7"),
    ];
    let config = parse(SMALL, &env).unwrap();
    assert_eq!((config.node.as_str(), config.id_start, config.capacity.pods), ("n2", 131_072, Some(7)));
    assert_eq!(config.labels["disk"], "ssd");
}

#[test]
fn what_is_wrong_is_named() {
    for (more, env, want) in [
        ("nodee = 1\n", ("", ""), "nodee"),
        ("listen = 7\n", ("", ""), "listen"),
        ("id_start = 1000\n", ("", ""), "id_start"),
        ("advertise = \"0.0.0.0\"\n", ("", ""), "advertise"),
        ("cgroup_parent = \"a/../b\"\n", ("", ""), "cgroup_parent"),
        ("bridge = \"averyveryverylongname\"\n", ("", ""), "bridge"),
        ("token = \"a\"\ntoken_file = \"/b\"\n", ("", ""), "token"),
        ("", ("STRATA_NODE", "UP"), "node"),
        ("", ("STRATA_CONTROLLER", "here"), "controller"),
        ("", ("STRATA_STATE_DIR", "rel"), "state_dir"),
        ("", ("STRATA_ID_START", "x"), "STRATA_ID_START"),
        ("[capacity]\npods = 0\n", ("", ""), "capacity.pods"),
    ] {
        let error = parse(&format!("{SMALL}{more}"), &[env]).unwrap_err();
        assert!(error.contains(want), "{more} {env:?}: {error}");
    }
}

#[test]
fn every_setting_is_documented_and_can_be_overridden() {
    // The parser itself names all that it knows.
    for (unknown, table) in [(format!("{SMALL}zzz = 1\n"), ""), (format!("{SMALL}[capacity]\nzzz = 1\n"), "capacity_")]
    {
        let error = parse(&unknown, &[]).unwrap_err();
        let known: Vec<&str> = error.split("expected one of").nth(1).unwrap().split('`').skip(1).step_by(2).collect();
        assert!(known.len() >= 3, "{error}");
        let text = include_str!("../../../deploy/config/agent.toml");
        for key in known.into_iter().filter(|k| *k != "capacity") {
            let documented = |l: &str| {
                let l = l.strip_prefix("#: ").unwrap_or(l);
                l.starts_with(&format!("{key} = ")) || l == format!("[{key}]")
            };
            assert!(text.lines().any(documented), "{key} is not documented");
            let overridden = super::environment::keys().any(|k| k == format!("{table}{key}"));
            assert!(overridden, "STRATA_* cannot set {table}{key}");
        }
    }
}

#[test]
fn the_documented_file_names_every_key_and_parses() {
    let text = include_str!("../../../deploy/config/agent.toml");
    parse(text, &[]).unwrap();
    // With every commented key switched on it parses, too: no key in it is unknown.
    let all: String = text.lines().map(|l| l.strip_prefix("#: ").unwrap_or(l)).map(|l| format!("{l}\n")).collect();
    let config = parse(&all.replace("token_file =", "# token_file ="), &[]).unwrap();
    assert!(
        config.token.is_some()
            && config.shim.is_some()
            && config.capacity.pods.is_some()
            && config.metrics_listen.is_some()
    );
}
