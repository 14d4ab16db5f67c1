"""An exported model and its tokenizer are the same to transformers: python -m pytest tests/test_export.py"""
import json
import random

import pytest
import torch
from safetensors.torch import load_file
from tiny import save_tiny_checkpoint, tiny_model, tiny_tokenizer

from nanochat.common import NanochatError, UsageError, base_dir
from nanochat.data.chat_format import render, render_prompt
from nanochat.data.tokenizer import Tokenizer
from nanochat.kindergarten import documents
from scripts import export

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a cat?\nSay it."},
            {"role": "assistant", "content": "An animal, 12 of them."}, {"role": "user", "content": "And a dog?"}]


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


@pytest.mark.parametrize("shape", [{}, {"n_kv_head": 2}, {"n_embd": 256, "n_head": 2}, {"n_embd": 128, "n_head": 2},
                                   {"max_attn_logit": 32 ** 0.5}, {"max_attn_logit": 3.0}, {"softcap": 30.0, "rope_base": 500.0}])
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


def test_transformers_continues_with_the_same_words(transformers, exported):
    model, folder = exported()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.randint(0, 2000, (1, 8), generator=torch.Generator().manual_seed(1))
    got = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False, eos_token_id=-1)
    for _ in range(16):
        ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], dim=1)
    assert got.tolist() == ids.tolist()


def test_what_cannot_be_said_there_is_refused_in_one_line():
    save(tiny_tokenizer(), key_offset=0.5, value_tables=True)
    with pytest.raises(NanochatError, match="key_offset=0.5, value_tables=True.* --key_offset=0 --value_tables=0 ") as error:
        export.main([])
    assert "\n" not in str(error.value) and not (base_dir() / "hf").exists()


def test_it_lies_whole_in_its_folder_and_replaces_what_was_there(exported):
    for n_embd in (64, 128):
        model, folder = exported(n_embd=n_embd)
        assert {p.name for p in folder.iterdir()} == {"config.json", "generation_config.json", "model.safetensors",
                                                      "tokenizer.json", "tokenizer_config.json"}
        assert load_file(folder / "model.safetensors")["lm_head.weight"].shape == (model.config.vocab_size, n_embd)


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
    theirs = tokenizers.Tokenizer.from_str(json.dumps(export.tokenizer_json(ours)))
    texts = [*documents(300, seed=5), *awkward_texts()]
    for text, encoding in zip(texts, theirs.encode_batch(texts, add_special_tokens=False)):
        assert encoding.ids == ours.encode(text), repr(text)
        assert theirs.decode(encoding.ids) == text
    assert theirs.encode("a").ids == [ours.bos_id, *ours.encode("a")]


def test_the_chat_template_renders_as_training_did(transformers, exported):
    _, folder = exported()
    ours, theirs = Tokenizer.load(), transformers.AutoTokenizer.from_pretrained(folder)
    def ids(messages, prompt):
        return theirs.apply_chat_template(messages, tokenize=True, add_generation_prompt=prompt, return_dict=True)["input_ids"]
    assert ids(MESSAGES, True) == render_prompt(ours, MESSAGES)
    for messages in (MESSAGES[:3], MESSAGES[1:3], [MESSAGES[1], {"role": "assistant", "content": ""}]):
        assert ids(messages, False) == render(ours, {"messages": messages})[0]
    assert theirs.convert_ids_to_tokens(theirs.eos_token_id) == "<|assistant_end|>"


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
