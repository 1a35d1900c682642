#!/usr/bin/env python3
"""How long a start takes and what an idle container costs: Strata, crun, podman, docker and the kernel's floor, round by round.

Every start runs /bin/stamp of the same image, which prints CLOCK_MONOTONIC: the time until the process executes, not until a client is told.
The peers live in network and mount namespaces of their own, so that their bridges and rules vanish with them."""
import argparse, hashlib, json, os, re, shutil, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.abspath(f"{HERE}/../..")
WORKER = r"""
import json, subprocess, sys, time
for line in sys.stdin:
    start = time.monotonic_ns(); p = subprocess.run(json.loads(line), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    print(json.dumps({"start": start, "end": time.monotonic_ns(), "code": p.returncode, "out": p.stdout, "err": p.stderr[-2000:]}), flush=True)
"""


def call(args, **kwargs):
    run = subprocess.run(args, capture_output=True, text=True, **kwargs)
    if run.returncode:
        raise SystemExit(f"{args}: exit code {run.returncode}\n{run.stdout}{run.stderr}")
    return run.stdout


def make_rootfs(work):
    root = f"{work}/rootfs"
    os.makedirs(f"{root}/l1/bin")
    for folder in ("etc", "proc", "sys", "dev", "tmp", "run"):
        os.makedirs(f"{root}/l1/{folder}")
    call(["gcc", "-O2", "-static", "-o", f"{root}/l1/bin/stamp", f"{HERE}/start/stamp.c"])
    shutil.copy("/bin/busybox", f"{root}/l1/bin/busybox")
    for applet in ("sh", "true", "sleep"):
        os.symlink("busybox", f"{root}/l1/bin/{applet}")
    for n in range(2, 6):
        os.makedirs(f"{root}/l{n}/srv/d{n}")
        for i in range(50):
            with open(f"{root}/l{n}/srv/d{n}/f{i}", "w") as f:
                f.write(f"{n} {i}\n")
    return root


def make_image(work, root):
    oci = f"{work}/oci"
    os.makedirs(f"{oci}/blobs/sha256")

    def blob(data):
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{oci}/blobs/sha256/{digest}", "wb") as f:
            f.write(data)
        return {"digest": "sha256:" + digest, "size": len(data)}

    layers, diffs = [], []
    for n in range(1, 6):
        tar = subprocess.run(["tar", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-C", f"{root}/l{n}", "-cf", "-", "."], capture_output=True, check=True).stdout
        layers.append({"mediaType": "application/vnd.oci.image.layer.v1.tar", **blob(tar)})
        diffs.append(layers[-1]["digest"])
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/stamp"], "Env": ["PATH=/bin"]}, "rootfs": {"type": "layers", "diff_ids": diffs}}
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", **blob(json.dumps(config).encode())}
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"mediaType": kind, **blob(json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}).encode()), "annotations": {"org.opencontainers.image.ref.name": "bench:1"}}
    json.dump({"schemaVersion": 2, "manifests": [manifest]}, open(f"{oci}/index.json", "w"))
    json.dump({"imageLayoutVersion": "1.0.0"}, open(f"{oci}/oci-layout", "w"))
    call(["tar", "-C", oci, "-cf", f"{work}/bench.tar", "oci-layout", "index.json", "blobs"])
    call(["skopeo", "--insecure-policy", "copy", "-q", f"oci:{oci}:bench:1", f"docker-archive:{work}/docker.tar:bench:1"])


class Peers:
    """crun, podman and dockerd in namespaces of their own, driven by a worker process that lives there too."""

    def __init__(self, work, root):
        self.work, self.seq = work, 0
        with open(f"{work}/containers.conf", "w") as f:
            f.write('[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]\n[engine]\ncgroup_manager = "cgroupfs"\n')
        env = {**os.environ, "CONTAINERS_CONF": f"{work}/containers.conf", "DOCKER_HOST": f"unix://{work}/docker.sock"}
        # Debian's crun refuses a hybrid cgroup tree: it is taken out of the peers' mount namespace.
        script = "mount --make-rprivate /; umount /sys/fs/cgroup/unified 2>/dev/null; ip link set lo up; exec python3 -c \"$0\""
        self.worker = subprocess.Popen(["unshare", "-nm", "sh", "-c", script, WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.podman = ["podman", "--root", f"{work}/podman", "--runroot", f"{work}/podman-run", "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        self.docker = ["/usr/bin/docker"]
        self.ask(["sh", "-c", f"setsid dockerd --data-root {work}/docker --exec-root {work}/docker-run -H unix://{work}/docker.sock -p {work}/dockerd.pid --storage-driver overlay2 --exec-opt native.cgroupdriver=cgroupfs > {work}/dockerd.log 2>&1 &"])
        for _ in range(300):
            if self.ask(self.docker + ["info"], check=False)["code"] == 0:
                break
            time.sleep(0.1)
        self.ask(self.docker + ["load", "-q", "-i", f"{work}/docker.tar"])
        self.ask(self.podman + ["load", "-q", "-i", f"{work}/docker.tar"])
        bundle = f"{work}/bundle"
        for folder in ("rootfs", "u", "w"):
            os.makedirs(f"{bundle}/{folder}")
        lower = ":".join(f"{root}/l{n}" for n in range(5, 0, -1))
        self.ask(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={bundle}/u,workdir={bundle}/w", f"{bundle}/rootfs"])
        # podman's own runtime spec (capabilities, seccomp, masked paths, limits) becomes the bundle of bare crun.
        name = self.ask(self.podman + ["run", "-d", "--network", "none", "bench:1", "sleep", "1000"])["out"].strip()
        found = call(["find", f"{work}/podman", f"{work}/podman-run", "-path", f"*{name}*userdata*", "-name", "config.json"]).split()[0]
        spec = json.load(open(found))
        self.ask(self.podman + ["rm", "-f", "-t", "0", name])
        spec["root"]["path"] = f"{bundle}/rootfs"
        spec["process"].update(terminal=False)
        spec["mounts"] = [m for m in spec["mounts"] if m["type"] != "bind"]
        spec.pop("hooks", None), spec.pop("annotations", None)
        spec["linux"]["namespaces"] = [{"type": "network"} if n["type"] == "network" else n for n in spec["linux"]["namespaces"]]
        self.spec = spec

    def ask(self, args, check=True):
        self.worker.stdin.write(json.dumps(args) + "\n")
        self.worker.stdin.flush()
        answer = json.loads(self.worker.stdout.readline())
        if check and answer["code"]:
            raise SystemExit(f"{args}: {answer}")
        return answer

    def bundle(self, args):
        self.seq += 1
        folder = f"{self.work}/bundles/{self.seq}"
        os.makedirs(folder)
        self.spec["process"]["args"], self.spec["linux"]["cgroupsPath"] = args, f"/strata-bench/{self.seq}"
        json.dump(self.spec, open(f"{folder}/config.json", "w"))
        return folder, f"x{self.seq}"

    def start_ms(self, kind):
        if kind == "crun":
            folder, name = self.bundle(["/bin/stamp"])
            answer = self.ask(["crun", "run", "--bundle", folder, name])
        else:
            answer = self.ask((self.podman if kind == "podman" else self.docker) + ["run", "--rm", "bench:1", "/bin/stamp"])
        return (int(answer["out"].split()[-1]) - answer["start"]) / 1e6

    def owns(self, pid):
        """Whether it lives in the peers' mount namespace, where their containers do not."""
        return int(pid) != self.worker.pid and os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink(f"/proc/{self.worker.pid}/ns/mnt")

    def idle(self, kind, count):
        names = []
        for _ in range(count):
            if kind == "crun":
                folder, name = self.bundle(["sleep", "1000"])
                self.ask(["sh", "-c", f"crun run -d --bundle {folder} {name} > /dev/null 2>&1"])
                names.append(name)
            else:
                names.append(self.ask((self.podman if kind == "podman" else self.docker) + ["run", "-d", "bench:1", "sleep", "1000"])["out"].strip())
        return names

    def remove(self, kind, names):
        for name in names:
            self.ask({"crun": ["crun", "delete", "-f"], "podman": self.podman + ["rm", "-f", "-t", "0"], "docker": self.docker + ["rm", "-f"]}[kind] + [name])

    def close(self):
        self.ask(["sh", "-c", f"kill $(cat {self.work}/dockerd.pid); i=0; while [ -e {self.work}/dockerd.pid ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i+1)); done"], check=False)
        self.worker.stdin.close()
        self.worker.wait(10)
        for cgroup in ("strata-bench", "libpod_parent", "docker"):
            call(["sh", "-c", f"for d in /sys/fs/cgroup/*/{cgroup}; do [ -d $d ] && find $d -depth -type d -exec rmdir {{}} + 2>/dev/null; done; true"])


class Strata:
    """A cluster of one node by deploy/quickstart, spoken to by ctl."""

    def __init__(self, work):
        self.home, self.seq, self.read = f"{work}/strata", 0, 0
        self.env = {**os.environ, "STRATA_HOME": self.home, "STRATA_CONFIG": f"{self.home}/controller/admin.toml", "STRATA_LOG_FORMAT": "json", "STRATA_LOG": "info,strata::start=debug"}
        call([f"{REPO}/deploy/quickstart", "up", "--no-demo", "--nodes", "1"], env=self.env)
        self.ctl("image", "import", f"{work}/bench.tar")

    def ctl(self, *args):
        return call([f"{self.home}/bin/ctl", *args], env=self.env)

    def start_ms(self):
        """(from `ctl run` sent, from the assignment's arrival at the agent) until the process executes."""
        self.seq += 1
        name = f"bench-{self.seq}"
        sent = time.monotonic_ns()
        executing = int(self.ctl("run", "bench:1", "--name", name, "--rm", "--", "/bin/stamp").split()[-1])
        arrived = None
        with open(f"{self.home}/node-1.log") as log:
            log.seek(self.read)
            for line in iter(log.readline, ""):  # `pod="NAME" assigned_ns=N` in the text format, `"pod":"NAME","assigned_ns":N` in JSON
                if f'"{name}"' in line and (found := re.search(r"assigned_ns\D+(\d+)", line)):
                    arrived = arrived or int(found.group(1))
            self.read = log.tell()
        return (executing - sent) / 1e6, (executing - arrived) / 1e6 if arrived else None

    def owns(self, pid):
        return os.readlink(f"/proc/{pid}/exe").startswith(f"{self.home}/bin/")

    def idle(self, count):
        manifest = "kind: Workload\nmeta: {name: idle}\nspec: {replicas: %d, template: {terminationGraceS: 0, containers: [{name: c, image: 'bench:1', command: [sleep, '1000']}]}}\n" % count
        call([f"{self.home}/bin/ctl", "apply", "-f", "-", "--wait", "--timeout", "120s"], env=self.env, input=manifest)

    def remove(self):
        self.ctl("delete", "workload", "idle")
        for _ in range(600):
            if json.loads(self.ctl("get", "pods", "-o", "json")) == []:
                return
            time.sleep(0.1)

    def close(self):
        if log := os.environ.get("STRATA_BENCH_LOG"):  # the agent's log, with the step timings
            shutil.copy(f"{self.home}/node-1.log", log)
        call([f"{REPO}/deploy/quickstart", "down"], env=self.env)


def floor_ms(work, root):
    text = call([f"{work}/floor", "-r", root, "-n", "1", "-c", "/bin/stamp", "-q", "-g", "tasks", "-v", "-N", "veth", "-k", "-u"])
    return float(re.search(r"started +median +([\d.]+) us", text).group(1)) / 1e3


def memory_kib(ours):
    """(PSS of the processes that `ours` names, the kernel's own memory: of the whole machine, so other work shows in it)"""
    subprocess.run("sync; echo 3 > /proc/sys/vm/drop_caches", shell=True, check=True)
    time.sleep(0.5)
    pss = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if ours(pid) and (value := re.search(r"^Pss:\s+(\d+)", open(f"/proc/{pid}/smaps_rollup").read(), re.M)):
                pss += int(value.group(1))
        except OSError:
            continue
    info = {line.split(":")[0]: int(line.split()[1]) for line in open("/proc/meminfo")}
    return pss, sum(info[k] for k in ("Slab", "KernelStack", "PageTables", "Percpu"))


def outside_kib(count, ours, start, stop):
    """(processes outside the containers, the kernel) per container"""
    before = memory_kib(ours)
    made = start(count)
    time.sleep(2)
    after = memory_kib(ours)
    stop(made)
    return tuple(round((after[i] - before[i]) / count) for i in (0, 1))


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--json", action="store_true")
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--idle", type=int, default=20)
    options = options.parse_args()
    work = tempfile.mkdtemp(prefix="strata-bench.")
    os.chmod(work, 0o711)  # the floor program mounts its layers as the root of a user namespace
    say = lambda text: print(text, file=sys.stderr, flush=True)
    strata = peers = None
    try:
        root = make_rootfs(work)
        make_image(work, root)
        call(["gcc", "-O2", "-w", "-o", f"{work}/floor", f"{HERE}/start/floor.c"])
        say("starting the cluster"), (strata := Strata(work))
        say("starting the peers"), (peers := Peers(work, root))
        times = {name: [] for name in ("floor", "agent", "controller", "crun", "podman", "docker")}
        for round_ in range(options.rounds + 1):
            controller, agent = strata.start_ms()
            row = {"floor": floor_ms(work, root), "agent": agent, "controller": controller, **{k: peers.start_ms(k) for k in ("crun", "podman", "docker")}}
            if round_:  # the first warms caches
                for name, value in row.items():
                    if value is not None:
                        times[name].append(value)
        medians = {name: round(statistics.median(v), 2) for name, v in times.items() if v}
        say("memory of idle containers")
        memory = {"strata": outside_kib(options.idle, strata.owns, strata.idle, lambda _: strata.remove())}
        for kind in ("crun", "podman", "docker"):
            memory[kind] = outside_kib(options.idle, peers.owns, lambda n, k=kind: peers.idle(k, n), lambda made, k=kind: peers.remove(k, made))
    finally:
        if peers:
            peers.close()
        if strata:
            strata.close()
        subprocess.run(["sh", "-c", f"grep -o ' {work}[^ ]*' /proc/mounts | sort -r | xargs -r -n1 umount -l"], check=False)
        shutil.rmtree(work, ignore_errors=True)
    result = {f"{k}_ms": v for k, v in medians.items()}
    if "agent" in medians:
        result["agent_bridge_vs_floor"] = round(medians["agent"] / medians["floor"], 2)
    result.update(
        crun_ratio=round(medians["crun"] / medians["agent"], 1) if "agent" in medians else None,
        podman_ratio=round(medians["podman"] / medians["controller"], 1),
        docker_ratio=round(medians["docker"] / medians["controller"], 1),
        kib_outside=sum(memory["strata"]), **{f"{k}_kib": sum(v) for k, v in memory.items() if k != "strata"}, kib_processes={k: v[0] for k, v in memory.items()},
        rounds=options.rounds, load=os.getloadavg()[0],
    )
    if options.json:
        print(json.dumps(result))
        return
    print(f"{'':34}{'median ms':>10}")
    for name, what in (("floor", "kernel floor, bridge + userns"), ("agent", "Strata, from the assignment"), ("controller", "Strata, from `ctl run`"), ("crun", "crun run, own netns only"), ("podman", "podman run, bridge"), ("docker", "docker run, bridge")):
        if name in medians:
            print(f"{what:34}{medians[name]:10.2f}")
    print(f"\n{'outside an idle container, KiB':34}{'processes':>10}{'kernel':>10}")
    for name, (processes, kernel) in memory.items():
        print(f"{name:34}{processes:10}{kernel:10}")
    print(f"\n{options.rounds} rounds, load {result['load']:.2f}")


if __name__ == "__main__":
    main()
