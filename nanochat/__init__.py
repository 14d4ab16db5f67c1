"""The package; importing it before torch settles how torch's threads wait, and what Ctrl-C does till then."""
import os
import signal
import sys

# Between two operations torch's OpenMP threads spin for the next one. By default they spin long, which takes
# the core from others (another rank, the data's threads). 20,000 turns are about 1 ms. OpenMP reads this
# once, at its start.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def _stop_loading(number, frame):
    """At once: an exception might pass through any half of torch, some of which would swallow it."""
    os.write(2, b"stopped: interrupted while it was loading; run the same command again\n")
    os._exit(130)


# A script's modules take seconds to load before its main can run. So Ctrl-C is answered here until common.run
# takes over. argv[0] is "-m" while Python looks for the module to run: who imports nanochat is left alone.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, _stop_loading)
