"""
Two nodes of two processes each, as README.md starts them: network namespaces with their own addresses, joined by a cable.

    python -m pytest tests/test_nodes.py --slow
"""
import json
import os
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from nanochat.common import base_dir
from nanochat.kindergarten import documents
from nanochat.tokenizer import Tokenizer

TRAIN = ["-m", "scripts.base_train", "--", "--device=cpu", "--depth=2", "--sequence_len=64", "--total_batch_size=1024",
         "--device_batch_size=2", "--num_iterations=4", "--eval_tokens=1024"]


@pytest.fixture
def nodes():
    """[(namespace, address, interface), ...] of two nodes that see each other and nothing else."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces want root and iproute2")
    made = [(f"nc{i}_{os.getpid()}", f"10.77.0.{i}", f"nc{i}e{os.getpid()}") for i in (1, 2)]
    commands = [f"netns add {name}" for name, _, _ in made] + [f"link add {made[0][2]} type veth peer name {made[1][2]}"]
    for name, address, interface in made:
        commands += [f"link set {interface} netns {name}", f"-n {name} addr add {address}/24 dev {interface}",
                     f"-n {name} link set {interface} up", f"-n {name} link set lo up"]
    try:
        for command in commands:
            done = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespaces here: ip {command}: {done.stderr.strip()}")
        yield made
    finally:
        for name, _, _ in made:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def trained(tag):
    metrics = json.loads((base_dir() / "report" / "results" / "base_train.json").read_text(encoding="utf-8"))["metrics"]
    lines = (base_dir() / "logs" / f"base_{tag}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines], metrics["val_bpb"]


@pytest.mark.slow
def test_two_nodes_of_two_processes_train_as_one_process_does(nodes, tmp_path, python):
    texts, folder = list(documents(400, seed=0)), tmp_path / "text"
    folder.mkdir()
    for name, part in (("a", texts[:320]), ("b", texts[320:])):
        pq.write_table(pa.table({"text": part}), folder / f"{name}.parquet")
    Tokenizer.train(texts, 512).save()
    alone = python(*TRAIN[:2], *TRAIN[3:], f"--dataset={folder}", "--tag=alone")
    assert alone.returncode == 0, alone.stdout + alone.stderr
    expected = trained("alone")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=2", "--rdzv_backend=c10d",
              f"--rdzv_endpoint={nodes[0][1]}:29500", "--rdzv_id=test"]
    started = [subprocess.Popen(["ip", "netns", "exec", name, *launch, f"--local_addr={address}", *TRAIN, f"--dataset={folder}",
                                 "--tag=nodes"], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                env={**os.environ, "GLOO_SOCKET_IFNAME": interface}) for name, address, interface in nodes]
    try:
        said = [process.communicate(timeout=300)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)
    assert "on 4 x" in said[0] + said[1]
    losses, bpb = trained("nodes")
    assert losses == pytest.approx(expected[0], abs=1e-4) and bpb == pytest.approx(expected[1], abs=1e-4)
