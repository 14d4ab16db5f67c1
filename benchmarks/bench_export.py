"""
Exported models, loaded by an environment that has transformers and nothing of this project.

    python3 -m venv FRESH && FRESH/bin/pip install torch==2.13.0 transformers
    python -m benchmarks.bench_export --python=FRESH/bin/python            minutes; the newest chat model, too, where one is

Of each model: the largest difference of a logit, greedy replies that are equal token by token with and without a cache,
conversations that the chat template makes the same ids of, and whether import_hf gives the weights back bit for bit. Exits 1
where something is not so. Logits may differ by 1e-4: they are sums in another order. So where a reply first differs at two
tokens whose logits are nearer to each other than that, either is right: such a tie is counted apart ("49 + 1 tie").
"""
import json
import os
import random
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from nanochat.cli import option, parse
from nanochat.common import run
from nanochat.data.chat_format import render_prompt
from nanochat.data.tokenizer import Tokenizer
from nanochat.kindergarten import documents, train_conversations
from nanochat.model.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from nanochat.train import checkpoint
from scripts import export, import_hf

TABLES = {"key_offset": 0.5, "value_offset": 0.5, "value_tables": True, "embedding_skips": True}
SHAPES = {
    "d2": dict(n_layer=2, n_head=2, n_kv_head=2, n_embd=64, **TABLES),
    "d3, 3 heads share 1": dict(n_layer=3, n_head=3, n_kv_head=1, n_embd=96, **TABLES),
    "d4, heads of 10": dict(n_layer=4, n_head=8, n_kv_head=4, n_embd=80, key_offset=0.3, value_tables=True),
    "d5, offset alone": dict(n_layer=5, n_head=2, n_kv_head=1, n_embd=48, key_offset=1.0),
    "d6, tables alone": dict(n_layer=6, n_head=4, n_kv_head=2, n_embd=128, value_tables=True, softcap=30.0),
    "d3 plain, 2 share 1": dict(n_layer=3, n_head=4, n_kv_head=2, n_embd=128, max_attn_logit=32 ** 0.5),
    "d2 plain, one head": dict(n_layer=2, n_head=1, n_kv_head=1, n_embd=64, rope_base=500.0, max_attn_logit=8.0),
}
CHILD = """
import json, sys
import torch, transformers
from safetensors.torch import load_file
folder, asked = sys.argv[1:]
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
model = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model.generation_config.eos_token_id = None
logits = load_file(asked + ".safetensors")
asked = json.load(open(asked, encoding="utf-8"))
found = {"kind": type(model).__name__, "difference": 0.0, "cached": 0, "uncached": 0, "template": 0, "ties": 0}
for number, one in enumerate(asked):
    ids = torch.tensor([one["prompt"]])
    with torch.no_grad():
        difference = (model(ids).logits[0] - logits[str(number)]).abs().max().item()
    found["difference"] = max(found["difference"], difference)
    for name, use_cache in (("cached", True), ("uncached", False)):
        said = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=len(one["said"]), do_sample=False,
                              use_cache=use_cache)
        said = said[0, ids.size(1):].tolist()
        found[name] += said == one["said"]
        apart = [lead for lead, mine, theirs in zip(one["leads"], one["said"], said) if mine != theirs]
        found["ties"] += name == "cached" and bool(apart) and apart[0] < 1e-4
    mine = tokenizer.apply_chat_template(one["messages"], add_generation_prompt=True, return_dict=True)["input_ids"]
    found["template"] += list(mine) == one["prompt"]
print(json.dumps(found))
"""


@dataclass
class Config:
    python: str = option("python3", "of an environment with torch and transformers")
    prompts: int = option(50, "a model")
    tokens: int = option(64, "of each reply")


def random_model(tokenizer, shape: dict) -> GPT:
    """A model in which every weight counts."""
    model = GPT(GPTConfig(256, tokenizer.vocab_size, **shape))
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        width = 1.0 if weight.size(0) >= tokenizer.vocab_size else 1.5 / weight.size(1) ** 0.5
        weight.data.normal_(0, width, generator=generator)
    return model.requires_grad_(False).eval()


def ask(model, tokenizer, config: Config, path: Path) -> None:
    """Write prompts, our greedy replies and our logits."""
    asked = []
    logits = {}
    chats = train_conversations(4 * config.prompts, seed=31, stage="sft")
    conversations = [chat["messages"] for chat in chats if "messages" in chat]
    random.Random(0).shuffle(conversations)
    room = model.config.sequence_len - config.tokens
    for messages in conversations:
        if messages[-1]["role"] == "assistant":
            messages = messages[:-1]
        prompt = render_prompt(tokenizer, messages)
        if len(prompt) > room or len(asked) == config.prompts:
            continue
        ids = torch.tensor([prompt])
        logits[str(len(asked))] = model(ids)[0].contiguous()
        leads = []  # of the likeliest token over the next, in logits
        for _ in range(config.tokens):
            last = model(ids)[:, -1]
            best = last.topk(2).values[0]
            leads.append((best[0] - best[1]).item())
            ids = torch.cat([ids, last.argmax(-1, keepdim=True)], dim=1)
        asked.append({"messages": messages, "prompt": prompt, "said": ids[0, len(prompt):].tolist(), "leads": leads})
    path.write_text(json.dumps(asked), encoding="utf-8")
    save_file(logits, f"{path}.safetensors")


def check(name: str, stage: str, tag: str, model, tokenizer, config: Config) -> bool:
    """Export, ask, import; print a row. True where all is as it should be."""
    with tempfile.TemporaryDirectory() as there:
        folder = Path(there) / "model"
        ask(model, tokenizer, config, Path(there) / "asked.json")
        export.main(["-i", stage, f"--tag={tag}", f"--out={folder}"])
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        child = subprocess.run([config.python, "-I", "-c", CHILD, folder, Path(there) / "asked.json"], cwd=there, text=True,
                               capture_output=True, env={**clean, "HF_HUB_OFFLINE": "1", "HF_HOME": there})
        if child.returncode:
            raise SystemExit(child.stderr)
        found = json.loads(child.stdout.splitlines()[-1])
        import_hf.main([f"--folder={folder}", "-i", stage, f"--tag=again {tag}"])
    mine = load_file(checkpoint.find(stage, tag) / "model.safetensors")
    again = load_file(checkpoint.find(stage, f"again {tag}") / "model.safetensors")
    vocab = tokenizer.vocab_size
    same = all(torch.equal(mine[key][:vocab] if mine[key].size(0) > vocab else mine[key],
                           again[key][:vocab] if mine[key].size(0) > vocab else again[key]) for key in mine)
    n = config.prompts
    cached = f"{found['cached']}/{n}" + (f" + {found['ties']} tie" if found["ties"] else "")
    print(f"{name:<24} {found['kind']:<20} {found['difference']:>8.1e} {cached:>14} {found['uncached']:>6}/{n} "
          f"{found['template']:>6}/{n} {'bitwise' if same else 'DIFFERS':>8}", flush=True)
    equal = found["cached"] + found["ties"] == found["uncached"] == found["template"] == n
    return found["difference"] <= 1e-4 and equal and same


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    torch.set_num_threads(1)
    trained = None
    if checkpoint.newest_tag(stage := checkpoint.newest_chat_stage()):
        trained = checkpoint.load_model(stage, Runtime())
        trained_at = checkpoint.find(stage)
    tokenizer = Tokenizer.train(documents(400, seed=0), 1000)
    print(f"{'':<24} {'class there':<20} {'logits':>8} {'cached':>14} {'without':>9} {'template':>9} {'import':>8}")
    fine = []
    with tempfile.TemporaryDirectory() as base:
        os.environ["NANOCHAT_BASE_DIR"] = base
        if trained:
            target = checkpoint.stage_dir(stage) / "trained"
            target.mkdir(parents=True)
            (target / trained_at.name).symlink_to(trained_at.resolve())
            fine.append(check("the newest chat model", stage, "trained", trained[0], trained[1], config))
        for name, shape in SHAPES.items():
            model = random_model(tokenizer, shape)
            tag = name.replace(" ", "_")
            checkpoint.save(checkpoint.stage_dir("sft") / tag, 1, model.state_dict(), None,
                            {"model": asdict(model.config), "tokenizer": tokenizer.hash, "dataset": "kindergarten"},
                            tokenizer=tokenizer)
            fine.append(check(name, "sft", tag, model, tokenizer, config))
    if not all(fine):
        raise SystemExit(1)


if __name__ == "__main__":
    run(main)
