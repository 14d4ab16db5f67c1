"""
Our tokenizer and chat format for transformers, and a tokenizer of its back.

With its tokenizer, unlike ours, a text can spell special tokens.
"""
from typing import Any

from nanochat.common import DataError
from nanochat.data.tokenizer import SPECIAL_TOKENS, Tokenizer

# In Jinja, what chat_format.py renders; a test holds the two together.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}_start|>"
    "{% set parts = [{'type': 'text', 'text': m.content}] if m.content is string else m.content %}"
    "{% for part in parts %}{% if part.type == 'text' %}{% if part.text %} {{ part.text }}{% endif %}"
    "{% else %}{% set mark = part.type | replace('python_', '') %}"
    "<|{{ mark }}_start|>{{ part.text }}<|{{ mark }}_end|>{% endif %}{% endfor %}"
    "<|{{ m.role }}_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant_start|>{% endif %}")
# How transformers reads a reply: without the blank that begins it.
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant", "content": ""},
    "start_anchor": "<|assistant_start|>",
    "fields": {"content": {"open_pattern": r"\A ?", "close_pattern": r"<\|(assistant_end|bos)\|>",
                           "content_args": {"strip": False}}},
}


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """For the `tokenizers` library, which knows a pre-tokenizer, a list of merges and a post-processor.

    Our tokens are bytes and a merge is right wherever two tokens make a third. `ignore_merges`: a piece that
    is a token is taken whole. The post-processor puts bos in front, as the start of a document.
    """
    characters = _byte_characters()
    vocab = {}
    for token_id, token in enumerate(tokenizer.tokens):
        vocab["".join(characters[byte] for byte in token)] = token_id
    merges = []
    for name in vocab:
        for at in range(1, len(name)):
            if name[:at] in vocab and name[at:] in vocab:
                merges.append((name[:at], name[at:]))

    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": tokenizer.pattern}, "behavior": "Isolated",
             "invert": False}
    bos_first = [{"SpecialToken": {"id": "<|bos|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    bos = {"<|bos|>": {"id": "<|bos|>", "ids": [tokenizer.bos_id], "tokens": ["<|bos|>"]}}
    return {
        "version": "1.0",
        "added_tokens": [_added_token(tokenizer.special(name), name) for name in SPECIAL_TOKENS],
        "decoder": byte_level,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": {"type": "TemplateProcessing", "single": bos_first, "pair": bos_first,
                           "special_tokens": bos},
        "model": {"type": "BPE", "ignore_merges": True, "vocab": vocab, "merges": merges},
    }


def _byte_characters() -> dict[int, str]:
    """A visible character for each byte, as GPT-2 chose them, since JSON has no bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in printable:
            characters[byte] = chr(256 + len(characters) - len(printable))
    return characters


def _added_token(token_id: int, name: str) -> dict[str, Any]:
    return {"id": token_id, "content": name, "special": True, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False}


# ---- back
def from_tokenizer_json(content: dict[str, Any], bos_id: int | None) -> tuple[Tokenizer, list[int]]:
    """(tokenizer, the id over there of each of its tokens). Raises DataError where it is of another kind.

    Where a special token of ours is missing another stands for it: the user's marks for the system's, else
    <|user_start|>, which no model says, else that with `bos_id`, which begins a document.
    """
    vocab = content["model"]["vocab"]
    special = {token["content"]: token["id"] for token in content["added_tokens"]}
    bytes_of = {character: bytes([byte]) for byte, character in _byte_characters().items()}
    names = sorted(vocab.keys() - special.keys(), key=lambda name: vocab[name])
    steps = content["pre_tokenizer"].get("pretokenizers", [{}])
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in content["model"]["merges"]]
    merged = [vocab["".join(pair)] for pair in pairs]
    if (merged != sorted(merged) or not bytes_of.keys() <= set(names) or content.get("normalizer")
            or [step.get("type") for step in steps] != ["Split", "ByteLevel"]):
        raise DataError("tokenizer.json is no byte pair encoding as nanochat's: pieces by a pattern, bytes, "
                        "merges in the order of their ids")
    tokens = [b"".join(bytes_of[character] for character in name) for name in names]
    ids = [vocab[name] for name in names]
    for name in SPECIAL_TOKENS:
        known = [name, name.replace("system", "user"), "<|user_start|>"]
        found = [special[other] for other in known if other in special] or [bos_id]
        if found[0] is None:
            raise DataError(f"tokenizer.json has no {name}, and config.json no bos_token_id instead")
        ids.append(found[0])
    return Tokenizer(tokens, SPECIAL_TOKENS, steps[0]["pattern"]["Regex"]), ids
