"""The package; importing it before torch settles how torch's threads wait."""
import os

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # 1 ms, not for good: others may want the core
