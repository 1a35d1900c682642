#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;

fn only_step(line: &str) -> Action {
    let text = format!("FROM scratch\n{line}");
    let mut file = Dockerfile::parse("Dockerfile", &text).unwrap_or_else(|e| panic!("{line}: {e}"));
    file.stages.remove(0).steps.remove(0).action
}

fn list(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn stages_have_names_lines_and_texts() {
    let text = "# syntax=docker/dockerfile:1\nARG V=1\nFROM --platform=linux/amd64 busybox:$V AS Build\nRUN a \\\n  # comment\n\n  b\nFROM scratch\n\nCOPY --from=build /x \\\n /y\n";
    let file = Dockerfile::parse("D", text).unwrap();
    assert_eq!(file.global_args, [(2, vec![("V".into(), Some("1".into()))])]);
    let stages: Vec<_> = file.stages.iter().map(|s| (s.line, s.image.as_str(), s.name.as_deref())).collect();
    assert_eq!(stages, [(3, "busybox:$V", Some("build")), (8, "scratch", None)]);
    assert_eq!(file.stages[0].platform.as_deref(), Some("linux/amd64"));
    let run = &file.stages[0].steps[0];
    assert_eq!((run.line, run.text.as_str()), (4, "RUN a b"));
    assert_eq!(run.action, Action::Run(Run { command: Command::Shell("a   b".into()), network: true }));
    let copy = &file.stages[1].steps[0];
    assert_eq!((copy.line, copy.text.as_str()), (10, "COPY --from=build /x /y"));
}

#[test]
fn instructions_are_read_as_docker_does() {
    assert_eq!(only_step("CMD [\"a\", \"b c\"]"), Action::Cmd(Command::Exec(list(&["a", "b c"]))));
    assert_eq!(only_step("CMD a \"b\""), Action::Cmd(Command::Shell("a \"b\"".into())));
    assert_eq!(
        only_step("RUN [ -f x ]"),
        Action::Run(Run { command: Command::Shell("[ -f x ]".into()), network: true })
    );
    let env = |pairs: &[(&str, &str)]| Action::Env(pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect());
    assert_eq!(only_step("ENV A=\"x y\" B=c\\ d"), env(&[("A", "\"x y\""), ("B", "c\\ d")]));
    assert_eq!(only_step("ENV A the  rest = it"), env(&[("A", "the  rest = it")]));
    assert_eq!(only_step("VOLUME /a /b"), Action::Volume(list(&["/a", "/b"])));
    assert_eq!(only_step("VOLUME [\"/a b\"]"), Action::Volume(list(&["/a b"])));
    let Action::Healthcheck(check) = only_step("HEALTHCHECK --interval=1m30s --timeout=500ms --retries=4 CMD true")
    else {
        panic!()
    };
    assert_eq!(
        (check.interval_ns, check.timeout_ns, check.retries),
        (Some(90_000_000_000), Some(500_000_000), Some(4))
    );
    assert_eq!(only_step("HEALTHCHECK NONE"), Action::Healthcheck(Healthcheck::default()));
    assert_eq!(only_step("ONBUILD COPY . /x"), Action::Onbuild("COPY . /x".into()));
    let Action::Copy(copy) = only_step("COPY --chown=1:2 --chmod=644 --from=x a b /c/") else { panic!() };
    assert_eq!(
        (copy.from.as_deref(), copy.chown.as_deref(), copy.chmod.as_deref()),
        (Some("x"), Some("1:2"), Some("644"))
    );
    assert_eq!(copy.sources, [CopySource::Path("a".into()), CopySource::Path("b".into())]);
    let Action::Copy(copy) = only_step("COPY <<one.txt <<\"two\" /d/\nhello $A\none.txt\nraw $A\ntwo\n") else {
        panic!()
    };
    let texts = [
        CopySource::Text("one.txt".into(), "hello $A\n".into(), true),
        CopySource::Text("two".into(), "raw $A\n".into(), false),
    ];
    assert_eq!(copy.sources, texts);
}

#[test]
fn here_documents_of_run_are_commands() {
    let run = |text: &str| match only_step(text) {
        Action::Run(Run { command: Command::Shell(text), .. }) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(run("RUN <<EOF\nset -e\necho $A\nEOF\nCMD x"), "set -e\necho $A");
    assert_eq!(run("RUN cat <<EOF > /x && ls\na\nEOF\nCMD x"), "cat <<EOF > /x && ls\na\nEOF");
}

#[test]
fn escape_directive_changes_the_character() {
    let file = Dockerfile::parse("D", "# escape=`\nFROM scratch\nCOPY a `\n  b\\c\n").unwrap();
    let Action::Copy(copy) = &file.stages[0].steps[0].action else { panic!() };
    assert_eq!((copy.dest.as_str(), file.escape), ("b\\c", '`'));
}

#[test]
fn errors_name_file_and_line() {
    for (text, expect) in [
        ("FROM scratch\n\nFOO bar\n", "D:3: unknown instruction 'FOO'"),
        ("FROM scratch\nCOPY a\n", "D:2: COPY instruction requires at least two arguments"),
        ("RUN x\n", "D:1: expected FROM"),
        ("", "D:1: expected at least one FROM instruction"),
        ("FROM scratch\nRUN --mount=type=cache,target=/x y\n", "D:2: RUN --mount is not built yet"),
        ("FROM scratch\nCOPY --parents a b\n", "D:2: the flag --parents is not known or not built yet"),
        ("FROM scratch\nENV =x\n", "D:2: ENV: \"=x\" is not NAME=VALUE"),
        ("FROM scratch\nRUN a <<E\nx\n", "D:2: the here-document has no line \"E\""),
        ("FROM scratch\nHEALTHCHECK --interval=x CMD y\n", "D:2: \"x\" is no duration"),
        ("FROM scratch AS a\nFROM scratch AS a\n", "D:2: duplicate stage name 'a'"),
        ("FROM scratch\nRUN --security=insecure x\n", "D:2: RUN --security=insecure is not allowed"),
        ("FROM scratch\nADD --from=x a b\n", "D:2: ADD has no --from"),
    ] {
        let error = Dockerfile::parse("D", text).unwrap_err().to_string();
        assert!(error.starts_with(expect), "{text:?}: {error}");
    }
}
