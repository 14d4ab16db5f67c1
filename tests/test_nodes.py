"""
Two nodes of two processes each, started by runs/nodes.sbatch: each node has a name, an address and a network of its own, and
a cable joins the two. Slurm's own two commands are stand-ins of a few lines.
"""
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from safetensors.torch import load_file
from torch.testing import assert_close

from nanochat import checkpoint, dataset
from nanochat.common import base_dir
from scripts import base_train, tok_train

FLAGS = ["--dataset=kindergarten", "--depth=2", "--sequence_len=64", "--total_batch_size=1024", "--device_batch_size=2",
         "--num_iterations=3", "--eval_tokens=1024", "--device=cpu"]
NAMES = ["first-node", "second-node"]
IN_NODE = """
ip netns exec {space} unshare --mount --uts sh -c '
    hostname {name} && mount --bind {hosts} /etc/hosts && export NANOCHAT_BASE_DIR={base} && exec "$@"' sh "$@" >{out} 2>&1 &
"""


class Nodes:
    """Stand-ins for srun and scontrol in `folder`, which run a command on both nodes and name them."""

    def __init__(self, spaces, hosts, folder):
        self.spaces, self.hosts, self.folder = spaces, hosts, folder
        self._write("scontrol", f"[ \"$*\" = 'show hostnames the-nodes' ] && printf '{NAMES[0]}\\n{NAMES[1]}\\n'")
        self._write("torchrun", f'exec {shlex.quote(sys.executable)} -m torch.distributed.run "$@"')

    def _write(self, name, text):
        path = self.folder / name
        path.write_text(f"#!/usr/bin/env bash\n{text}\n", encoding="utf-8")
        path.chmod(0o755)

    def run(self, *bases):
        """Run the batch script with these base directories; returns (exit code, what each node said)."""
        outs = [self.folder / f"{name}.txt" for name in NAMES]
        parts = [IN_NODE.format(space=space, name=name, hosts=self.hosts, base=shlex.quote(str(base)), out=out)
                 for space, name, base, out in zip(self.spaces, NAMES, bases, outs)]
        self._write("srun", "".join(part + f"pid{i}=$!\n" for i, part in enumerate(parts)) + "wait $pid0 && wait $pid1")
        env = {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "the-nodes", "SLURM_JOB_ID": "7",
               "SLURM_JOB_NUM_NODES": "2", "PER_NODE": "2", "NANOCHAT_DTYPE": "float32"}
        job = subprocess.Popen(["bash", "runs/nodes.sbatch", "scripts.base_train", *FLAGS], cwd=ROOT, env=env,
                               start_new_session=True)
        try:
            code = job.wait(timeout=240)
        finally:
            with_children(job.pid)
        return code, [out.read_text(encoding="utf-8") for out in outs]


def with_children(session):
    try:
        os.killpg(session, signal.SIGKILL)
    except ProcessLookupError:
        pass


def ip(command):
    done = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no network namespaces here: ip {command}: {done.stderr.strip()}")


@pytest.fixture
def nodes(tmp_path):
    if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("network namespaces want root, iproute2 and util-linux")
    number, hosts = os.getpid(), tmp_path / "hosts"
    spaces, ends = [f"nodes{number}{x}" for x in "ab"], [f"n{number}{x}" for x in "ab"]
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"10.77.0.{i} {name}\n" for i, name in enumerate(NAMES, 1)),
                     encoding="utf-8")
    (tmp_path / "bin").mkdir()
    try:
        for space in spaces:
            ip(f"netns add {space}")
        ip(f"-n {spaces[0]} link add {ends[0]} type veth peer name {ends[1]} netns {spaces[1]}")
        for i, (space, end) in enumerate(zip(spaces, ends), 1):
            ip(f"-n {space} addr add 10.77.0.{i}/24 dev {end}")
            ip(f"-n {space} link set {end} up")
            ip(f"-n {space} link set lo up")
        yield Nodes(spaces, hosts, tmp_path / "bin")
    finally:
        for space in spaces:
            for pid in subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True).stdout.split():
                os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", space], capture_output=True)


@pytest.fixture
def trained(monkeypatch):
    """(losses, weights) of the run on one process."""
    monkeypatch.setattr(dataset, "KINDERGARTEN_SHARD", 120)
    monkeypatch.setattr(dataset, "KINDERGARTEN_VAL", 30)
    monkeypatch.setenv("NANOCHAT_DTYPE", "float32")
    tok_train.main(["--dataset=kindergarten", "--vocab_size=600"])
    base_train.main(FLAGS)
    return results(base_dir())


def results(base):
    lines = (base / "logs" / "base_d2.jsonl").read_text(encoding="utf-8").splitlines()
    return ([json.loads(line)["loss"] for line in lines],
            load_file(base / "base_checkpoints" / "d2" / "000003" / "model.safetensors"))


def copied(to, *names):
    for name in names:
        shutil.copytree(base_dir() / name, to / name)
    return to


def test_two_nodes_of_two_processes_train_as_one_process_does(nodes, trained, tmp_path):
    """With one base directory, as on a cluster, and then with one each, where the second node tokenizes for itself."""
    shared = copied(tmp_path / "shared", "tokenizer", "base_data")
    code, said = nodes.run(shared, shared)
    assert code == 0, "\n".join(said)
    losses, weights = results(shared)
    assert len(losses) == 3 and losses == pytest.approx(trained[0], abs=2e-3)
    for name, tensor in trained[1].items():
        assert_close(weights[name], tensor, rtol=1e-3, atol=5e-4)
    assert "on 4 x" in said[0] + said[1]
