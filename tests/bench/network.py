#!/usr/bin/env python3
"""How fast pods of two nodes talk over VXLAN: two pods of a cluster whose agents always use it, and two network namespaces with a VXLAN by hand, round by round.

By hand means what a container engine's overlay is: a namespace with a veth on a bridge, and the VXLAN device on the same bridge. Both cross the same bridge of this machine."""
import argparse, json, os, statistics, subprocess, sys, tempfile, time

REPO = os.path.abspath(f"{os.path.dirname(os.path.abspath(__file__))}/../..")


def call(args, **kwargs):
    run = subprocess.run(args, capture_output=True, text=True, **kwargs)
    if run.returncode:
        raise SystemExit(f"{args}: exit code {run.returncode}\n{run.stdout}{run.stderr}")
    return run.stdout


class Ours:
    """A cluster of two nodes, one pod on each."""

    def __init__(self, work):
        self.env = dict(os.environ, STRATA_HOME=f"{work}/home", STRATA_OVERLAY="vxlan")
        self.ctl = lambda *args, **kwargs: call([f"{work}/home/bin/ctl", *args], env=dict(self.env, STRATA_CONFIG=f"{work}/home/controller/admin.toml"), **kwargs)
        call([f"{REPO}/deploy/quickstart", "up", "--nodes", "2", "--no-demo"], env=self.env)
        call([f"{REPO}/deploy/examples/hello/image", f"{work}/home/bin/strata-hello", f"{work}/hello.tar", "hello:1"])
        self.ctl("image", "import", f"{work}/hello.tar")
        manifest = "kind: Workload\nmeta: {name: ends}\nspec: {mode: Global, template: {containers: [{name: c, image: 'hello:1'}]}}\n"
        self.ctl("apply", "-f", "-", "--wait", "--timeout", "60s", input=manifest)
        pods = json.loads(self.ctl("get", "pods", "-o", "json"))
        assert len({p["status"]["node"] for p in pods}) == 2, pods
        self.ends = [f"--net=/proc/{p['status']['containers'][0]['pid']}/ns/net" for p in pods]
        self.address = pods[1]["status"]["address"]

    def close(self):
        call([f"{REPO}/deploy/quickstart", "down"], env=self.env)


class ByHand:
    """The same between two namespaces on the cluster's bridge."""

    def __init__(self):
        for n in (1, 2):
            host, pod = f"bench-host-{n}", f"bench-pod-{n}"
            other = f"10.63.0.{203 - n}"
            for line in [
                f"ip netns add {host}", f"ip netns add {pod}",
                f"ip link add bench-up-{n} type veth peer name up netns {host}", f"ip link set bench-up-{n} master strata0 up",
                f"ip -n {host} address add 10.63.0.{200 + n}/24 dev up", f"ip -n {host} link set dev up up",
                f"ip -n {host} link add lan mtu 1450 type bridge", f"ip -n {host} link set lan up",
                f"ip -n {host} link add vx mtu 1450 type vxlan id 42 dstport 4789 nolearning", f"ip -n {host} link set vx master lan up",
                f"bridge -n {host} fdb append 00:00:00:00:00:00 dev vx dst {other}",
                f"ip -n {host} link add port mtu 1450 type veth peer name eth0 mtu 1450 netns {pod}", f"ip -n {host} link set port master lan up",
                f"ip -n {pod} address add 10.200.0.{n}/24 dev eth0", f"ip -n {pod} link set eth0 up",
            ]:
                call(line.split())
        self.ends = [f"--net=/run/netns/bench-pod-{n}" for n in (1, 2)]
        self.address = "10.200.0.2"

    def close(self):
        for n in (1, 2):
            for name in (f"bench-pod-{n}", f"bench-host-{n}"):
                call(["ip", "netns", "delete", name])


def gbits(side, seconds):
    server = subprocess.Popen(["nsenter", side.ends[1], "iperf3", "-s", "-1", "-p", "5301"], stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            if ":5301 " in call(["nsenter", side.ends[1], "ss", "-ltn"]):
                break
            time.sleep(0.05)
        answer = json.loads(call(["nsenter", side.ends[0], "iperf3", "-c", side.address, "-p", "5301", "-t", str(seconds), "-J"]))
        return answer["end"]["sum_received"]["bits_per_second"] / 1e9
    finally:
        server.kill()
        server.wait()


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--json", action="store_true")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=3)
    options = options.parse_args()
    ours_gbits, floor_gbits = [], []
    with tempfile.TemporaryDirectory(prefix="strata-bench.") as work:
        ours = Ours(work)
        try:
            floor = ByHand()
            try:
                for _ in range(options.rounds):
                    ours_gbits.append(gbits(ours, options.seconds))
                    floor_gbits.append(gbits(floor, options.seconds))
            finally:
                floor.close()
        finally:
            ours.close()
    ratios = [mine / by_hand for mine, by_hand in zip(ours_gbits, floor_gbits)]
    result = {
        "network_gbits": statistics.median(ours_gbits), "floor_gbits": statistics.median(floor_gbits), "network_to_floor": statistics.median(ratios),
        "rounds": options.rounds, "load": os.getloadavg()[0],
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"pod to pod over VXLAN {result['network_gbits']:.2f} Gbit/s, by hand {result['floor_gbits']:.2f}; in the same rounds {result['network_to_floor']:.2f} of it", file=sys.stdout)


main()
