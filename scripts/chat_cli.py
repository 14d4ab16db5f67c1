"""
Talk to a model in the terminal.

    python -m scripts.chat_cli -p "What is 47 * 12?"    one answer, then exit
    python -m scripts.chat_cli -i mid --temperature=0.8

With -i base the model just goes on with the text it is given. No server is involved: the same engine runs in
this process. An answer is printed token by token as it is decoded, a tool's call and its result dimmed and in
brackets.
"""
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nanochat import runtime, terminal
from nanochat.cli import at_least, option, parse
from nanochat.common import NanochatError, UsageError, log, mix_seed, run, setup_logging
from nanochat.data.chat_format import render_prompt
from nanochat.infer.engine import Engine
from nanochat.infer.sampling import Sampling
from nanochat.infer.text_stream import Event, join_texts
from nanochat.train import checkpoint

HELP = """/clear             forget the conversation
/temperature X     0 always takes the likeliest word, 1 follows the model
/topk N            sample among the N likeliest tokens only (0: all)
/help              this list
/quit              leave (or Ctrl-D); Ctrl-C stops an answer
A line that ends in \\ goes on in the next one; what is pasted is one message, whatever its lines."""


@dataclass
class Config(checkpoint.ModelFlags):
    prompt: str | None = option(None, "ask this (-: what stdin holds), print the answer and exit", short="p")
    source: str = checkpoint.source_flag()
    temperature: float = option(0.0, "0 is the most correct for small models; 0.6 to 1 brings variety",
                                short="t")
    top_k: int = option(50, "sample among this many likeliest tokens (0: all)", short="k")
    max_tokens: int = option(256, "longest answer in tokens, at most three eighths of the context")
    seed: int = option(0, "the same seed and the same conversation give the same answers")

    def __post_init__(self) -> None:
        at_least(self, max_tokens=1)
        if self.temperature > 2:  # beyond, words follow each other at random
            raise UsageError(f"temperature must be at most 2, got {self.temperature}.")
        Sampling(temperature=self.temperature, top_k=self.top_k)  # raises UsageError


# By the name of the command: the field of Config and its type.
SETTINGS = {"temperature": ("temperature", float), "topk": ("top_k", int)}


def note(text: str, end: str = "\n") -> None:
    """Print what is not the model's answer: dimmed on a terminal, plain where the output goes into a file or
    a pipe.

    Two control sequences are all that is needed. A library that styles text also wraps lines and replaces
    names of emoji, which what a model says must be spared.
    """
    dim = sys.stdout.isatty() and "NO_COLOR" not in os.environ  # https://no-color.org
    print(f"\033[2m{text}\033[0m" if dim else text, end=end, flush=True)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C: a second one must not leave undone half of what the first asked for."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Chat:
    """A conversation in the terminal, or with `base` one text after the other that the model goes on with."""

    def __init__(self, engine: Engine, config: Config, base: bool = False):
        self.engine = engine
        self.config = config
        self.base = base
        self.messages: list[dict] = []
        self.turn = 0  # mixed into the seed: the same question again gets another answer
        self.stopped = False  # by Ctrl-C, in the last answer
        self.longest_answer = min(config.max_tokens, 3 * engine.max_len // 8)  # tokens

    def prompt(self) -> list[int]:
        """Token ids to answer to, with a note where not all that was said has room.

        The model's context holds prompt and answer together, so the answer's room is kept free of the prompt.
        """
        tokenizer = self.engine.tokenizer
        limit = self.engine.max_len - self.longest_answer
        if self.base:
            ids = tokenizer.encode(self.messages.pop()["content"])
            if len(ids) >= limit:
                note("(the text is too long: its beginning was left out)")
            return [tokenizer.bos_id, *ids[1 - limit:]]
        if len(render_prompt(tokenizer, self.messages[-1:])) > limit:
            note("(the question is too long: its beginning was left out)")
        elif len(render_prompt(tokenizer, self.messages)) > limit:
            note("(the oldest turns no longer fit and were left out)")
        return render_prompt(tokenizer, self.messages, limit)

    def answer(self, question: str) -> None:
        """Print the answer as it comes. Ctrl-C ends it early; what was said stays in the conversation."""
        self.messages.append({"role": "user", "content": question})
        self.turn += 1
        config = self.config
        stream = self.engine.stream(self.prompt(), max_new_tokens=self.longest_answer,
                                    temperature=config.temperature, top_k=config.top_k,
                                    seed=mix_seed(config.seed, self.turn), use_tools=not self.base)
        events: list[Event] = []
        self.stopped = False
        try:
            for event in stream:
                self._show(event, events)
                events.append(event)
        except KeyboardInterrupt:
            self.stopped = True
        with undisturbed():
            stream.close()
            if self.stopped:
                note(" (stopped)", end="")
            print()
            if not self.base:
                parts = [event.part for event in join_texts(events) if event.kind != "end"]
                self.messages.append({"role": "assistant", "content": parts})

    def _show(self, event: Event, before: list[Event]) -> None:
        """Print one event of an answer; `before` are those that came earlier."""
        if event.kind == "text":
            print(event.text, end="", flush=True)
        elif event.kind == "python_output":  # shown with the call that stands before it
            note(f"[{before[-1].text} = {event.text}]", end=" ")
        elif event.finish_reason == "length":
            note(" (cut at the longest answer allowed)", end="")

    def command(self, line: str) -> bool:
        """Carry out a line that starts with '/'. True: leave."""
        name, _, value = line[1:].partition(" ")
        name = name.strip()
        if name == "quit":
            return True
        if name == "clear":
            self.messages = []
            self.turn = 0
            note("(a new conversation)")
        elif name in SETTINGS:
            self._set(*SETTINGS[name], value.strip())
        elif name == "help":
            print(HELP)
        else:
            print(f"There is no /{name}.\n{HELP}")
        return False

    def _set(self, field: str, kind: type, value: str) -> None:
        """Change a setting unless `value` is empty, and show it."""
        try:
            if value:
                self.config = replace(self.config, **{field: kind(value)})
        except UsageError as error:
            print(error)
        except ValueError:
            print(f"{value!r} is not a number.")
        note(f"({field} is {getattr(self.config, field)})")

    def loop(self) -> None:
        """Read lines and answer them until the user leaves."""
        with contextlib.suppress(ImportError):
            import readline  # line editing and history
            # The terminal says where a pasted text ends: its lines become one message.
            readline.parse_and_bind("set enable-bracketed-paste on")
        while True:
            # Messages come in pairs. One without its partner is a question whose answer failed or was never
            # begun.
            pairs = len(self.messages) // 2
            del self.messages[2 * pairs:]
            try:
                line = read_lines()
                if line.startswith("/"):
                    if self.command(line):
                        return
                elif line:
                    self.answer(line)
            except EOFError:
                if sys.stdin.isatty():
                    print()
                return
            except KeyboardInterrupt:
                note("\n(Ctrl-D or /quit leaves)")
            except NanochatError as error:
                print(f"error: {error}")


def read_lines() -> str:
    """What the user types: a line, the next where it ends in a backslash, and what was pasted with it."""
    text = terminal.ask("\n> ")
    while True:
        if text.endswith("\\"):
            text = text[:-1] + "\n" + terminal.ask(". ")
        elif terminal.is_pasted():
            text += "\n" + terminal.ask("")
        else:
            return text.strip()


def main(argv: list[str] | None = None) -> int | None:
    config = parse(Config, argv, __doc__)
    prompt = sys.stdin.read().rstrip("\n") if config.prompt == "-" else config.prompt
    if prompt is not None and not prompt.strip():
        raise UsageError("--prompt is empty: there is nothing to answer.")
    rt = runtime.init(config.device)
    setup_logging(rt.rank)
    source = config.source or checkpoint.newest_chat_stage(config.tag)
    with contextlib.redirect_stdout(sys.stderr if config.prompt else sys.stdout):  # where an answer is all
        model, tokenizer, _ = checkpoint.load_model(source, rt, config.tag, config.step)
    chat = Chat(Engine(model, tokenizer), config, base=source == "base")
    if prompt:
        chat.answer(prompt)
        return 130 if chat.stopped else None  # as a shell expects of a program that Ctrl-C ended
    log.info("Try /help.")
    chat.loop()
    return None


if __name__ == "__main__":
    run(main)
