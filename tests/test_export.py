"""An exported model and its tokenizer are the same to transformers: python -m pytest tests/test_export.py"""
import importlib.util
import json
import random
import sys
import types
from dataclasses import dataclass

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file
from tiny import save_tiny_checkpoint, tiny_model, tiny_tokenizer

from nanochat.common import NanochatError, UsageError, base_dir
from nanochat.data import hf_tokenizer
from nanochat.data.chat_format import render, render_prompt
from nanochat.data.tokenizer import Tokenizer
from nanochat.kindergarten import documents
from nanochat.train import checkpoint
from scripts import export

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a cat?\nSay it."},
            {"role": "assistant", "content": "An animal, 12 of them."}, {"role": "user", "content": "And a dog?"}]
CALL = {"role": "assistant", "content": [{"type": "text", "text": "It is"}, {"type": "python", "text": "3+4"},
                                         {"type": "python_output", "text": "7"}, {"type": "text", "text": "7."}]}
TABLES = {"key_offset": 0.5, "value_offset": 0.5, "value_tables": True, "embedding_skips": True}      # as our own defaults
PLAIN = {"max_attn_logit": 32 ** 0.5}     # what transformers' own NanoChat has: the root of a head's channels
REMOTE_SHAPES = [TABLES, {}, {**TABLES, "n_layer": 3, "n_head": 4, "n_kv_head": 2},
                 {"n_embd": 80, "n_head": 4, "key_offset": 0.3},
                 {"n_layer": 1, "key_offset": 1.0}, {"n_layer": 3, "value_offset": 1.0},
                 {"n_layer": 5, "value_tables": True, "softcap": 30.0, "rope_base": 500.0}]


def save(tokenizer, **shape):
    """A checkpoint of a model in which every matrix counts; returns the model."""
    model = tiny_model(tokenizer.vocab_size, **{"n_embd": 64, **shape})
    for p in model.parameters():
        p.mul_((1.0 if p.size(0) > 256 else 1.5 / p.size(1) ** 0.5) / 0.15)
    return save_tiny_checkpoint("sft", "kindergarten", tokenizer=tokenizer, model=model)[0]


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")


@pytest.fixture(scope="module")
def larger():
    """A tokenizer of 2,048 tokens, learned from the kindergarten's documents."""
    return Tokenizer.train(documents(800, seed=0), 2048)


@pytest.fixture
def exported(larger):
    """Export a model of the larger tokenizer; returns (model, folder)."""
    def run(*argv, **shape):
        model = save(larger, **shape)
        export.main([f"--out={base_dir() / 'out'}", *argv])
        return model, base_dir() / "out"
    return run


@pytest.mark.parametrize("shape", [PLAIN, {**PLAIN, "n_kv_head": 2}, {"n_embd": 256, "max_attn_logit": 128 ** 0.5},
                                   {**PLAIN, "softcap": 30.0, "rope_base": 500.0}])
def test_transformers_gives_the_same_logits(transformers, exported, shape):
    model, folder = exported(**shape)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    idx = torch.randint(0, model.config.vocab_size, (2, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, got = model(idx), theirs(idx).logits
    assert type(theirs).__name__ == "NanoChatForCausalLM" and ours.std() > 1
    torch.testing.assert_close(got, ours, rtol=1e-4, atol=2e-4)
    for matrix in ("q", "k", "v"):                     # the comparison would notice a change in each
        with torch.no_grad():
            weight = getattr(theirs.model.layers[0].self_attn, f"{matrix}_proj").weight
            weight.mul_(-1)
            assert (theirs(idx).logits - ours).abs().max() > 0.05, matrix
            weight.mul_(-1)


@pytest.mark.parametrize("shape", REMOTE_SHAPES)
def test_transformers_gives_the_same_logits_by_remote_code(transformers, exported, shape):
    model, folder = exported(**shape)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    idx = torch.randint(0, model.config.vocab_size, (2, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (theirs(idx).logits - model(idx)).abs().max() < 1e-4 and model(idx).std() > 1
        for name, weight in theirs.named_parameters():     # the comparison would notice a change in each
            weight.mul_(-1)
            assert (theirs(idx).logits - model(idx)).abs().max() > 0.01, name
            weight.mul_(-1)


@pytest.mark.parametrize("shape", [PLAIN, TABLES])
@pytest.mark.parametrize("use_cache", [True, False])
def test_transformers_continues_with_the_same_words(transformers, exported, shape, use_cache):
    model, folder = exported(**shape)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    theirs.generation_config.eos_token_id = None
    for seed in range(4):
        ids = torch.randint(0, 2000, (1, 8), generator=torch.Generator().manual_seed(seed))
        got = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False, use_cache=use_cache)
        for _ in range(16):
            ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], dim=1)
        assert got.tolist() == ids.tolist()


def test_a_batch_with_padding_and_beams_continue_as_each_alone(transformers, exported):
    _, folder = exported(**TABLES)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    theirs.generation_config.eos_token_id = None
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True, padding_side="left")
    texts = ["The capital of France", "A", "Leo lives in Fernhill. Leo lives in"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    for more in ({}, {"num_beams": 2}):
        together = theirs.generate(**batch, max_new_tokens=12, do_sample=False, **more)
        for text, row in zip(texts, together):
            alone = theirs.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=12, do_sample=False, **more)
            assert row[-12:].tolist() == alone[0, -12:].tolist()


def test_a_pipeline_chats_and_what_it_gives_back_can_be_sent_again(transformers, exported):
    _, folder = exported(**TABLES)
    chat = transformers.pipeline("text-generation", str(folder), trust_remote_code=True)
    chat.model.generation_config.eos_token_id = None
    with torch.no_grad():          # whose replies begin with " An"
        blank = chat.tokenizer.convert_tokens_to_ids("\u0120An")
        prompt = torch.tensor([render_prompt(Tokenizer.load(), MESSAGES)])
        chat.model.gpt.lm_head.weight[blank] = 5 * chat.model.gpt.hidden(prompt)[0, -1]
    reply = chat(MESSAGES, max_new_tokens=1, do_sample=False)[0]["generated_text"]
    assert reply == [*MESSAGES, {"role": "assistant", "content": "An"}]
    assert len(chat([*reply, MESSAGES[1]], max_new_tokens=4, do_sample=False)[0]["generated_text"]) == 7


def test_it_can_be_trained_there_and_in_bfloat16(transformers, exported):
    model, folder = exported(**TABLES)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.bfloat16)
    idx = torch.randint(0, 2000, (2, 32), generator=torch.Generator().manual_seed(0))
    loss = theirs(idx, labels=idx).loss
    loss.backward()
    assert loss.item() == pytest.approx(model.loss(idx[:, :-1], idx[:, 1:], torch.ones(2, 31)).item() / 62, rel=0.02)
    assert all(weight.grad is not None for weight in theirs.parameters())


# --------------------------------------------------------------------------------------------------- without transformers
@dataclass
class Output:
    loss: torch.Tensor | None
    logits: torch.Tensor
    cache: object


class Cache:
    """As transformers' DynamicCache."""

    def __init__(self):
        self.kept = {}

    def get_seq_length(self):
        return self.kept[0][0].size(2) if self.kept else 0

    def update(self, k, v, layer):
        before = self.kept.get(layer, (k[:, :, :0], v[:, :, :0]))
        self.kept[layer] = (torch.cat([before[0], k], 2), torch.cat([before[1], v], 2))
        return self.kept[layer]


class PreTrainedModel(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config

    def post_init(self):
        pass

    @property
    def device(self):
        return torch.device("cpu")


def load_alone(folder, monkeypatch):
    """The model of an exported folder by the code in it, with a stand-in for the little that it wants of transformers."""
    fake = types.ModuleType("transformers")
    fake.DynamicCache, fake.PreTrainedModel = Cache, PreTrainedModel
    fake.GenerationMixin, fake.PretrainedConfig = type("Mixin", (), {}), types.SimpleNamespace
    outputs = types.ModuleType("transformers.modeling_outputs")
    outputs.CausalLMOutputWithPast = Output
    monkeypatch.setitem(sys.modules, "transformers", fake)
    monkeypatch.setitem(sys.modules, "transformers.modeling_outputs", outputs)
    spec = importlib.util.spec_from_file_location("modeling_alone", folder / "modeling_nanochat.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "modeling_alone", module)
    spec.loader.exec_module(module)
    model = module.NanochatForCausalLM(types.SimpleNamespace(**json.loads((folder / "config.json").read_text(encoding="utf-8"))))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.requires_grad_(False)


@pytest.mark.parametrize("shape", REMOTE_SHAPES)
def test_the_file_of_code_is_the_model_whole_and_piece_by_piece(exported, shape, monkeypatch):
    model, folder = exported(**shape)
    source = (folder / "modeling_nanochat.py").read_text(encoding="utf-8")
    assert "import nanochat" not in source and "from nanochat." not in source and "noqa" not in source
    theirs = load_alone(folder, monkeypatch)
    idx = torch.randint(0, model.config.vocab_size, (2, 40), generator=torch.Generator().manual_seed(0))
    want = model(idx)
    torch.testing.assert_close(theirs(idx).logits, want)
    cache, pieces = None, []
    for piece in idx.split([7, 1, 1, 20, 11], dim=1):
        output = theirs(piece, cache=cache, use_cache=True)
        cache = output.cache
        pieces.append(output.logits)
    torch.testing.assert_close(torch.cat(pieces, 1), want, rtol=1e-4, atol=1e-4)

    padded = torch.cat([torch.zeros(2, 5, dtype=torch.long), idx], 1)     # the first row, and the second with padding
    padded[0] = torch.cat([idx[0], idx[1, :5]])
    mask = torch.ones_like(padded)
    mask[1, :5] = 0
    for use_cache in (False, True):
        got = theirs(padded, attention_mask=mask, use_cache=use_cache, logits_to_keep=10).logits
        torch.testing.assert_close(got[0], model(padded[:1])[0, -10:], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(got[1], want[1, -10:], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="static cache"):
        theirs(idx, attention_mask=torch.ones(2, 1, 40, 40))


def test_it_lies_whole_in_its_folder_and_replaces_what_was_there(exported):
    for n_embd in (64, 128):
        model, folder = exported(n_embd=n_embd, max_attn_logit=(n_embd // 2) ** 0.5)
        files = {"README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                 "tokenizer_config.json"}
        assert {p.name for p in folder.iterdir()} == files
        assert load_file(folder / "model.safetensors")["lm_head.weight"].shape == (model.config.vocab_size, n_embd)
    _, folder = exported(**TABLES)
    assert {p.name for p in folder.iterdir()} == {*files, "modeling_nanochat.py"}


# ---------------------------------------------------------------------------------------------------------- model card
def saved_as(stage, tag, model, tokenizer, step=5, **meta):
    checkpoint.save(checkpoint.stage_dir(stage) / tag, step, model.state_dict(), None, {
        "model": vars(model.config), "tokenizer": tokenizer.hash, "dataset": "kindergarten", "device": "a laptop", **meta},
        tokenizer=tokenizer)
    return checkpoint.read_meta(checkpoint.find(stage, tag, step))["files"]["model.safetensors"]


def test_the_model_card_tells_data_tokens_hours_scores_and_limits(monkeypatch):
    tokenizer = tiny_tokenizer()
    tokenizer.save()
    base = tiny_model(tokenizer.vocab_size, **TABLES)
    state = {"tokens": 12_345, "train_s": 5400.0}
    origin = saved_as("base", "old", base, tokenizer, state=state)
    saved_as("base", "new", tiny_model(tokenizer.vocab_size, n_layer=3), tokenizer, state={"tokens": 777, "train_s": 1.0})
    base.lm_head.weight.add_(1)
    saved_as("sft", "mine", base, tokenizer, state={**state, "tokens": 99}, data="smoltalk",
             config={"source": "base", "source_tag": "old"}, identity={"source": origin})
    task = {"score": 0.25, "n": 40, "chance": 0.5, "ci95": [0.14, 0.40], "title": "Yes or no"}
    folder = base_dir() / "report" / "results"
    folder.mkdir(parents=True)
    mine = checkpoint.read_meta(checkpoint.find("sft", "mine"))["files"]["model.safetensors"]

    def result(**of):
        (folder / "chat_eval_sft.json").write_text(json.dumps({"notes": [], "metrics": {"tasks": {"kg_yes_no": task}, **of}}),
                                                   encoding="utf-8")
        export.main([f"--out={base_dir() / 'card'}", "--license=mit"])
        return huggingface_hub.ModelCard.load(base_dir() / "card" / "README.md")

    card = result(weights=mine)
    for words in ("| Pretraining | kindergarten | 12,345 | 1h30m | a laptop |", "| Supervised finetuning | smoltalk | 99 | 1h30m |",
                  "3.00 hours", "| Yes or no | 40 | 25.0 ± 15.0 | 50.0 |", "generated world", "modeling_nanochat.py, runs",
                  "calculator", 'pipeline("text-generation", "card", trust_remote_code=True)'):
        assert words in card.text, words
    assert "777" not in card.text                   # the other base model
    score, = card.data.eval_results
    assert score.metric_value == 0.25 and "0.140 to 0.400" in score.metric_name and card.data.license == "mit"
    assert card.data.model_name == "card" and card.data.library_name == "transformers"
    for other in ({"weights": "of another model"}, {}):  # {}: by code that did not write it down
        card = result(**other)
        assert "Not measured" in card.text and card.data.eval_results is None


def test_a_base_models_card_shows_how_it_goes_on_not_how_it_chats(exported):
    model, folder = exported(**PLAIN)
    saved_as("base", "tiny", model, Tokenizer.load())
    export.main(["-i", "base", f"--out={folder}"])
    text = huggingface_hub.ModelCard.load(folder / "README.md").text
    assert "capital of France" in text and "role" not in text and "trust_remote_code" not in text


def test_by_default_the_newest_chat_model_goes_under_the_base_folder():
    save(tiny_tokenizer())
    export.main([])
    assert (base_dir() / "hf" / "sft_tiny" / "model.safetensors").exists()


# ----------------------------------------------------------------------------------------------------------- tokenizer
def awkward_texts():
    """What regular expressions and merges may disagree about: spaces, case, digits, scripts, repetitions, raw unicode."""
    pieces = ["  ", " ", "\n", "\r\n", "\t", " \n ", "\u00a0", "\u3000", "\u0085", "\u2028", "\u200b", "'s", "'S", "'ll", "\u017f",
              "'\u017f", "don't", "DON'T", "1", "12", "123456", "\u0663\u0664", "\u00bd", "\u4e2d\u6587", "na\u00efve", "e\u0301",
              "\U0001f600", "\U0001f468\u200d\U0001f469", "===", "....", "aaaaaaa", "xx", "_", "<|", "<|bo", "|>",
              "\u05e9\u05dc\u05d5\u05dd", "\x00", "\x7f", "\ufffd"]
    rng = random.Random(0)
    yield from ("".join(rng.choice(pieces) for _ in range(rng.randrange(1, 30))) for _ in range(600))
    yield from ("".join(chr(rng.choice([rng.randrange(32, 0x250), rng.randrange(0xD800), rng.randrange(0x10000, 0x1FA00)]))
                        for _ in range(40)) for _ in range(300))
    yield from (char * n for char in " a=\n1-." for n in range(1, 70))


@pytest.mark.parametrize("vocab_size", [2048, 4500])          # one digit a token, two digits a token
def test_the_exported_tokenizer_gives_the_same_ids(vocab_size, larger):
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install tokenizers")
    ours = larger if vocab_size == 2048 else Tokenizer.train([*documents(300, seed=1), *awkward_texts()], vocab_size)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(hf_tokenizer.tokenizer_json(ours)))
    texts = [*documents(300, seed=5), *awkward_texts()]
    for text, encoding in zip(texts, theirs.encode_batch(texts, add_special_tokens=False)):
        assert encoding.ids == ours.encode(text), repr(text)
        assert theirs.decode(encoding.ids) == text
    assert theirs.encode("a").ids == [ours.bos_id, *ours.encode("a")]


def test_the_chat_template_renders_as_training_did(transformers, exported):
    _, folder = exported(**TABLES)
    ours, theirs = Tokenizer.load(), transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    def ids(messages, prompt):
        return theirs.apply_chat_template(messages, tokenize=True, add_generation_prompt=prompt, return_dict=True)["input_ids"]
    assert ids(MESSAGES, True) == render_prompt(ours, MESSAGES)
    for messages in (MESSAGES[:3], MESSAGES[1:3], [MESSAGES[1], {"role": "assistant", "content": ""}], [MESSAGES[1], CALL]):
        assert ids(messages, False) == render(ours, {"messages": messages})[0]
    assert theirs.convert_ids_to_tokens(theirs.eos_token_id) == "<|assistant_end|>"


def test_the_chat_template_says_what_chat_format_renders():
    jinja2 = pytest.importorskip("jinja2", reason="jinja2 is not installed: pip install jinja2")
    ours = tiny_tokenizer()
    template = jinja2.Environment().from_string(hf_tokenizer.CHAT_TEMPLATE)
    marks = {name: chr(0xE000 + i) for i, name in enumerate(ours._special)}
    for messages in (MESSAGES, MESSAGES[:3], [MESSAGES[1], CALL], [MESSAGES[1], {"role": "assistant", "content": ""}]):
        text = template.render(messages=messages, bos_token="<|bos|>")
        ids = []
        for name, mark in marks.items():
            text = text.replace(name, f"\0{mark}\0")
        for piece in text.split("\0"):
            name = next((name for name, mark in marks.items() if mark == piece), "")
            ids += [ours.special(name)] if name else ours.encode(piece)
        assert ids == render(ours, {"messages": messages})[0]
    assert template.render(messages=MESSAGES, bos_token="", add_generation_prompt=True).endswith("<|user_end|><|assistant_start|>")


def test_what_is_no_export_is_not_replaced(tmp_path, monkeypatch):
    save_tiny_checkpoint("sft", "kindergarten", model=tiny_model(tiny_tokenizer().vocab_size, n_embd=64))
    (tmp_path / "mine").write_text("thesis", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for out in (tmp_path, ".", "mine"):
        with pytest.raises(UsageError, match="--out"):
            export.main([f"--out={out}"])
    assert (tmp_path / "mine").read_text(encoding="utf-8") == "thesis"
    export.main(["--out=~/hf"])
    assert (tmp_path / "home" / "hf" / "config.json").exists()


def test_a_part_that_the_export_does_not_know_is_named(monkeypatch, tmp_path):
    model, tokenizer = save_tiny_checkpoint("sft", "kindergarten")
    model.gate = torch.nn.Parameter(torch.ones(3))
    monkeypatch.setattr(export.checkpoint, "load_model", lambda *args: (model, tokenizer, {}))
    with pytest.raises(NanochatError, match="does not know gate"):
        export.main([f"--out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()
