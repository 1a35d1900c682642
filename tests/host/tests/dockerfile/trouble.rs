//! What cannot be built says why, and leaves nothing.

use strata_build::BuildRequest;

use super::lab::{Lab, private, sh};

fn error(lab: &Lab, context: &std::path::Path, text: &str) -> String {
    let error = lab.build(context, text).built.unwrap_err().to_string();
    lab.assert_clean();
    error
}

#[test]
fn errors_name_line_and_instruction() {
    let lab = Lab::new();
    let context = lab.context("mkdir d; echo a > a; echo b > b; ln -s loop loop; ln -s a into");
    for (text, expect) in [
        (
            "FROM scratch\nCOPY a b /x\n",
            "Dockerfile:2: COPY a b /x: 2 sources are copied, so the destination \"/x\" must be a directory",
        ),
        ("FROM scratch\nCOPY no* /x/\n", "Dockerfile:2: COPY no* /x/: \"no*\" is not in the context"),
        (
            "FROM scratch\nCOPY a /d/x\nCOPY a /d/x/y\n",
            "Dockerfile:3: COPY a /d/x/y: opening (a part of it is no directory)",
        ),
        ("FROM scratch\nCOPY a /x\nCOPY d /x\n", "/x is no directory in the image"),
        (
            "FROM scratch\nCOPY a /y/x/d/z\nFROM scratch\nCOPY a /x/d\nCOPY --from=0 /y/ /\n",
            "/x/d is no directory in the image",
        ),
        ("FROM scratch\nCOPY loop /x\n", "following links of /loop in the context failed"),
        ("FROM scratch\nCOPY --chown=nobody a /x\n", "Dockerfile:2: COPY --chown=nobody a /x: "),
        ("FROM scratch\nCOPY --chmod=9 a /x\n", "--chmod=9 is no octal mode"),
        ("FROM scratch\nCOPY --from=nothere a /x\n", "nothere:latest is nowhere"),
        ("FROM nothere\n", "Dockerfile:1: FROM nothere: docker.io/library/nothere:latest is nowhere"),
        (
            "FROM scratch\nCOPY a /x\nRUN echo said; exit 9\n",
            "Dockerfile:3: RUN echo said; exit 9: the command ended with exit code 9",
        ),
        (
            "FROM scratch\nENV A=\"${B?is needed}\"\n",
            "Dockerfile:2: ENV A=\"${B?is needed}\": the variable B is not set: is needed",
        ),
        ("FROM scratch\nEXPOSE x\n", "\"x\" is no port"),
        ("FROM scratch\nSTOPSIGNAL SIGNONE\n", "\"SIGNONE\" is no signal"),
    ] {
        let error = error(&lab, &context, text);
        assert!(error.contains(expect), "{text}: {error}");
    }
}

#[test]
fn hostile_contexts_are_refused_or_harmless() {
    let lab = Lab::new();
    let context = lab.context("mkdir in; echo x > in/x; ln -s / root; ln -s ../../../../../../../../etc/passwd up; ln -s /proc/self/root/etc magic");
    for source in ["root/etc/passwd", "up", "magic/passwd", "../../etc/passwd", "in/../../etc/passwd"] {
        let error = error(&lab, &context, &format!("FROM scratch\nCOPY {source} /x\n"));
        assert!(error.contains("is not in the context"), "{source}: {error}");
    }
    // A tar that no sane program makes: paths that climb out, devices, files below links.
    let marker = lab.path("marker");
    for script in [
        format!("tar -cPf - --transform 's,^x,../../../../../..{},' x", marker.display()),
        "mkdir d; ln -s /tmp d/l; tar -cf t d; rm -r d; mkdir -p d/l; echo evil > d/l/evil-strata; tar -rf t d/l/evil-strata; cat t".to_owned(),
        "mknod null c 1 3; mknod wh c 0 0; tar -cf - null wh".to_owned(),
    ] {
        let dir = lab.context("echo x > x");
        let tar = std::process::Command::new("bash").args(["-euc", &script]).current_dir(&dir).output().unwrap().stdout;
        let request = BuildRequest { dockerfile_text: Some("FROM scratch\nCOPY . /all/\n".into()), ..BuildRequest::default() };
        // Refused or built: nothing may come out.
        drop(lab.build_tar(&tar, &request));
        assert!(!marker.exists() && !std::path::Path::new("/tmp/evil-strata").exists(), "{script}");
        lab.assert_clean();
    }
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    private();
    let outer = tempfile::Builder::new().prefix("strata-build-full-").tempdir().unwrap();
    let image = outer.path().join("disk");
    let small = tempfile::Builder::new().prefix("small-").tempdir_in(outer.path()).unwrap();
    let place = small.path().to_owned();
    sh(
        outer.path(),
        &format!(
            "truncate -s 24M {0}; mkfs.ext4 -q -O ^has_journal {0}; mount -o loop {0} {1}",
            image.display(),
            place.display()
        ),
    );
    {
        let lab = Lab::below(tempfile::Builder::new().prefix("lab-").tempdir_in(&place).unwrap());
        let context = lab.context("head -c 6M /dev/urandom > big");
        // The context, and one copy fit; the second does not.
        let error =
            lab.build(&context, "FROM scratch\nCOPY big /one\nRUN head -c 20M /dev/urandom > two\n").built.unwrap_err();
        assert!(error.to_string().contains("Dockerfile:3") || error.reason() == "NoSpace", "{error}");
        lab.assert_clean();
        sh(&context, "head -c 5M /dev/urandom > more");
        let error = lab.build(&context, "FROM scratch\nCOPY more /two\n").built.unwrap_err();
        assert_eq!(error.reason(), "NoSpace", "{error}");
        assert!(error.to_string().contains("no space left"), "{error}");
        lab.assert_clean();
    }
    sh(outer.path(), &format!("umount -l {}", place.display()));
}
