"""The doors."""
from nanochat import common  # noqa: F401    the package comes before torch (nanochat/__init__.py)
