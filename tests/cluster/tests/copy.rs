//! Copies into and out of containers, and what a container has changed: `ctl cp`, `ctl diff`.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::{Command, Stdio},
};
use strata_testkit::{Cluster, Run, eventually};

/// A pod of the demo image that only waits; removed with the value.
struct Waits<'a>(&'a Cluster, &'static str);

impl<'a> Waits<'a> {
    fn new(cluster: &'a Cluster, name: &'static str) -> Result<Self> {
        cluster.ensure_hello()?;
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: c, image: 'hello:1', securityContext: {{runAsUser: 0}}, command: [sh, -c, 'busybox --install -s /bin; exec sleep 100000']}}\n"
        );
        cluster.apply(&pod, &["--wait", "--timeout", "60s"])?.ok()?;
        let pod = Self(cluster, name);
        // The last of the applets, in the order of their names.
        eventually("the applets are installed", 30, || pod.sh("ls /bin/zcat"))?;
        Ok(pod)
    }
    fn sh(&self, script: &str) -> Result<String> {
        self.0.exec(self.1, &["sh", "-c", script])
    }
    fn cp(&self, from: &str, to: &str) -> Result<Run> {
        self.0.ctl(&["cp", from, to])
    }
    fn at(&self, path: &str) -> String {
        format!("{}:{path}", self.1)
    }
    fn delete(&self) -> Result<()> {
        self.0.delete(&[&format!("pod/{}", self.1)])
    }
}

fn text(path: impl AsRef<Path>) -> Result<String> {
    fs::read_to_string(path.as_ref()).with_context(|| path.as_ref().display().to_string())
}

fn string(path: &Path) -> Result<&str> {
    path.to_str().context("path")
}

#[test]
fn trees_come_and_go_with_their_modes_links_and_names() -> Result<()> {
    let cluster = Cluster::here()?;
    let pod = Waits::new(&cluster, "cp-tree")?;
    let home = tempfile::tempdir()?;
    let site = home.path().join("site");
    fs::create_dir_all(site.join("sub/deeper"))?;
    fs::write(site.join("sub/run"), "#!/bin/sh\necho ran\n")?;
    fs::set_permissions(site.join("sub/run"), fs::Permissions::from_mode(0o750))?;
    fs::write(site.join("sub/deeper").join("n".repeat(120)), "long\n")?;
    symlink("sub/run", site.join("link"))?;
    symlink("/nowhere", site.join("dangling"))?;
    fs::hard_link(site.join("sub/run"), site.join("same"))?;

    // Into a directory that is there: below its own name. Into one that is not: as that name.
    pod.sh("mkdir /tree")?;
    pod.cp(string(&site)?, &pod.at("/tree"))?.ok()?;
    pod.cp(string(&site)?, &pod.at("/tree/other"))?.ok()?;
    pod.cp(&format!("{}/.", string(&site)?), &pod.at("/tree/other/sub"))?.ok()?;
    let listed = pod.sh("cd /tree && find . | sort | grep -v nnnn")?;
    let wanted = "./other/sub/sub/run\n";
    ensure!(
        listed.contains("./site/sub/run\n") && listed.contains("./other/sub/run\n") && listed.contains(wanted),
        "{listed}"
    );
    let facts =
        pod.sh("cd /tree/site && ls -ln sub/run same && readlink link; readlink dangling; ./link; ls -i same sub/run")?;
    ensure!(facts.contains("-rwxr-x---") && facts.contains(" 0        0 "), "it belongs to root: {facts}");
    ensure!(facts.contains("sub/run\n") && facts.contains("/nowhere\n") && facts.contains("ran\n"), "{facts}");
    let inodes: Vec<&str> = facts.lines().rev().take(2).filter_map(|l| l.split_whitespace().next()).collect();
    ensure!(inodes.len() == 2 && inodes[0] == inodes[1], "a second name is no second file: {facts}");

    // And back.
    let back = home.path().join("back");
    pod.cp(&pod.at("/tree/site"), string(&back)?)?.ok()?;
    ensure!(text(back.join("sub/run"))? == text(site.join("sub/run"))?);
    ensure!(fs::metadata(back.join("sub/run"))?.permissions().mode() & 0o7777 == 0o750);
    ensure!(fs::read_link(back.join("dangling"))? == Path::new("/nowhere"));
    ensure!(text(back.join("sub/deeper").join("n".repeat(120)))? == "long\n");
    pod.cp(&pod.at("/tree/site"), string(&back)?)?.ok()?;
    ensure!(text(back.join("site/sub/run"))? == text(site.join("sub/run"))?);
    pod.delete()
}

#[test]
fn files_follow_dockers_rules() -> Result<()> {
    let cluster = Cluster::here()?;
    let pod = Waits::new(&cluster, "cp-file")?;
    let home = tempfile::tempdir()?;
    let one = home.path().join("one");
    fs::write(&one, "one\n")?;
    let one = string(&one)?;
    pod.sh("mkdir -p /d/e; echo old >/d/old; ln -s /d/old /d/link")?;
    pod.cp(one, &pod.at("/d"))?.ok()?;
    pod.cp(one, &pod.at("/d/new"))?.ok()?;
    pod.cp(one, &pod.at("d/old"))?.ok()?;
    ensure!(pod.sh("cat /d/one /d/new /d/old")? == "one\none\none\n");
    // A link at the destination is followed, in the container.
    pod.sh("echo old >/d/old")?;
    pod.cp(one, &pod.at("/d/link"))?.ok()?;
    ensure!(pod.sh("cat /d/old; readlink /d/link")? == "one\n/d/old\n");
    let missing = pod.cp(one, &pod.at("/no/such/"))?.code_is(3)?;
    ensure!(missing.stderr.contains("/no/such/"), "{}", missing.stderr);
    pod.cp(one, &pod.at("/no/such"))?.code_is(3)?;
    let over = pod.cp(string(home.path())?, &pod.at("/d/old"))?.code_is(1)?;
    ensure!(over.stderr.contains("directory"), "{}", over.stderr);
    pod.cp(&format!("{one}-missing"), &pod.at("/d"))?.code_is(3)?;
    pod.cp(&pod.at("/d/missing"), string(home.path())?)?.code_is(3)?;
    pod.cp(&pod.at("/d/old"), &format!("{}/", string(home.path())?))?.ok()?;
    pod.cp(&pod.at("/d/old"), &format!("{}/renamed", string(home.path())?))?.ok()?;
    ensure!(text(home.path().join("old"))? == "one\n" && text(home.path().join("renamed"))? == "one\n");
    // The link itself, unless it is to be followed.
    pod.cp(&pod.at("/d/link"), string(home.path())?)?.ok()?;
    ensure!(fs::read_link(home.path().join("link"))? == Path::new("/d/old"));
    fs::remove_file(home.path().join("link"))?;
    cluster.ctl(&["cp", "-L", &pod.at("/d/link"), string(home.path())?])?.ok()?;
    ensure!(text(home.path().join("link"))? == "one\n");
    cluster.ctl(&["cp", one, one])?.code_is(2)?;
    pod.delete()
}

#[test]
fn streams_are_tars_and_owners_are_plain() -> Result<()> {
    let cluster = Cluster::here()?;
    let pod = Waits::new(&cluster, "cp-tar")?;
    pod.sh("mkdir -p /data/in && echo x >/data/f && chown 33:44 /data/f")?;
    let mut out = cluster.command(&["cp", &pod.at("/data"), "-"]).stdout(Stdio::piped()).spawn()?;
    let listing =
        Command::new("tar").args(["tvf", "-", "--numeric-owner"]).stdin(out.stdout.take().context("pipe")?).output()?;
    ensure!(out.wait()?.success() && listing.status.success());
    let listing = String::from_utf8(listing.stdout)?;
    ensure!(
        listing.contains("data/f") && listing.contains(" 33/44 "),
        "the container's ids, not the host's: {listing}"
    );
    let home = tempfile::tempdir()?;
    fs::write(home.path().join("y"), "y\n")?;
    let mut tar = Command::new("tar")
        .args(["c", "--owner=7", "--group=8", "--numeric-owner", "-C", string(home.path())?, "y"])
        .stdout(Stdio::piped())
        .spawn()?;
    let copied =
        cluster.command(&["cp", "-", &pod.at("/data/in")]).stdin(tar.stdout.take().context("pipe")?).output()?;
    ensure!(tar.wait()?.success() && copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    ensure!(pod.sh("cat /data/in/y; ls -ln /data/in/y")?.contains(" 7        8 "), "{}", pod.sh("ls -ln /data/in/y")?);
    // An id that no container has.
    let mut tar = Command::new("tar")
        .args(["c", "--owner=99999", "--numeric-owner", "-C", string(home.path())?, "y"])
        .stdout(Stdio::piped())
        .spawn()?;
    let refused =
        cluster.command(&["cp", "-", &pod.at("/data/in")]).stdin(tar.stdout.take().context("pipe")?).output()?;
    tar.wait()?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && said.contains("99999"), "{said}");
    pod.delete()
}

#[test]
fn no_link_leads_out_of_the_container() -> Result<()> {
    let cluster = Cluster::here()?;
    let pod = Waits::new(&cluster, "cp-evil")?;
    let home = tempfile::tempdir()?;
    // A place of the host that the container knows the path of.
    let secret = home.path().join("host");
    fs::create_dir(&secret)?;
    fs::write(secret.join("file"), "the host's\n")?;
    let host = string(&secret)?;
    fs::write(home.path().join("payload"), "payload\n")?;
    let payload = home.path().join("payload");
    let payload = string(&payload)?;
    let up = "../".repeat(30);
    pod.sh(&format!(
        "mkdir /e; ln -s {host} /e/abs; ln -s {up}{host} /e/rel; ln -s /proc/1/root /e/magic; ln -s {host}/file /e/link"
    ))?;
    for link in ["abs", "rel"] {
        // There is no such directory in the container.
        pod.cp(&pod.at(&format!("/e/{link}/file")), string(home.path())?)?.code_is(3)?;
        ensure!(pod.cp(payload, &pod.at(&format!("/e/{link}/new")))?.code != 0);
    }
    ensure!(pod.cp(&pod.at(&format!("/e/magic{host}/file")), string(home.path())?)?.code != 0);
    cluster.ctl(&["cp", "-L", &pod.at("/e/link"), string(home.path())?])?.code_is(3)?;
    // Now there is: what is read and written is the container's own.
    pod.sh(&format!("mkdir -p {host}; echo mine >{host}/file"))?;
    pod.cp(&pod.at("/e/abs/file"), &format!("{}/got", string(home.path())?))?.ok()?;
    ensure!(text(home.path().join("got"))? == "mine\n");
    pod.cp(payload, &pod.at("/e/rel/new"))?.ok()?;
    pod.cp(payload, &pod.at("/e/link"))?.ok()?;
    ensure!(pod.sh(&format!("cat {host}/new {host}/file"))? == "payload\npayload\n");
    // A tar with a link and a file behind it, and one with `..`.
    let tree = home.path().join("tree");
    fs::create_dir(&tree)?;
    symlink(host, tree.join("x"))?;
    let script = format!(
        "cd {0} && tar cf ../t.tar x && rm x && mkdir x && echo evil >x/planted && tar rf ../t.tar x/planted && tar Pcf ../u.tar --transform 's,^x,../../..{1},' x/planted",
        string(&tree)?,
        host
    );
    Run::of(
        {
            let mut sh = Command::new("sh");
            sh.args(["-ec", &script]);
            sh
        },
        "",
    )?
    .ok()?;
    for tar in ["t.tar", "u.tar"] {
        let file = fs::File::open(home.path().join(tar))?;
        cluster.command(&["cp", "-", &pod.at("/e")]).stdin(file).output()?;
    }
    // Somebody in the container swaps a directory and a link to the host's place while copies run.
    pod.sh(&format!("mkdir -p /swap/real; cd /swap; (while :; do ln -sfn {host} now; rm -f now; mkdir now; rmdir now; done) >/dev/null 2>&1 &"))?;
    for _ in 0..15 {
        pod.cp(payload, &pod.at("/swap/now/raced"))?;
        pod.cp(&pod.at("/swap/now"), &format!("{}/raced", string(home.path())?)).ok();
    }
    let left: Vec<String> =
        fs::read_dir(&secret)?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    ensure!(left == ["file"] && text(secret.join("file"))? == "the host's\n", "something reached the host: {left:?}");
    pod.delete()
}

#[test]
fn changes_of_a_container_are_listed() -> Result<()> {
    let cluster = Cluster::here()?;
    let pod = Waits::new(&cluster, "cp-diff")?;
    pod.sh("mkdir /new; echo x >/new/file; rm -r /etc/* ; echo y >/etc/made; echo z >/srv/www/index.html")?;
    let diff = cluster.ctl(&["diff", pod.1])?.ok()?.stdout;
    let lines: Vec<&str> = diff.lines().collect();
    for wanted in ["A /new", "A /new/file", "A /etc/made", "C /etc", "D /etc/passwd", "C /srv/www/index.html"] {
        ensure!(lines.contains(&wanted), "{wanted} is not in\n{diff}");
    }
    let json = cluster.ctl(&["diff", pod.1, "-o", "json"])?.ok()?.json()?;
    let entries = json.as_array().context("array")?;
    ensure!(entries.iter().any(|e| e["path"] == "/new/file" && e["change"] == "Added"), "{json}");
    // Of a stopped pod, too; and its files can be copied.
    cluster.ctl(&["stop", pod.1])?.ok()?;
    ensure!(cluster.ctl(&["diff", pod.1])?.ok()?.stdout.contains("A /new/file\n"));
    let home = tempfile::tempdir()?;
    pod.cp(&pod.at("/new/file"), string(home.path())?)?.ok()?;
    ensure!(text(home.path().join("file"))? == "x\n");
    fs::write(home.path().join("while-stopped"), "z\n")?;
    pod.cp(&format!("{}/while-stopped", string(home.path())?), &pod.at("/new"))?.ok()?;
    cluster.ctl(&["start", pod.1])?.ok()?;
    cluster.pod_until(pod.1, 60, |s| s["phase"] == "Running")?;
    ensure!(pod.sh("cat /new/while-stopped; ls -ln /new/while-stopped")?.starts_with("z\n"));
    pod.delete()
}
