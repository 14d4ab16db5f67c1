"""
Serve the chat page, which shows a run too, and an OpenAI-compatible API.

    python -m scripts.chat_web                                    http://localhost:8000
    python -m scripts.chat_web --host=0.0.0.0 --api_key=SECRET    for others too, who then need the key
    python -m scripts.chat_web --public_host=chat.example.com --api_key=SECRET    behind a proxy or a tunnel
    NANOCHAT_BASE_DIR=FOLDER python -m scripts.chat_web           the run in that folder

Before a model is there the page shows how the run gets on, and takes each stage's model when somebody asks
it. By default only this machine can reach it, and needs no key. Who opens it to a network has to say how
strangers are kept out, since every answer costs the machine's time.
"""
import contextlib
import errno
import ipaddress
import os
import socket
import threading
import time
from dataclasses import dataclass

import uvicorn

from nanochat.cli import option, parse
from nanochat.common import UsageError, base_dir, log, run, setup_logging
from nanochat.serve import limits
from nanochat.serve.origins import parse_hosts, parse_origins
from nanochat.serve.served import ALL_STAGES, Checkpoints, Served
from nanochat.serve.server import create_app
from nanochat.train import places

LAST_PORT = 65535
RANGES = {"port": (0, LAST_PORT), "slots": (1, 1024), "queue": (0, 100_000), "rate": (0, 10_000),
          "temperature": (0, 2), "top_k": (0, 1 << 20)}


@dataclass
class Config(places.ModelFlags):
    source: str = places.source_flag()
    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0 is every network")
    port: int = option(8000, "port to listen on; 0 takes a free one")
    preload: bool = option(True, "load the model now; else when somebody asks it, and until then it costs "
                                 "next to nothing")
    next_port: bool = option(False, "where the port is taken, try those after it")
    ends_with: int = option(0, "end when the process of this number has ended")
    api_key: str = option("", "what requests must send as 'Authorization: Bearer <key>'")
    no_auth: bool = option(False, "let everybody in who can reach --host")
    public_host: str = option("", "names that a proxy, a tunnel or a container has for this server, such as "
                                  "chat.example.com; with commas between")
    allow_origin: str = option("", "sites whose pages may use it too, as https://front.example; * is any")
    trusted_proxy: str = option("", "address of the proxy that tells in X-Forwarded-For who asks; without it "
                                    "all that a proxy brings are one client for --rate")
    slots: int = option(8, "answers decoded together; each holds a context's KV cache")
    queue: int = option(32, "requests that may wait; more get 429")
    rate: int | None = option(None, "requests a minute that one client may make, 0 for any number; by "
                                    "default 60, on this machine alone 0")
    temperature: float = option(0.0, "for requests that name none; 0 is the most correct for small models")
    top_k: int = option(50, "for requests that name none; 0 is off")
    feedback: bool | None = option(None, "keep what is liked and disliked, with its chat, in feedback.jsonl "
                                         "of the base folder, for chat_sft; by default on this machine alone")
    deterministic: bool = option(False, "the same seed gives the same answer bit for bit, whoever else asks; "
                                        "slower (CPU)")
    int8: bool = option(False, "weights in 8 bits, and what they multiply: faster, a little less exact (CPU)")

    def __post_init__(self) -> None:
        self.public_hosts = parse_hosts("public_host", self.public_host)
        self.origins = parse_origins("allow_origin", self.allow_origin)
        if self.opened_by and not self.api_key and not self.no_auth:
            raise UsageError(f"{self.opened_by} lets others use this server. Give it an --api_key, or say "
                             "--no_auth.")
        if self.rate is None:
            self.rate = 60 if self.opened_by else 0
        if self.feedback is None:
            self.feedback = not self.opened_by
        try:
            ipaddress.ip_network(self.trusted_proxy or "127.0.0.1")
        except ValueError:
            raise UsageError(f"--trusted_proxy must be an address such as 127.0.0.1 or 172.16.0.0/12, got "
                             f"{self.trusted_proxy!r}.") from None
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"--{name} must be from {low} to {high}, got {getattr(self, name)}.")

    @property
    def opened_by(self) -> str:
        """The flag that lets in others than the user of this machine; "" if none does."""
        if not self.local:
            return f"--host={self.host}"
        if self.public_hosts:
            return f"--public_host={self.public_host}"
        return "--allow_origin=*" if "*" in self.origins else ""

    @property
    def local(self) -> bool:
        """Whether nobody but this machine can reach the address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def listen(host: str, port: int, or_next: bool = False) -> socket.socket:
    """A listening socket, opened before the model is loaded: that may take a minute, a taken port is known at
    once.

    With `or_next` a taken port gives way to one of those after it. Raises UsageError.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        if or_next and error.errno == errno.EADDRINUSE and port < LAST_PORT:
            return listen(host, port + 1, or_next)
        why = str(error.strerror).partition(" (")[0]
        raise UsageError(f"cannot listen on {host}:{port}: {why}. Choose another --port or --host.") from None


def models_of(config: Config) -> Served:
    """The models that these flags name: a stage's, a step's, or those of all stages.

    Raises MissingArtifact where one was asked for that is not there, UsageError.
    """
    stage = config.source
    if not stage and (config.tag or config.step is not None):
        stage = places.newest_chat_stage(config.tag)
    if stage:
        places.find(stage, config.tag, config.step)
    served = Served(Checkpoints((stage,) if stage else ALL_STAGES, config.tag, config.step, config.device,
                                deterministic=config.deterministic, int8=config.int8),
                    config.slots, config.queue, config.temperature, config.top_k)
    if config.preload and served.source.found():
        served.preload()
    return served


def end_with(process: int, server: uvicorn.Server) -> None:
    """Stop the server when there is no such process any more: one that was killed stops nobody."""
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.kill(process, 0)
            time.sleep(1)
    server.should_exit = True


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    setup_logging()
    with listen(config.host, config.port, config.next_port) as sock:
        served = models_of(config)
        # The names that a browser may know this server by (see origins.py). Of one that listens to a network
        # we cannot know them.
        hosts = ("localhost",) if config.local else ()
        app = create_app(served, api_key=config.api_key, hosts=hosts, public_hosts=config.public_hosts,
                         allow_origins=config.origins, rate=config.rate or 0,
                         feedback=base_dir() / "feedback.jsonl" if config.feedback else None)
        shown = "localhost" if config.local else socket.getfqdn()
        log.info("Stop with Ctrl-C.")
        log.info(f"Chat at http://{shown}:{sock.getsockname()[1]}")
        if config.public_hosts and config.rate and not config.trusted_proxy:
            log.info(f"All that comes through a proxy shares {config.rate} requests a minute (--rate) unless "
                     "--trusted_proxy gives its address, and it sends X-Forwarded-For.")
        server = limits.server(app, config.trusted_proxy)
        if config.ends_with:
            threading.Thread(target=end_with, args=(config.ends_with, server), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):  # which uvicorn passes on at its end
            server.run(sockets=[sock])


if __name__ == "__main__":
    run(main)
