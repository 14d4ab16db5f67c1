"""
Two nodes of two processes each, started by runs/nodes.sh: each has a name, an address and a network of its own, and a cable
joins them. Slurm's own two commands are stand-ins of a few lines.
"""
import contextlib
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

from nanochat.common import base_dir
from nanochat.data import datasets
from scripts import base_train, tok_train

# Without tables: AdamW makes a whole step of a gradient that is rounding noise, of which they have more.
FLAGS = ["--dataset=kindergarten", "--depth=2", "--sequence_len=64", "--total_batch_size=1024", "--device_batch_size=2",
         "--num_iterations=3", "--seed=1", "--eval_tokens=1024", "--device=cpu", "--value_tables=0"]
NAMES = ["first-node", "second-node"]
IN_NODE = """
ip netns exec {space} unshare --mount --uts sh -c '
    hostname {name} && mount --bind {hosts} /etc/hosts && exec "$@"' sh "$@" >{out} 2>&1 &
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

    def run(self, base):
        """Run the batch script with this base directory; returns (exit code, what each node said)."""
        outs = [self.folder / f"{name}.txt" for name in NAMES]
        parts = [IN_NODE.format(space=space, name=name, hosts=self.hosts, out=out)
                 for space, name, out in zip(self.spaces, NAMES, outs)]
        self._write("srun", "".join(part + f"pid{i}=$!\n" for i, part in enumerate(parts)) + "wait $pid0 && wait $pid1")
        env = {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", "NANOCHAT_BASE_DIR": str(base),
               "SLURM_JOB_NODELIST": "the-nodes", "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2",
               "SLURM_GPUS_ON_NODE": "2", "NANOCHAT_DTYPE": "float32"}
        job = subprocess.Popen(["bash", "runs/nodes.sh", "scripts.base_train", *FLAGS], cwd=ROOT, env=env,
                               start_new_session=True)
        try:
            code = job.wait(timeout=240)
        finally:
            with contextlib.suppress(ProcessLookupError):       # all have ended, as they should
                os.killpg(job.pid, signal.SIGKILL)
        return code, [out.read_text(encoding="utf-8") if out.exists() else "did not start" for out in outs]


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
    monkeypatch.setattr(datasets, "KINDERGARTEN_SHARD", 120)
    monkeypatch.setattr(datasets, "KINDERGARTEN_VAL", 30)
    monkeypatch.setenv("NANOCHAT_DTYPE", "float32")
    tok_train.main(["--dataset=kindergarten", "--vocab_size=600"])
    base_train.main(FLAGS)
    return results(base_dir())


def results(base):
    lines = (base / "logs" / "base_d2.jsonl").read_text(encoding="utf-8").splitlines()
    return ([json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)],   # not the validations
            load_file(base / "base_checkpoints" / "d2" / "000003" / "model.safetensors"))


def test_two_nodes_of_two_processes_train_as_one_process_does(nodes, trained, tmp_path):
    """They share one base directory, as on a cluster, in which nothing but data and tokenizer is at the start."""
    shared = tmp_path / "shared"
    for name in ("tokenizer", "base_data"):
        shutil.copytree(base_dir() / name, shared / name)
    code, said = nodes.run(shared)
    assert code == 0, "\n".join(said)
    losses, weights = results(shared)
    assert len(losses) == 3 and losses == pytest.approx(trained[0], abs=2e-3)
    for name, tensor in trained[1].items():
        assert_close(weights[name], tensor, rtol=1e-3, atol=5e-4)
    assert sum("on 4 x" in text for text in said) == 1          # rank 0 speaks, on the one node or the other


@pytest.mark.parametrize("script", sorted((ROOT / "runs").glob("*.sh")), ids=lambda path: path.name)
def test_a_recipe_is_well_formed(script):
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
