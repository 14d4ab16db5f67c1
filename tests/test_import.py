"""A model of transformers' NanoChat layout becomes one of ours: python -m pytest tests/test_import.py"""
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_export import REMOTE_SHAPES, save, saved_as
from tiny import tiny_model, tiny_tokenizer

from nanochat.common import DataError, UsageError, base_dir
from nanochat.data.chat_format import parse_reply, render_prompt
from nanochat.data.hf_tokenizer import from_tokenizer_json, tokenizer_json
from nanochat.model.gpt import GPTConfig
from nanochat.runtime import Runtime
from nanochat.train import checkpoint
from scripts import chat_sft, export, import_hf

PLAIN = {"n_embd": 64, "n_head": 2, "n_kv_head": 1, "max_attn_logit": 32 ** 0.5}     # what NanoChat has


def export_to(name, **shape):
    """Export a model; returns (the model, the folder)."""
    model = save(tiny_tokenizer(), **shape)
    folder = base_dir() / name
    export.main([f"--out={folder}"])
    return model, folder


def imported(folder, *flags):
    """(model, tokenizer, meta) of the folder after import."""
    import_hf.main([f"--folder={folder}", *flags])
    return checkpoint.load_model("sft", Runtime(), folder.name)


def change(folder, name, **changes):
    path = folder / name
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


# ------------------------------------------------------------------------------------------------------ there and back
@pytest.mark.parametrize("shape", [*REMOTE_SHAPES, PLAIN, {"n_embd": 96, "n_head": 4, "n_kv_head": 2}, {"max_attn_logit": 3.0},
                                   {"n_embd": 128, "n_head": 1, "rope_base": 500.0, "softcap": 30.0}])
def test_weights_come_back_bit_for_bit(shape):
    model, folder = export_to("again", **shape)
    back, tokenizer, meta = imported(folder)
    assert back.config == model.config and tokenizer.hash == tiny_tokenizer().hash and meta["dataset"] == "kindergarten"
    vocab = model.config.vocab_size
    for name, weight in model.state_dict().items():
        got = back.state_dict()[name]
        if len(weight) > vocab and hasattr(back, name.partition(".")[0]) and not name.startswith("blocks"):
            got, weight = got[:vocab], weight[:vocab]      # the rest pads the vocabulary, and nothing reads it
        assert torch.equal(got, weight), name


def test_where_nothing_pads_the_vocabulary_the_file_is_the_same(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.tokens = tokenizer.tokens[:320 - 16]
    tokenizer = type(tokenizer)(tokenizer.tokens, tokenizer._special, tokenizer.pattern)
    saved_as("sft", "mine", tiny_model(320), tokenizer)
    tokenizer.save()
    export.main([f"--out={tmp_path / 'there'}"])
    import_hf.main([f"--folder={tmp_path / 'there'}"])
    files = [checkpoint.find("sft", tag) / "model.safetensors" for tag in ("mine", "there")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_without_our_own_notes_the_shape_is_read_from_what_transformers_says():
    model, folder = export_to("foreign", **PLAIN)
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del content["nanochat"]
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    back, _, meta = imported(folder)
    assert back.config == model.config
    assert torch.equal(back.lm_head.weight[:model.config.vocab_size], model.lm_head.weight[:model.config.vocab_size])
    assert meta["identity"]["batch_tokens"] % 64 == 0


def test_what_was_imported_can_be_finetuned():
    _, folder = export_to("mine", **PLAIN)
    imported(folder)
    chat_sft.main(["--source=sft", "--source_tag=mine", "--tag=more", "--data=kindergarten", "--conversations=60",
                   "--num_iterations=2", "--device=cpu", "--total_batch_size=256"])
    assert checkpoint.read_meta(checkpoint.find("sft", "more"))["state"]["step"] == 2


# ----------------------------------------------------------------------------------------------------- made over there
@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")


@pytest.fixture(params=[{}, {"n_kv_head": 1}, {"softcap": 20.0}])
def foreign(transformers, request, tmp_path):
    """(their model, their tokenizer, folder) of NanoChatForCausalLM, as save_pretrained leaves it: special tokens first."""
    tokenizers = pytest.importorskip("tokenizers")
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    pattern = tokenizers.Regex(r"[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s+")
    trained.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Split(pattern, "isolated"), tokenizers.pre_tokenizers.ByteLevel(False, use_regex=False)])
    trained.decoder = tokenizers.decoders.ByteLevel()
    special = ["<|bos|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>", "<|assistant_end|>"]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False,
                                             initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trained.train_from_iterator(["The cat sat on the mat and the dog ran to the river, 12 of them."] * 3, trainer)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=trained, bos_token="<|bos|>", eos_token="<|assistant_end|>")
    torch.manual_seed(0)
    config = transformers.NanoChatConfig(
        vocab_size=len(theirs) + 3, hidden_size=64, intermediate_size=256, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=request.param.get("n_kv_head", 2), max_position_embeddings=128, bos_token_id=0, eos_token_id=4,
        final_logit_softcapping=request.param.get("softcap", 15.0), initializer_range=0.3)
    model = transformers.NanoChatForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "theirs", max_shard_size="200KB")       # in several files
    theirs.save_pretrained(tmp_path / "theirs")
    return model, theirs, tmp_path / "theirs"


def test_a_model_made_there_gives_the_same_logits_and_chats(foreign):
    theirs, their_tokenizer, folder = foreign
    assert len(list(folder.glob("*.safetensors"))) > 1
    ours, tokenizer, _ = imported(folder)
    text = "The dog sat on 12 mats, and\n the river ran."
    ids = their_tokenizer(text, add_special_tokens=False)["input_ids"]
    mine = tokenizer.encode(text)
    assert tokenizer.decode(mine) == text and len(mine) == len(ids)
    _, rows = from_tokenizer_json(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")), 0)
    assert [rows[i] for i in mine] == ids
    with torch.no_grad():
        want = theirs(torch.tensor([ids])).logits[0]
        got = ours(torch.tensor([mine]))[0]
    assert (got - want[:, rows]).abs().max() < 1e-4 and want.std() > 0.5
    prompt = render_prompt(tokenizer, [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "The cat?"}])
    assert rows[prompt[1]] == rows[tokenizer.special("<|user_start|>")] == 1       # the system speaks as the user does
    said = ours(torch.tensor([prompt]))[0, -1].argmax().item()
    assert isinstance(parse_reply(tokenizer, [said]), list)


# --------------------------------------------------------------------------------------------------------------- wrong
def test_nothing_that_is_here_is_replaced():
    _, folder = export_to("tiny")
    with pytest.raises(UsageError, match="there already. Give this one another --tag"):
        import_hf.main([f"--folder={folder}"])
    import_hf.main([f"--folder={folder}", "--tag=other", "-i", "base"])
    assert checkpoint.find("base", "other")


@pytest.mark.parametrize("changes, match", [
    ({"model_type": "llama"}, "model_type=llama"), ({"hidden_act": "silu"}, "hidden_act=silu, and here it can only be relu2"),
    ({"intermediate_size": 99}, "intermediate_size=99"), ({"head_dim": 48}, "head_dim=48"), ({"attention_bias": True}, "bias"),
    ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type=yarn"), ({"num_hidden_layers": 9}, "model.layers.2"),
    ({"final_logit_softcapping": None}, "cannot be imported"), ({"num_attention_heads": 3}, "cannot be imported")])
def test_what_cannot_be_ours_is_refused_in_one_line(changes, match):
    _, folder = export_to("foreign", **PLAIN)
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del content["nanochat"]
    (folder / "config.json").write_text(json.dumps({**content, **changes}), encoding="utf-8")
    with pytest.raises(DataError, match=match) as error:
        import_hf.main([f"--folder={folder}"])
    assert "\n" not in str(error.value) and not (checkpoint.stage_dir("sft") / "foreign").exists()


@pytest.mark.parametrize("changes", [{"normalizer": {"type": "NFC"}}, {"pre_tokenizer": {"type": "Whitespace"}},
                                     {"pre_tokenizer": None}, {"model": {}}, {"model": {"vocab": [["a", 0]], "merges": []}}])
def test_another_kind_of_tokenizer_is_refused(changes):
    _, folder = export_to("foreign")
    change(folder, "tokenizer.json", **changes)
    with pytest.raises(DataError, match="cannot be imported"):
        import_hf.main([f"--folder={folder}"])


def test_merges_in_another_order_and_missing_marks_are_refused():
    content = tokenizer_json(tiny_tokenizer())
    content["model"]["merges"].reverse()
    with pytest.raises(DataError, match="merges in the order of their ids"):
        from_tokenizer_json(content, 0)
    content = tokenizer_json(tiny_tokenizer())
    content["added_tokens"] = [{"content": "<s>", "id": 999}]
    with pytest.raises(DataError, match="has no <.bos.>, and config.json no bos_token_id"):
        from_tokenizer_json(content, None)
    assert set(from_tokenizer_json(content, 999)[1][-16:]) == {999}


def test_a_folder_without_a_model_and_broken_weights_are_told(tmp_path):
    with pytest.raises(UsageError, match="config.json is missing"):
        import_hf.main([f"--folder={tmp_path}"])
    with pytest.raises(UsageError, match="--folder=FOLDER"):
        import_hf.main([])
    _, folder = export_to("foreign")
    (folder / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(DataError, match="cannot be imported"):
        import_hf.main([f"--folder={folder}"])
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="safetensors is missing"):
        import_hf.main([f"--folder={folder}"])


def test_a_shape_is_a_gpt_config():
    _, folder = export_to("mine", **PLAIN)
    shape, weights, _, _ = import_hf.read(folder)
    assert isinstance(shape, GPTConfig) and all(weight.dtype == torch.float32 for weight in weights.values())
    half = {name: weight.bfloat16() for name, weight in load_file(folder / "model.safetensors").items()}
    save_file(half, folder / "model.safetensors")
    assert all(weight.dtype == torch.float32 for weight in import_hf.read(folder)[1].values())


def test_a_damaged_file_is_not_told_to_be_deleted():
    _, folder = export_to("foreign")
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be imported") as error:
        import_hf.main([f"--folder={folder}"])
    assert "elete" not in str(error.value)
