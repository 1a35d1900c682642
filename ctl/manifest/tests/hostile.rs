//! Texts made to hurt: none panics, none costs much, each is answered.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use strata_manifest::{Surroundings, parse, parse_bytes};
use strata_model::limits::MANIFEST_BYTES_MAX;

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: c\n    image: a:1\n";

/// The first error, found in reasonable time.
fn refused(text: &str) -> String {
    let start = Instant::now();
    let errors = parse("x", text).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    assert!(errors.len() <= 51 && errors.iter().all(|e| e.to_string().len() < 4096), "{} errors", errors.len());
    errors[0].to_string()
}

#[test]
fn a_huge_text_is_refused_before_it_is_parsed() {
    let start = Instant::now();
    let error = refused(&"a: b\n".repeat((32 << 20) / 5));
    assert!(error.contains("at most 8 MiB are read"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn the_largest_text_that_is_read_is_read_in_bounded_time() {
    let room = MANIFEST_BYTES_MAX - POD.len() - 100;
    let comment = format!("{POD}# {}\n", "x".repeat(room));
    assert_eq!(parse("x", &comment).unwrap().documents.len(), 1);
    let argument = format!("{POD}    args: [\"{}\"]\n", "x".repeat(room));
    assert_eq!(parse("x", &argument).unwrap().documents.len(), 1);
    refused(&format!("{POD}    zzz:\n{}", "    - a\n".repeat(900_000)));
    refused(&format!("{POD}{}", (0..400_000).map(|i| format!("    k{i}: 1\n")).collect::<String>()));
    refused(&format!("{POD}    args:\n{}", "    - 1\n".repeat(900_000)));
    refused(&"---\n".repeat(2_000_000).replace("---\n---\n", "--- x\n"));
    let labels: String = (0..300_000).map(|i| format!("k{i}: '{i}', ")).collect();
    let selector = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d}}\nspec:\n  selector: {{matchLabels: {{{labels}}}}}\n  template: {{spec: {{containers: [{{name: c, image: a:1}}]}}}}\n"
    );
    assert!(refused(&selector).contains("has no label"));
    let references = format!("{POD}    args: ['{}']\n", "$(".repeat(room / 2 - 20));
    assert_eq!(parse("x", &references).unwrap().documents.len(), 1);
}

#[test]
fn deep_nesting_is_refused() {
    for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", ""), ("{[", "]}")] {
        let error = refused(&format!("a: \n {}{}", open.repeat(100_000), close.repeat(100_000)));
        assert!(error.contains("nested deeper") || error.contains("not valid YAML"), "{error}");
    }
    let block: String = (0..1000).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    assert!(refused(&block).contains("nested deeper than 64 levels"));
    let lists = format!("{}{}", "{apiVersion: v1, kind: List, items: [".repeat(40), "]}".repeat(40));
    assert!(refused(&lists).contains("nested deeper"));
}

#[test]
fn bombs_are_defused() {
    let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    let mut merges = "a0: &a0 {k0: x}\n".to_owned();
    let mut variables = format!("{POD}    env:\n    - {{name: V0, value: 0123456789abcdef}}\n").replace("0123", "z123");
    for i in 1..40 {
        let last = i - 1;
        aliases += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{last}"); 10].join(", "));
        merges += &format!("a{i}: &a{i} {{<<: *a{last}, k{i}: [*a{last}, *a{last}]}}\n");
        variables += &format!("    - {{name: V{i}, value: $(V{last})$(V{last})}}\n");
    }
    assert!(refused(&aliases).contains("more than 1000000 values"));
    assert!(refused(&merges).contains("more than 1000000 values"));
    assert!(refused(&variables).contains("larger than an object"), "{}", refused(&variables));
}

#[test]
fn hostile_compose_files_cost_little() {
    struct Big(Vec<u8>);
    impl Surroundings for Big {
        fn variable(&self, name: &str) -> Option<String> {
            (name == "BIG").then(|| "x".repeat(1 << 20))
        }
        fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
            Ok((path != ".env").then(|| self.0.clone()))
        }
        fn directory(&self) -> Option<&str> {
            Some("/srv/x")
        }
        fn profiles(&self) -> &[String] {
            &[]
        }
    }
    let refused = |text: &str, file: &[u8]| {
        let start = Instant::now();
        let errors = strata_manifest::parse_in("x", text.as_bytes(), &Big(file.to_vec())).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
        assert!(errors.len() <= 51 && errors.iter().all(|e| e.to_string().len() < 4096), "{} errors", errors.len());
        errors[0].to_string()
    };
    let one = |body: &str| format!("services:\n  a:\n    image: a:1\n{body}\n");
    let error = refused(&one(&format!("    command: ['{}']", "$BIG".repeat(100_000))), b"");
    assert!(error.contains("more than 8 MiB"), "{error}");
    let error = refused(&one(&format!("    command: '{}'", "${B:-".repeat(200_000))), b"");
    assert!(error.contains("no reference") || error.contains("nested deeper"), "{error}");
    let error = refused(&one("    ports: ['1-65535:1-65535', '1-65535:1-65535/udp']"), b"");
    assert!(error.contains("at most 256"), "{error}");
    let error = refused(&one(&format!("    env_file: [{}]", "a, ".repeat(200))), "A=1\n".repeat(200_000).as_bytes());
    assert!(error.contains("bytes, at most"), "{error}");
    let services: String = (0..20_000).map(|i| format!("  s{i}: {{image: 'a:1'}}\n")).collect();
    assert!(refused(&format!("services:\n{services}"), b"").contains("at most 1000 are read"));
    let error = refused("services: {a: {image: 'a:1'}}\nconfigs: {c: {file: big}}\n", &vec![b'x'; 2 << 20]);
    assert!(error.contains("at most"), "{error}");
    let aliases = format!(
        "services:\n  a: {{image: 'a:1', networks: {{default: {{aliases: [{}]}}}}}}\n  b: {{image: 'a:1', networks: {{default: {{aliases: [a]}}}}}}\n",
        "x, ".repeat(100_000)
    );
    assert!(refused(&aliases, b"").contains("already"));
}

#[test]
fn json_of_other_tools_is_read() {
    let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"a:1",
	"command":["a\/b","\u0041\t","😀"],"tty":true}]}}"#;
    let parsed = parse("x", text).unwrap();
    let strata_proto::types::object::Kind::Pod(pod) = parsed.documents[0].object.kind.clone().unwrap() else {
        panic!()
    };
    assert_eq!(pod.spec.unwrap().template.unwrap().containers[0].command, ["a/b", "A\t", "😀"]);
}

fn near_yaml() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a: ",
        "- ",
        "\n",
        "  ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&x ",
        "*x",
        "<<: ",
        "? ",
        ": ",
        "|\n",
        ">-\n",
        "'",
        "\"",
        "#",
        "!!str ",
        "%",
        "---\n",
        "...\n",
        "\t",
        "\r\n",
        "\\u",
        "\u{feff}",
        "é",
        "apiVersion: v1\n",
        "apiVersion: apps/v1\n",
        "kind: Pod\n",
        "kind: Deployment\n",
        "kind: Workload\n",
        "kind: Service\n",
        "kind: Secret\n",
        "services:\n",
        "  a: {image: 'a:1'}\n",
        "    ports: ['80:80']\n",
        "    environment: [A=${A:-$B}]\n",
        "    volumes: ['a:/b', './c:/d:ro']\n",
        "volumes: {a: }\n",
        "${",
        "data: {a: aGk=}\n",
        "stringData: {a: b}\n",
        "metadata: {name: p}\n",
        "meta: {name: p}\n",
        "spec:\n",
        "  template:\n",
        "    spec:\n",
        "  containers:\n",
        "  - name: c\n",
        "    image: a:1\n",
        "replicas: 3\n",
        "  selector: {matchLabels: {a: b}}\n",
        "    env: [{name: A, value: $(A)}]\n",
        "0x",
        "1e9",
        "~",
        "no",
        "50%",
        "$(",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        parse_bytes("x", &bytes).ok();
    }

    #[test]
    fn random_pieces_of_manifests_never_panic(text in near_yaml()) {
        parse("x", &text).ok();
    }

    #[test]
    fn a_manifest_with_one_bit_turned_never_panics(at in 0usize..5000, bit in 0u32..8) {
        for bytes in [
            &include_bytes!("data/good/deployment.yaml")[..],
            include_bytes!("data/good/stateful.yaml"),
            include_bytes!("data/compose/good/full/compose.yaml"),
            include_bytes!("data/compose/good/shop/docker-compose.yml"),
        ] {
            let mut bytes = bytes.to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            parse_bytes("x", &bytes).ok();
        }
    }
}
