"""The package; importing it before torch settles how torch's threads wait, and Ctrl-C while it loads."""
import os
import signal
import sys

# Between two operations torch's OpenMP threads spin for the next one. By default they spin long, which takes
# the core from others (another rank, the data's threads). 20,000 turns are about 1 ms. OpenMP reads this
# once, at its start.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def _stop_loading(number, frame):
    """Not by an exception: some half-loaded module might swallow it."""
    os.write(2, b"stopped: interrupted while loading; run the same command again\n")
    os._exit(130)


# A script's modules load for seconds before its main runs: Ctrl-C is answered here until common.run does so.
# argv[0] is "-m" while Python looks for a module to run; who imports nanochat is left alone.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, _stop_loading)
