//! Debian's docker-registry with images made by umoci and skopeo: plain, with passwords, with TLS.

use crate::{fixture::store, pull::pull};
use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use strata_image::{NoPeers, ProgressSink, Registry, RegistrySettings, Step};
use strata_model::ImageName;
use tempfile::TempDir;

fn run(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `user:secret` as bcrypt at the lowest cost.
const HTPASSWD: &str = "user:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

#[derive(Default)]
struct Options {
    passwords: bool,
    tls: bool,
}

/// A registry on a free port, its data in a directory of its own. Killed when dropped.
struct DockerRegistry {
    dir: TempDir,
    address: String,
    tls: bool,
    child: Mutex<Option<Child>>,
}

impl DockerRegistry {
    fn start(options: &Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: {address}\n",
            text(&dir.path().join("data"))
        );
        if options.tls {
            certificate(dir.path());
            config += &format!(
                "  tls: {{certificate: {}, key: {}}}\n",
                text(&dir.path().join("cert.pem")),
                text(&dir.path().join("key.pem"))
            );
        }
        if options.passwords {
            fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: here, path: {}}}}}\n", text(&dir.path().join("htpasswd")));
        }
        fs::write(dir.path().join("config.yml"), config).unwrap();
        let registry = Self { dir, address, tls: options.tls, child: Mutex::new(None) };
        registry.launch();
        registry
    }

    fn launch(&self) {
        let child = Command::new("docker-registry")
            .args(["serve", text(&self.dir.path().join("config.yml"))])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        *self.child.lock().unwrap() = Some(child);
        let end = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(&self.address).is_err() {
            assert!(Instant::now() < end, "the registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn push(&self, from: &str, name: &str, more: &[&str]) {
        let to = format!("docker://{}/{name}", self.address);
        let mut args = vec!["copy", "--dest-tls-verify=false", "--dest-creds", "user:secret"];
        args.extend(more);
        args.extend([from, &to]);
        run("skopeo", &args);
    }

    fn name(&self, name: &str) -> ImageName {
        ImageName::parse(&format!("{}/{name}", self.address)).unwrap()
    }

    fn settings(&self) -> RegistrySettings {
        let mut settings = RegistrySettings::default();
        if self.tls {
            settings.ca_files = vec![self.dir.path().join("ca.pem")];
        } else {
            settings.insecure_registries = vec![self.address.clone()];
        }
        settings
    }

    fn client(&self) -> Registry {
        Registry::new(&self.settings()).unwrap()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A certificate for 127.0.0.1 by an authority made for it.
fn certificate(dir: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    fs::write(dir.join("ca.pem"), ca_cert.pem()).unwrap();
    fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

/// An OCI layout with busybox in one layer and a file of `extra_bytes` in another.
fn busybox(dir: &Path, extra_bytes: usize) -> PathBuf {
    let layout = dir.join("layout");
    let image = format!("{}:1", text(&layout));
    run("umoci", &["init", "--layout", text(&layout)]);
    run("umoci", &["new", "--image", &image]);
    let extra = crate::fixture::noise(extra_bytes, 99);
    for (name, content) in [("bin/busybox", fs::read("/bin/busybox").unwrap()), ("extra", extra)] {
        let tar = dir.join("layer.tar");
        fs::write(&tar, crate::fixture::tar(&[(name, &content)], &[])).unwrap();
        run("umoci", &["raw", "add-layer", "--image", &image, text(&tar)]);
    }
    run("umoci", &["config", "--image", &image, "--config.cmd", "/bin/busybox"]);
    layout
}

fn oci(layout: &Path) -> String {
    format!("oci:{}:1", text(layout))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_that_skopeo_pushes_is_pulled() {
    let work = tempfile::tempdir().unwrap();
    let layout = busybox(work.path(), 100_000);
    // A registry each, or skopeo would take the blobs that it knows to be there already.
    let forms: [&[&str]; 3] = [&[], &["--dest-compress-format", "zstd"], &["--format", "v2s2"]];
    let (mut diff_ids, mut digests) = (Vec::new(), HashSet::new());
    let registries = [(); 3].map(|()| DockerRegistry::start(&Options::default()));
    for (registry, form) in registries.iter().zip(forms) {
        registry.push(&oci(&layout), "b/x:1", form);
        let (_dir, store) = store();
        let stored = pull(&store, &registry.client(), &registry.name("b/x:1")).await.unwrap();
        assert_eq!(stored.command(), ["/bin/busybox"], "{form:?}");
        digests.insert(stored.digest.clone());
        diff_ids.push(stored.layers.iter().map(|layer| layer.diff_id.clone()).collect::<Vec<_>>());
        for layer in &stored.layers {
            store.layers().verify(&layer.diff_id).unwrap();
        }
    }
    assert_eq!(digests.len(), 3, "the forms must differ");
    assert_eq!(diff_ids[0].len(), 2);
    assert!(diff_ids.iter().all(|ids| *ids == diff_ids[0]), "{diff_ids:?}");
    let (_dir, store) = store();
    for name in ["b/x:no-such-tag", "no/such/repository:1"] {
        let error = pull(&store, &registries[0].client(), &registries[0].name(name)).await.unwrap_err();
        assert_eq!(error.reason(), "ImageNotFound", "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_pulled_in_two_forms_shares_its_layers() {
    let work = tempfile::tempdir().unwrap();
    let layout = busybox(work.path(), 1000);
    let registries = [(); 2].map(|()| DockerRegistry::start(&Options::default()));
    registries[0].push(&oci(&layout), "b/gzip:1", &[]);
    registries[1].push(&oci(&layout), "b/zstd:1", &["--dest-compress-format", "zstd"]);
    let (_dir, store) = store();
    pull(&store, &registries[0].client(), &registries[0].name("b/gzip:1")).await.unwrap();
    let registry = &registries[1];
    let steps = Arc::new(Mutex::new(Vec::new()));
    let log = steps.clone();
    let sink = ProgressSink::new(move |news| log.lock().unwrap().push(news.step));
    let (_, stored) =
        store.pull(&registry.client(), &registry.name("b/zstd:1"), Arc::new(NoPeers), &sink).await.unwrap();
    assert_eq!(*steps.lock().unwrap(), [Step::Resolving, Step::Present, Step::Present, Step::Done]);
    assert_eq!((store.images().len(), store.layers().list().unwrap().len()), (2, stored.layers.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_and_certificates_count() {
    let work = tempfile::tempdir().unwrap();
    let layout = busybox(work.path(), 1000);
    let registry = DockerRegistry::start(&Options { passwords: true, tls: true });
    registry.push(&oci(&layout), "b/x:1", &[]);
    let name = registry.name("b/x:1");
    let auth_file = work.path().join("auth.json");
    let client = |ca: bool, auth: bool| {
        let mut settings = registry.settings();
        if !ca {
            settings.ca_files.clear();
        }
        settings.auth_file = auth.then(|| auth_file.clone());
        Registry::new(&settings).unwrap()
    };
    let credentials = |encoded: &str| {
        let file = serde_json::json!({"auths": {format!("https://{}", registry.address): {"auth": encoded}}});
        fs::write(&auth_file, file.to_string()).unwrap();
    };
    let (_dir, store) = store();
    let error = pull(&store, &client(true, false), &name).await.unwrap_err();
    assert_eq!(error.reason(), "Unauthorized", "{error}");
    credentials("dXNlcjp3cm9uZw==");
    let error = pull(&store, &client(true, true), &name).await.unwrap_err();
    assert_eq!(error.reason(), "Unauthorized", "{error}");
    credentials("dXNlcjpzZWNyZXQ=");
    let error = pull(&store, &client(false, true), &name).await.unwrap_err();
    assert_eq!(error.reason(), "RegistryUnreachable", "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    pull(&store, &client(true, true), &name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_killed_and_comes_back_ends_the_pull_well() {
    let work = tempfile::tempdir().unwrap();
    let layout = busybox(work.path(), 200 << 20);
    let registry = Arc::new(DockerRegistry::start(&Options::default()));
    registry.push(&oci(&layout), "b/big:1", &[]);
    let (_dir, store) = store();
    let (killed_at, victim) = (Arc::new(Mutex::new(None)), registry.clone());
    let log = killed_at.clone();
    let sink = ProgressSink::new(move |news| {
        let mut killed_at = log.lock().unwrap();
        if news.step == Step::Fetching && news.done_bytes > 2 << 20 && killed_at.is_none() {
            *killed_at = Some((news.done_bytes, news.total_bytes));
            victim.kill();
            let victim = victim.clone();
            std::thread::spawn(move || victim.launch());
        }
    });
    let (_, stored) =
        store.pull(&registry.client(), &registry.name("b/big:1"), Arc::new(NoPeers), &sink).await.unwrap();
    let (done, total) = killed_at.lock().unwrap().expect("the pull was over before the registry was killed");
    assert!(done < total, "{done} of {total}");
    for layer in &stored.layers {
        store.layers().verify(&layer.diff_id).unwrap();
    }
    // Down for good: an error, and soon.
    registry.kill();
    let error = pull(&store, &registry.client(), &registry.name("b/big:1")).await.unwrap_err();
    assert_eq!(error.reason(), "RegistryUnreachable", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_one_image_give_the_same_layers() {
    let work = tempfile::tempdir().unwrap();
    let layout = busybox(work.path(), 100_000);
    let file = |name: &str| work.path().join(name);
    let (docker, oci_tar) = (file("docker.tar"), file("oci.tar"));
    run("skopeo", &["copy", &oci(&layout), &format!("docker-archive:{}:archived/busybox:1", text(&docker))]);
    run("skopeo", &["copy", &oci(&layout), &format!("oci-archive:{}:archived/busybox:1", text(&oci_tar))]);
    run("tar", &["-czf", text(&file("dir.tar.gz")), "-C", text(work.path()), "layout"]);
    let mut seen = Vec::new();
    for (name, as_name) in
        [("docker.tar", None), ("docker.tar", None), ("oci.tar", None), ("dir.tar.gz", Some("archived/busybox:1"))]
    {
        let (_dir, store) = store();
        let as_name = as_name.map(|name| ImageName::parse(name).unwrap());
        let images = store.import(fs::File::open(file(name)).unwrap(), as_name).await.unwrap();
        assert_eq!((images.len(), images[0].name.to_string().as_str()), (1, "docker.io/archived/busybox:1"), "{name}");
        let diff_ids: Vec<_> = images[0].image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        seen.push((images[0].image.digest.clone(), diff_ids));
    }
    assert!(seen.iter().all(|(_, diff_ids)| *diff_ids == seen[0].1), "{seen:?}");
    assert_eq!(seen[0].0, seen[1].0, "a docker archive has the same digest on every node");
    assert_eq!(seen[2].0, seen[3].0, "a layout keeps the digest of its manifest");
}
