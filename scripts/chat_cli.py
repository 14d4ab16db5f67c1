"""
Talk to a model in the terminal.

    python -m scripts.chat_cli -p "What is 47 * 12?"    one answer, then exit
    python -m scripts.chat_cli -i mid --temperature=0.8

With -i base the model just goes on with the text it is given.
"""
import contextlib
import os
import sys
from dataclasses import dataclass, replace

from nanochat import runtime
from nanochat.cli import at_least, option, parse
from nanochat.common import NanochatError, UsageError, log, mix_seed, run, setup_logging
from nanochat.data.chat_format import render_prompt
from nanochat.infer.engine import Engine
from nanochat.infer.sampling import Sampling
from nanochat.serve.message_parts import join_texts, message_part
from nanochat.train import checkpoint

HELP = """/clear             forget the conversation
/temperature X     0 always takes the likeliest word, 1 follows the model
/topk N            sample among the N likeliest tokens only (0: all)
/help              this list
/quit              leave (or Ctrl-D); Ctrl-C stops an answer
A line that ends in \\ goes on in the next one."""


@dataclass
class Config(checkpoint.ModelFlags):
    prompt: str = option("", "ask this, print the answer and exit", short="p")
    source: str = checkpoint.source_flag()
    temperature: float = option(0.0, "0 is the most correct for small models; 0.6 to 1 brings variety", short="t")
    top_k: int = option(50, "sample among this many likeliest tokens (0: all)", short="k")
    max_tokens: int = option(256, "longest answer in tokens, at most a quarter of the context")
    seed: int = option(0, "the same seed and the same conversation give the same answers")

    def __post_init__(self):
        at_least(self, max_tokens=1)
        Sampling(temperature=self.temperature, top_k=self.top_k)  # raises UsageError


SETTINGS = {"temperature": ("temperature", float), "topk": ("top_k", int)}


def note(text, end="\n"):
    dim = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(f"\033[2m{text}\033[0m" if dim else text, end=end, flush=True)


class Chat:
    def __init__(self, engine, config, base=False):
        self.engine, self.config, self.base = engine, config, base
        self.messages, self.turn, self.stopped = [], 0, False
        self.room = min(config.max_tokens, engine.max_len // 4)

    def prompt(self):
        """Token ids to answer to, with a note where not all that was said has room."""
        tokenizer, limit = self.engine.tokenizer, self.engine.max_len - self.room
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

    def answer(self, question):
        """Print the answer as it comes. Ctrl-C ends it early; what was said stays."""
        self.messages.append({"role": "user", "content": question})
        self.turn += 1
        events, config = [], self.config
        stream = self.engine.stream(self.prompt(), max_new_tokens=self.room, temperature=config.temperature,
                                    top_k=config.top_k, seed=mix_seed(config.seed, self.turn), use_tools=not self.base)
        try:
            with contextlib.closing(stream):
                for event in stream:
                    if event.kind == "text":
                        print(event.text, end="", flush=True)
                    elif event.kind == "python_output":  # with its call
                        note(f"[{events[-1].text} = {event.text}]", end=" ")
                    elif event.finish_reason == "length":
                        note(" (cut at the longest answer allowed)", end="")
                    events.append(event)
        except KeyboardInterrupt:
            self.stopped = True
            note(" (stopped)", end="")
        print()
        if not self.base:
            parts = [message_part(event) for event in join_texts(events) if event.kind != "end"]
            self.messages.append({"role": "assistant", "content": parts})

    def command(self, line):
        """Carry out a line that starts with '/'. True: leave."""
        name, _, value = map(str.strip, line[1:].partition(" "))
        if name == "clear":
            self.messages, self.turn = [], 0
            note("(a new conversation)")
        elif name in SETTINGS:
            field, kind = SETTINGS[name]
            try:
                self.config = replace(self.config, **{field: kind(value)} if value else {})
            except UsageError as e:
                print(e)
            except ValueError:
                print(f"{value!r} is not a number.")
            note(f"({field} is {getattr(self.config, field)})")
        elif name != "quit":
            print(HELP if name == "help" else f"There is no /{name}.\n{HELP}")
        return name == "quit"

    def loop(self):
        with contextlib.suppress(AttributeError):
            sys.stdin.reconfigure(errors="replace")
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (line editing and history)
        while True:
            del self.messages[len(self.messages) // 2 * 2:]  # an unanswered question
            try:
                line = input("\n> ")
                while line.endswith("\\"):
                    line = line[:-1] + "\n" + input(". ")
                line = line.strip()
                if line.startswith("/"):
                    if self.command(line):
                        return
                elif line:
                    self.answer(line)
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                note("\n(Ctrl-D or /quit leaves)")
            except NanochatError as e:
                print(f"error: {e}")


def main(argv=None):
    config = parse(Config, argv, __doc__)
    rt = runtime.init(config.device)
    setup_logging(rt.rank)
    source = config.source or checkpoint.newest_chat_stage()
    model, tokenizer, meta = checkpoint.load_model(source, rt, config.tag, config.step)
    chat = Chat(Engine(model, tokenizer), config, base=source == "base")
    if config.prompt:
        chat.answer(config.prompt)
        return 130 if chat.stopped else None
    log.info(f"{source} model, {model.num_params():,} parameters, step {meta['step']}, on {rt}. Try /help.")
    chat.loop()


if __name__ == "__main__":
    run(main)
