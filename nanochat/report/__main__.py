"""The door: python -m nanochat.report reset|generate."""
from nanochat.common import run
from nanochat.report import main

if __name__ == "__main__":
    run(main)
