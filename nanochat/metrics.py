"""What a server counts, in Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats)."""
from bisect import bisect_left
from collections import Counter
from itertools import accumulate

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters and histograms. Not thread-safe: the event loop owns it."""

    def __init__(self):
        self.requests, self.tokens = Counter(), Counter()   # by (path, status); by kind
        self.seconds = {name: [0.0, Counter()] for name in ("first_token", "per_token")}   # sum, {bucket: how many}

    def observe(self, name, seconds):
        self.seconds[name][0] += seconds
        self.seconds[name][1][bisect_left(BUCKETS_S, seconds)] += 1

    def text(self, **gauges):
        lines = [f'nanochat_requests_total{{path="{path}",status="{status}"}} {n}'
                 for (path, status), n in self.requests.items()]
        lines += [f'nanochat_tokens_total{{kind="{kind}"}} {n}' for kind, n in self.tokens.items()]
        lines += [f"nanochat_{name} {value}" for name, value in gauges.items()]
        for name, (total, counts) in self.seconds.items():
            upto = list(accumulate(counts[i] for i in range(len(BUCKETS_S) + 1)))
            lines += [f'nanochat_{name}_seconds_bucket{{le="{le}"}} {n}' for le, n in zip((*BUCKETS_S, "+Inf"), upto)]
            lines += [f"nanochat_{name}_seconds_sum {total:.6f}", f"nanochat_{name}_seconds_count {upto[-1]}"]
        types = {"requests_total": "counter", "tokens_total": "counter", **dict.fromkeys(gauges, "gauge"),
                 **{f"{name}_seconds": "histogram" for name in self.seconds}}
        return "\n".join([f"# TYPE nanochat_{name} {kind}" for name, kind in types.items()] + lines) + "\n"
