"""What a server counts, in Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats)."""
from collections import Counter

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, "+Inf")
TYPES = {"requests_total": "counter", "tokens_total": "counter", "running": "gauge", "waiting": "gauge",
         "first_token_seconds": "histogram", "per_token_seconds": "histogram"}


class Metrics(Counter):
    """Counts by name and labels. Not thread-safe: the event loop owns it."""

    def observe(self, name, seconds):
        for le in BUCKETS_S:
            self[f'{name}_bucket{{le="{le}"}}'] += seconds <= float(le)
        self[f"{name}_sum"] += seconds
        self[f"{name}_count"] += 1

    def text(self, **gauges):
        """Everything, one metric after the other; labels in the order in which they came, as buckets must be."""
        values = sorted({**self, **gauges}.items(), key=lambda item: item[0].partition("{")[0])
        return "".join([f"# TYPE nanochat_{name} {kind}\n" for name, kind in TYPES.items()]
                       + [f"nanochat_{name} {value}\n" for name, value in values])
