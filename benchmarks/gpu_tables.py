"""
The tables of gpu.py: which lines the one of training has, and a line's cells after its name, from what its
process printed.
"""

import statistics
from importlib.util import find_spec

from nanochat.model import attention


def with_peer():
    return find_spec("transformers") is not None


def candidates(depths, config):
    """Names of the training table's lines."""
    for depth in depths:
        for how in ("compiled", "eager", "compiled fp8"):
            yield f"{depth} nanochat {how}"
        if depth == depths[0] and not config.quick:
            for kernel in attention.CUDA_KERNELS:
                yield f"{depth} nanochat compiled {kernel}"
        if with_peer():
            yield f"{depth} transformers eager"
            if not config.quick:
                yield f"{depth} transformers compiled"


def attention_cells(name, found):
    fastest_first = sorted(found["kernels"].items(), key=lambda item: item[1][0])
    each = [f"{kernel} {s * 1e3:.2f} ms ({flops / 1e12:.3g} TFLOP/s)" for kernel, (s, flops) in fastest_first]
    return [" x ".join(map(str, found["shape"])), ", ".join(each), ", ".join(found["refused"]) or "none"]


class TrainCells:
    """Text of a candidate's figures; the first of a depth is what others are compared with."""

    def __init__(self):
        self.first = {}

    def __call__(self, name, found):
        speeds = found["tok_per_s"]  # sorted
        middle = statistics.median(speeds)
        base = self.first.setdefault(name.split()[0], middle)
        mfu = f"{found['flops'] * middle / found['peak']:.1%}" if found["peak"] else "unknown peak"
        rows = str(found["rows"])
        if found["rows"] != found["planned_rows"]:
            rows += f" (planned: {found['planned_rows']})"
        held = f"{found['held'] / 2**30:.1f}" if found["held"] else "not counted"
        return [
            rows,
            found["kernel"],
            f"{middle:,.0f} ({speeds[0]:,.0f} to {speeds[-1]:,.0f})",
            f"{base / middle:.2f}",
            mfu,
            f"{held} / {found['planned'] / 2**30:.1f}",
            f"{found['update']:.1%}",
            f"{found['ready_s']:.0f}",
        ]


def decode_cells(name, found):
    return [
        ", ".join(f"{speed:,.0f}" for speed in found["prefill"].values()),
        ", ".join(f"{speed:,.0f}" for speed in found["decode"].values()),
        ", ".join(f"{share:.0%}" for share in found["share"].values()),
    ]
