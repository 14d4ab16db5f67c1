"""The package; importing it before torch settles how torch's threads wait."""
import os

# Between two operations torch's OpenMP threads spin for the next one. By default they spin long, which takes
# the core from others (another rank, the data's threads). 20,000 turns are about 1 ms. OpenMP reads this
# once, at its start.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
