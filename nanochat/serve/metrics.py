"""
What a server counts, for Prometheus to collect from /metrics
(https://prometheus.io/docs/concepts/metric_types).

A counter only grows (the monitor computes rates from it), a gauge goes up and down, a histogram counts how
many values were below each of some bounds, from which the monitor estimates percentiles. Two latencies matter
to who chats: the time until the first token (queue and prompt) and the time for each token after it
(decoding).
"""
from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:  # it has the metrics
    from nanochat.serve.served import Served

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST


class Metrics:
    """One server's metrics, in a registry of its own: the library's global one would mix those of several
    servers."""

    def __init__(self, served: "Served"):
        # The library tells beside each counter when it was made, which doubles what is sent. To switch that
        # off is possible for a process only; nothing in this one wants it.
        prometheus_client.disable_created_metrics()
        self._registry = CollectorRegistry()
        registry = self._registry
        self.requests = Counter(
            "nanochat_requests_total",
            "Responses by the path that was asked.",
            ["path", "status"],
            registry=registry,
        )
        self.tokens = Counter(
            "nanochat_tokens_total",
            "Tokens of complete answers and of their prompts.",
            ["kind"],
            registry=registry,
        )
        self.first_token_seconds = Histogram(
            "nanochat_first_token_seconds",
            "From a request to its first token.",
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.per_token_seconds = Histogram("nanochat_per_token_seconds", "For each token after the first.",
                                           buckets=BUCKETS_S, registry=registry)

        # These two are asked of the workers when somebody looks, so they can never be out of step with them.
        running = Gauge("nanochat_running", "Answers that are being decoded.", registry=registry)
        running.set_function(lambda: served.running)
        waiting = Gauge("nanochat_waiting", "Answers that wait for a slot.", registry=registry)
        waiting.set_function(lambda: served.busy - served.running)

    def text(self) -> bytes:
        """All of them in Prometheus' text format, of type CONTENT_TYPE."""
        return prometheus_client.generate_latest(self._registry)
