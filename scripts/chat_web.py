"""
Serve the chat page and an OpenAI-compatible API.

    python -m scripts.chat_web                                    http://localhost:8000
    python -m scripts.chat_web --host=0.0.0.0 --api_key=SECRET    for others too, who then need the key
    python -m scripts.chat_web --public_host=chat.example.com --api_key=SECRET    behind a proxy or a tunnel

By default only this machine can reach it, and needs no key. Who opens it to a network has to say how
strangers are kept out, since every answer costs the machine's time.
"""
import contextlib
import ipaddress
import socket
from dataclasses import dataclass

from nanochat import runtime
from nanochat.cli import option, parse
from nanochat.common import UsageError, base_dir, log, run, setup_logging
from nanochat.eval import records
from nanochat.infer.engine import Engine
from nanochat.serve import limits
from nanochat.serve.origins import parse_hosts, parse_origins
from nanochat.serve.server import create_app
from nanochat.train import checkpoint

RANGES = {"port": (0, 65535), "slots": (1, 1024), "queue": (0, 100_000), "rate": (0, 10_000),
          "temperature": (0, 2), "top_k": (0, 1 << 20)}


@dataclass
class Config(checkpoint.ModelFlags):
    source: str = checkpoint.source_flag()
    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0 is every network")
    port: int = option(8000, "port to listen on; 0 takes a free one")
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


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, opened before the model is loaded: that may take a minute, a taken port is known at
    once.

    Raises UsageError.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]
        raise UsageError(f"cannot listen on {host}:{port}: {why}. Choose another --port or --host.") from None


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    with listen(config.host, config.port) as sock:
        rt = runtime.init(config.device)
        setup_logging(rt.rank)
        if (config.deterministic or config.int8) and rt.device.type != "cpu":
            raise UsageError("--deterministic and --int8 are for a CPU: --device=cpu.")
        source = config.source or checkpoint.newest_chat_stage()
        model, tokenizer, _ = checkpoint.load_model(source, rt, config.tag, config.step)
        engine = Engine(model, tokenizer, deterministic=config.deterministic, int8=config.int8)
        # The names that a browser may know this server by (see origins.py). Of one that listens to a network
        # we cannot know them.
        hosts = ("localhost",) if config.local else ()
        graded = f"{source}@{config.tag}" if config.tag else source
        app = create_app(engine, model_id=f"nanochat-{source}", api_key=config.api_key, hosts=hosts,
                         public_hosts=config.public_hosts, allow_origins=config.origins,
                         slots=config.slots, max_waiting=config.queue, temperature=config.temperature,
                         top_k=config.top_k, rate=config.rate or 0,
                         suggestions=records.passed_questions(graded),
                         feedback=base_dir() / "feedback.jsonl" if config.feedback else None)
        shown = "localhost" if config.local else socket.getfqdn()
        log.info("Stop with Ctrl-C.")
        log.info(f"Chat at http://{shown}:{sock.getsockname()[1]}")
        if config.public_hosts and config.rate and not config.trusted_proxy:
            log.info(f"All that comes through a proxy shares {config.rate} requests a minute (--rate) unless "
                     "--trusted_proxy gives its address, and it sends X-Forwarded-For.")
        with contextlib.suppress(KeyboardInterrupt):  # which uvicorn passes on at its end
            limits.server(app, config.trusted_proxy).run(sockets=[sock])


if __name__ == "__main__":
    run(main)
