//! What COPY, ADD and WORKDIR make, where, with which attributes.

use strata_build::{BuildRequest, Event};

use super::lab::{Lab, listing, sh};

const CONTEXT: &str = "umask 022; mkdir -p dir/sub 'sp ace' many; echo a > a.txt; echo b > b.txt; echo c > dir/c; echo d > dir/sub/d; chmod 750 dir; \
     chmod 700 dir/sub; chmod 600 dir/c; ln -s c dir/link; ln -s ../../../../etc/passwd dir/out; ln -s dir dirlink; ln -s a.txt filelink; echo s > 'sp ace/s'; \
     ln a.txt many/h1; ln a.txt many/h2; touch -d '2020-01-02 03:04:05.5' b.txt; printf 'dir/sub\\n' > .dockerignore.later";

#[test]
fn copies_go_where_docker_puts_them() {
    let lab = Lab::new();
    let context = lab.context(CONTEXT);
    for (steps, expect) in [
        ("COPY a.txt /x", "x 644 0:0 f\n"),
        ("COPY a.txt /x/", "x 755 0:0 d\nx/a.txt 644 0:0 f\n"),
        ("COPY a.txt /x/y/z", "x 755 0:0 d\nx/y 755 0:0 d\nx/y/z 644 0:0 f\n"),
        ("COPY a.txt b.txt /x/", "x 755 0:0 d\nx/a.txt 644 0:0 f\nx/b.txt 644 0:0 f\n"),
        ("COPY ?.txt /", "a.txt 644 0:0 f\nb.txt 644 0:0 f\n"),
        (
            "COPY *link /x/",
            "x 750 0:0 d\nx/c 600 0:0 f\nx/filelink 644 0:0 f\nx/link 777 0:0 lc\nx/out 777 0:0 l../../../../etc/passwd\nx/sub 700 0:0 d\nx/sub/d 644 0:0 f\n",
        ),
        (
            "COPY dir /x",
            "x 750 0:0 d\nx/c 600 0:0 f\nx/link 777 0:0 lc\nx/out 777 0:0 l../../../../etc/passwd\nx/sub 700 0:0 d\nx/sub/d 644 0:0 f\n",
        ),
        ("COPY dir/s*/d /x", "x 644 0:0 f\n"),
        ("COPY [\"sp ace/s\", \"/t o/\"]", "t o 755 0:0 d\nt o/s 644 0:0 f\n"),
        ("COPY --chown=12:34 --chmod=0711 dir/sub /x", "x 711 12:34 d\nx/d 711 12:34 f\n"),
        ("COPY --chown=12 a.txt /n/x", "n 755 12:12 d\nn/x 644 12:12 f\n"),
        (
            "WORKDIR /w/o\nCOPY a.txt .\nCOPY a.txt y",
            "w 755 0:0 d\nw/o 755 0:0 d\nw/o/a.txt 644 0:0 f\nw/o/y 644 0:0 f\n",
        ),
        ("COPY a.txt /x/x\nCOPY b.txt /x", "x 755 0:0 d\nx/b.txt 644 0:0 f\nx/x 644 0:0 f\n"),
        ("COPY a.txt /x\nCOPY b.txt /x", "x 644 0:0 f\n"),
        ("USER 5\nWORKDIR /mine\nCOPY a.txt .", "mine 755 5:5 d\nmine/a.txt 644 0:0 f\n"),
        ("ENV D=/e\nARG F=a.txt\nCOPY $F ${D}/${X:-n}/", "e 755 0:0 d\ne/n 755 0:0 d\ne/n/a.txt 644 0:0 f\n"),
        ("COPY <<A <<B /t/\n1\nA\n2\nB", "t 755 0:0 d\nt/A 644 0:0 f\nt/B 644 0:0 f\n"),
        ("COPY /a.txt ../dir/../b.txt /q/", "q 755 0:0 d\nq/a.txt 644 0:0 f\nq/b.txt 644 0:0 f\n"),
    ] {
        let root = lab.built(&context, &format!("FROM scratch\n{steps}\n"));
        assert_eq!(listing(&root), expect, "{steps}");
    }
    lab.assert_clean();
}

#[test]
fn what_is_there_keeps_its_attributes() {
    let lab = Lab::new();
    let context = lab.context(CONTEXT);
    let base = "FROM scratch AS first\nRUN mkdir -m 1777 tmp; mkdir -p usr/bin; chmod 711 usr; chown 3:4 usr; ln -s usr/bin bin; ln -s /usr/lost lost; setfattr -n user.k -v v usr\n";
    let root = lab.built(&context, &format!("{base}COPY a.txt /tmp/\nCOPY dir/ /bin/\nCOPY b.txt /usr/bin/x/\nCOPY a.txt /lost/y\nFROM first\nCOPY --from=0 /usr /again\n"));
    let all = listing(&root);
    for line in [
        "tmp 1777 0:0 d",
        "tmp/a.txt 644 0:0 f",
        "usr 711 3:4 d",
        "bin 777 0:0 lusr/bin",
        "usr/bin/sub 700 0:0 d",
        "usr/bin/x/b.txt 644 0:0 f",
        "usr/lost/y 644 0:0 f",
        "again 711 0:0 d",
    ] {
        assert!(all.lines().any(|own| own == line), "{line} is missing in\n{all}");
    }
    assert_eq!(
        sh(&root, "stat -c '%Y %y' usr/bin/x/b.txt; getfattr --only-values -n user.k usr"),
        "1577934245 2020-01-02 03:04:05.500000000 +0000\nv"
    );
}

#[test]
fn hard_links_stay_within_one_copy() {
    let lab = Lab::new();
    let context = lab.context(CONTEXT);
    let root = lab.built(&context, "FROM scratch\nCOPY many /m\nCOPY a.txt /\n");
    assert_eq!(sh(&root, "stat -c %h m/h1 a.txt | tr '\\n' ' '; cat m/h1 m/h2"), "2 1 a\na\n");
}

#[test]
fn ignored_files_do_not_exist() {
    let lab = Lab::new();
    let context = lab
        .context(&format!("{CONTEXT}; printf 'dir\\n!dir/sub/d\\n*.txt\\n!b.txt\\n.dockerignore*\\n' > .dockerignore"));
    let root = lab.built(&context, "FROM scratch\nCOPY . /x\n");
    let all = listing(&root);
    assert!(
        all.contains("x/dir/sub/d ")
            && all.contains("x/b.txt ")
            && !all.contains("x/dir/c")
            && !all.contains("x/a.txt "),
        "{all}"
    );
    assert!(!all.contains(".dockerignore"), "{all}");
    let error = lab.build(&context, "FROM scratch\nCOPY a.txt /\n").built.unwrap_err().to_string();
    assert!(error.contains("\"a.txt\" is not in the context (or the .dockerignore leaves it out)"), "{error}");
}

#[test]
fn archives_are_unpacked_with_their_owners() {
    let lab = Lab::new();
    let script = "mkdir in; echo a > in/a; mkdir -m 700 in/d; tar --owner=5 --group=6 --numeric-owner -C in -cf t.tar .; gzip -k t.tar; zstd -q t.tar; cp t.tar.gz any.name; \
         echo plain | gzip > text.gz; xz -k t.tar";
    let context = lab.context(script);
    for archive in ["t.tar", "t.tar.gz", "t.tar.zst", "any.name"] {
        let root = lab.built(&context, &format!("FROM scratch\nADD {archive} /x\n"));
        assert_eq!(listing(&root), "x 755 0:0 d\nx/a 644 5:6 f\nx/d 700 5:6 d\n", "{archive}");
    }
    let root = lab.built(&context, "FROM scratch\nADD text.gz in/a /x/\nCOPY t.tar /\n");
    assert_eq!(listing(&root), "t.tar 644 0:0 f\nx 755 0:0 d\nx/a 644 0:0 f\nx/text.gz 644 0:0 f\n");
    let error = lab.build(&context, "FROM scratch\nADD t.tar.xz /\n").built.unwrap_err().to_string();
    assert!(error.contains("bzip2 or xz"), "{error}");
    lab.assert_clean();
}

#[test]
fn same_input_is_the_same_image_and_the_cache_sees_content_only() {
    let one = Lab::new();
    let two = Lab::beside();
    let context = one.context(CONTEXT);
    let text = "FROM scratch\nCOPY dir /x\nWORKDIR /x/y\nCOPY b.txt .\nENV A=1\nCMD [\"x\"]\n";
    let digest = |lab: &Lab| lab.build(&context, text).built.unwrap().image.digest.clone();
    let first = digest(&one);
    assert_eq!(first, digest(&two));
    // Touched, but the same: cached, and the same image.
    sh(&context, "touch dir/c b.txt");
    let again = one.build(&context, text);
    assert_eq!(again.events.iter().filter(|event| **event == Event::Cached).count(), 3);
    assert_eq!(again.built.unwrap().image.digest, first);
    // With SOURCE_DATE_EPOCH times say nothing at all.
    let request = || BuildRequest {
        dockerfile_text: Some(text.to_owned()),
        args: [("SOURCE_DATE_EPOCH".to_owned(), "1000000000".to_owned())].into(),
        no_cache: true,
        ..BuildRequest::default()
    };
    let built = one.build_tar(&one.tar(&context), &request()).built.unwrap();
    sh(&context, "touch dir/c b.txt");
    assert_eq!(one.build_tar(&one.tar(&context), &request()).built.unwrap().image.digest, built.image.digest);
    assert_eq!(built.image.config.created().as_deref(), Some("2001-09-09T01:46:40Z"));
    // Content counts.
    sh(&context, "echo more >> dir/c");
    let changed = one.build(&context, text);
    assert_eq!(changed.events.iter().filter(|event| **event == Event::Cached).count(), 0);
}

#[test]
fn configs_have_what_the_dockerfile_says() {
    let lab = Lab::new();
    let context = lab.context("echo x > x");
    let text = "ARG G=global\nFROM scratch AS base\nARG G\nENV A=\"$G x\" B=2\nLABEL l=\"$A\"\nUSER 7:8\nEXPOSE 80 53/udp\nVOLUME /v /w\n\
         HEALTHCHECK --interval=5s CMD probe it\nSTOPSIGNAL SIGUSR1\nSHELL [\"/bin/bash\", \"-c\"]\nCMD echo hi\nENTRYPOINT [\"/e\"]\n\
         FROM base\nENTRYPOINT run it\nENV B=3\n";
    let image = lab.build(&context, text).built.unwrap().image;
    let config = image.config.config().clone().unwrap();
    assert_eq!(config.env().clone().unwrap(), ["A=global x", "B=3"]);
    assert_eq!(config.labels().clone().unwrap()["l"], "global x");
    assert_eq!(config.user().as_deref(), Some("7:8"));
    assert_eq!(config.entrypoint().clone().unwrap(), ["/bin/bash", "-c", "run it"]);
    // The base's command goes with the base's entry point.
    assert_eq!(config.cmd().clone().unwrap_or_default(), Vec::<String>::new());
    assert_eq!(config.stop_signal().as_deref(), Some("SIGUSR1"));
    let bytes = lab.images.read_blob(&image.config_digest).unwrap().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(json["config"]["Healthcheck"]["Test"], serde_json::json!(["CMD-SHELL", "probe it"]));
    assert_eq!(json["config"]["ExposedPorts"], serde_json::json!({"53/udp": {}, "80/tcp": {}}));
    assert_eq!(json["history"].as_array().unwrap().len(), 13);
    assert!(image.layers.is_empty());
}
