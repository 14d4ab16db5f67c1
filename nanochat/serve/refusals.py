"""Why a model cannot answer now, in words that know nothing of HTTP: errors.py gives each its status."""
from nanochat.common import NanochatError


class Busy(NanochatError):
    """Every place is taken. To wait is enough."""


class Stopped(NanochatError):
    """The thread has crashed or is about to end. To wait does not help."""


class NoModel(NanochatError):
    """None is there yet, or it cannot be loaded."""
