"""
Do replies that are held to a JSON schema always fit it, and what does that cost?

    python benchmarks/bench_json.py                  the newest chat model, through the server's own worker
    python benchmarks/bench_json.py --prompts=40 --batch=1

Each of PROMPTS questions is asked with each kind of schema in turn. A reply must parse and validate (jsonschema) or say
that it was cut off ("length"). The speed is tokens a second of the same prompts, free and held: a fixed number of tokens
each, in alternation, medians of several rounds.
"""
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jsonschema

sys.path.insert(0, str(Path(__file__).parents[1]))

from nanochat import runtime  # noqa: E402
from nanochat.cli import option, parse  # noqa: E402
from nanochat.common import run  # noqa: E402
from nanochat.data.chat_format import render_prompt  # noqa: E402
from nanochat.infer.engine import Engine  # noqa: E402
from nanochat.infer.sampling import Sampling  # noqa: E402
from nanochat.infer.sequence import Sequence  # noqa: E402
from nanochat.tasks import TASKS, in_group  # noqa: E402
from nanochat.train import checkpoint  # noqa: E402


def an_object(**properties):
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


TEXT = {"type": "string", "maxLength": 24}
SCHEMAS = {
    "texts": an_object(name=TEXT, colour=TEXT),
    "numbers": an_object(whole={"type": "integer", "minimum": 0, "maximum": 120}, share={"type": "number"}, sure={"type": "boolean"}),
    "enums": an_object(animal={"enum": ["cat", "dog", "bird"]}, mood={"enum": ["happy", "sad", None]}),
    "arrays": an_object(words={"type": "array", "items": TEXT, "minItems": 1, "maxItems": 3}, sums={"type": "array", "items": {"type": "integer"}, "maxItems": 4}),
    "nested": an_object(person=an_object(name=TEXT, pets={"type": "array", "maxItems": 2, "items": an_object(kind={"enum": ["cat", "dog"]}, age={"type": "integer"})}), note={"anyOf": [TEXT, {"type": "null"}]}),
    "any object": {"type": "object"},
}


@dataclass
class Config(checkpoint.ModelFlags):
    source: str = checkpoint.source_flag()
    prompts: int = option(200, "questions")
    batch: int = option(8, "replies together")
    rounds: int = option(5, "of the speed")
    deterministic: bool = option(False, "as the server's flag")


def questions(count):
    """The first user messages of the kindergarten's test conversations, of all skills in turn."""
    tasks = [TASKS[name].make("test") for name in in_group("kindergarten")]
    return [tasks[i % len(tasks)][i // len(tasks)]["messages"][0] for i in range(count)]


def decode(scheduler, prompts, samplings):
    """(ended sequences, seconds)."""
    sequences = [Sequence(scheduler.tokenizer, prompt, sampling, i) for i, (prompt, sampling) in enumerate(zip(prompts, samplings))]
    for sequence in sequences:
        scheduler.add(sequence)
    start = time.perf_counter()
    while not scheduler.idle:
        scheduler.step()
    return sequences, time.perf_counter() - start


def fits(config, scheduler, prompts):
    print("| schema | temperature | replies | fit | cut off, as they say | neither |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    wrong = 0
    for temperature in (0.0, 1.0):
        found = {name: [0, 0, 0] for name in SCHEMAS}  # fit, cut, neither
        names = [list(SCHEMAS)[i % len(SCHEMAS)] for i in range(len(prompts))]
        samplings = [Sampling(200, temperature, top_k=50, seed=7, json_schema=json.dumps(SCHEMAS[name])) for name in names]
        sequences, _ = decode(scheduler, prompts, samplings)
        for name, sequence in zip(names, sequences):
            found[name][outcome(scheduler.tokenizer, sequence, SCHEMAS[name])] += 1
        for name, counts in found.items():
            print(f"| {name} | {temperature} | {sum(counts)} | {counts[0]} | {counts[1]} | {counts[2]} |", flush=True)
            wrong += counts[2]
    return wrong


def outcome(tokenizer, sequence, schema):
    """0 if the reply fits, 1 if it was cut off and says so, 2 if it neither fits nor says so."""
    if sequence.finish_reason == "length":
        return 1
    try:
        jsonschema.validate(json.loads(tokenizer.decode(sequence.ids)), schema)
        return 0
    except (ValueError, jsonschema.ValidationError):
        return 2


def speed(config, scheduler, prompts, end):
    """Tokens a second, free and held; neither may end: -100 on the end of the turn, and an array that has none."""
    endless = json.dumps({"type": "array", "items": an_object(name={"type": "string"}, age={"type": "integer"}), "minItems": 1000})
    how = dict(max_new_tokens=64, temperature=1.0, top_k=50, use_tools=False, logit_bias=((end, -100.0),))
    rates = {"free": [], "held": []}
    for seed in range(config.rounds + 1):  # the first warms up
        for kind, schema in (("free", None), ("held", endless)):
            samplings = [Sampling(seed=seed, json_schema=schema, **how)] * config.batch
            sequences, seconds = decode(scheduler, prompts[:config.batch], samplings)
            if seed:
                rates[kind].append(sum(len(sequence.ids) for sequence in sequences) / seconds)
    free, held = (statistics.median(rates[kind]) for kind in rates)
    print(f"\n{config.batch} together, {config.rounds} rounds: free {free:,.0f} tokens/s ({min(rates['free']):,.0f} to {max(rates['free']):,.0f}), "
          f"held {held:,.0f} ({min(rates['held']):,.0f} to {max(rates['held']):,.0f}): {free / held:.2f} times as long")


def main(argv=None):
    config = parse(Config, argv, __doc__)
    rt = runtime.init(config.device)
    model, tokenizer, _ = checkpoint.load_model(config.source or checkpoint.newest_chat_stage(), rt, config.tag, config.step)
    engine = Engine(model, tokenizer, deterministic=config.deterministic)
    prompts = [render_prompt(tokenizer, [message]) for message in questions(config.prompts)]
    scheduler = engine.scheduler(config.batch)
    print(f"{model.num_params():,} parameters, {tokenizer.vocab_size:,} tokens, {rt}, "
          f"{'compiled' if scheduler.runner.compiled else 'general'} decoding\n")
    wrong = fits(config, scheduler, prompts)
    speed(config, scheduler, prompts, tokenizer.special("<|assistant_end|>"))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    run(main)
