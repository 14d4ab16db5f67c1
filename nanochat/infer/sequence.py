"""
One reply: what may be sampled next, when a tool is asked, when it ends, and its text.
"""
import codecs
from dataclasses import dataclass

from nanochat.common import mix_seed

MAX_TOOL_CALLS = 8  # of one reply; beyond, python_start can no longer be sampled
FREE, IN_CODE, NO_TOOLS = range(3)  # what a sequence may sample next; index into the engine's bans


class Sequence:
    """The state of one reply.

    `ids` are the reply's tokens without the closing one; `sampled[i]` is 1 where the model chose ids[i]; `logprobs[i]` is
    (its log-probability, [(token, that) of the likeliest]) or None. `call` is code that waits for `resume`.
    `finish_reason` is None, "stop" or "length". `index` tells apart the replies to one prompt.
    """

    def __init__(self, tokenizer, prompt, sampling, index=0):
        self.tokenizer, self.prompt, self.sampling, self.index = tokenizer, prompt, sampling, index
        self.ids, self.sampled, self.logprobs, self.finish_reason = [], [], [], None
        self.room = sampling.max_new_tokens  # lowered to what the cache can hold by Batcher.add
        self.cached_tokens = 0  # of the prompt, found in the prefix cache
        self.tool_calls, self.call, self._code = 0, None, None
        self._reader = TextStream(tokenizer)

    def __len__(self):
        return len(self.prompt) + len(self.ids)

    @property
    def state(self):
        if self._code is not None:
            return IN_CODE
        return FREE if self.sampling.use_tools and self.tool_calls < MAX_TOOL_CALLS else NO_TOOLS

    def uniform(self):
        """In [0, 1), for the next token, by seed, index and position alone."""
        return (mix_seed(self.sampling.seed, self.index, len(self.ids)) >> 10) / 2**53

    def tokens(self, start, stop):
        n = len(self.prompt)
        return self.prompt[start:stop] + self.ids[max(0, start - n): max(0, stop - n)]

    def accept(self, token, logprobs=None):
        special = self.tokenizer.special
        if token in (special("<|assistant_end|>"), self.tokenizer.bos_id):
            self.finish_reason = "stop"
            return
        self._add([token], 1, logprobs)
        if token == special("<|python_start|>"):
            self._code = []
        elif self._code is not None and token == special("<|python_end|>"):
            self.call, self._code, self.tool_calls = self.tokenizer.decode(self._code), None, self.tool_calls + 1
        elif self._code is not None:
            self._code.append(token)

    def resume(self, result):
        """Take the tool's `result`, a text."""
        self.call, special = None, self.tokenizer.special
        self._add([special("<|output_start|>"), *self.tokenizer.encode(result), special("<|output_end|>")], 0)

    def _add(self, tokens, sampled, logprobs=None):
        tokens = tokens[: self.room - len(self.ids)]
        self.ids += tokens
        self.sampled += [sampled] * len(tokens)
        self.logprobs += [logprobs] * len(tokens)
        if self.sampling.stop:
            self._reader.take(self)
        if self._reader.stopped:
            self.finish_reason = "stop"
        elif len(self.ids) >= self.room:
            self.finish_reason = "length"


@dataclass(frozen=True)
class Event:
    """What a reader sees: "text" in pieces, "python" and "python_output" whole, at last "end" with `usage`.

    When asked for, a "text" has for each token `logprobs` {"token", "bytes", "logprob", "top": [the same but "top"]}.
    """

    kind: str
    text: str = ""
    finish_reason: str | None = None
    usage: dict | None = None
    logprobs: list | tuple = ()


class TextStream:
    """A sequence's tokens as Events: no half character, no special token as text.

    Text that may begin a stop string is held back; `stopped` says that one was found.
    """

    def __init__(self, tokenizer):
        special = tokenizer.special
        self.tokenizer, self.kind, self.stopped, self._taken = tokenizer, "text", False, 0
        self._held, self._scored = "", []  # text not sent; (place in it, logprobs) of its tokens
        self._begins = None  # whether the next blank is the format's
        self._enters = {special("<|python_start|>"): "python", special("<|output_start|>"): "python_output",
                        special("<|python_end|>"): "text", special("<|output_end|>"): "text"}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self, sequence):
        """Of what `sequence` gained since the last call."""
        events, start, stops = [], self._taken, sequence.sampling.stop
        if self._begins is None:  # what goes on with a plain text keeps its first blank
            self._begins = sequence.prompt[-1] == self.tokenizer.special("<|assistant_start|>")
        self._taken = len(sequence.ids)
        for token, logprobs in zip(sequence.ids[start:], sequence.logprobs[start:]):
            if token in self._enters:
                events += self._close()
                self.kind, self._begins = self._enters[token], True
                continue
            if logprobs:
                entry = {**self._entry(token, logprobs[0]), "top": [self._entry(*pair) for pair in logprobs[1]]}
                self._scored.append((len(self._held), entry))
            events += self._piece(self._decoder.decode(self.tokenizer.decode_bytes([token])), stops)
        if sequence.finish_reason:
            usage = {"prompt_tokens": len(sequence.prompt), "completion_tokens": len(sequence.ids),
                     "cached_tokens": sequence.cached_tokens}
            events += self._close() + [Event("end", finish_reason=sequence.finish_reason, usage=usage)]
        return events

    def _entry(self, token, logprob):
        raw = self.tokenizer.decode_bytes([token])
        return {"token": raw.decode("utf-8", "replace"), "bytes": list(raw), "logprob": logprob}

    def _piece(self, text, stops=()):
        if self.stopped:
            return []
        if self.kind == "text" and text and self._begins:
            text, self._begins = text.removeprefix(" "), False
        self._held += text
        if self.kind != "text":
            return []
        if found := [at for stop in stops if (at := self._held.find(stop)) >= 0]:
            self.stopped, self._held, stops = True, self._held[:min(found)], ()
        begun = [n for stop in stops for n in range(1, len(stop)) if self._held.endswith(stop[:n])]
        return self._send(max(begun, default=0))

    def _send(self, keep):
        """All held text but `keep` characters."""
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        known = [entry for at, entry in self._scored if at < cut]
        self._scored = [(at - cut, entry) for at, entry in self._scored if at >= cut]
        return [Event("text", text, logprobs=known)] if text else []

    def _close(self):
        """End the current part."""
        events = self._piece(self._decoder.decode(b"", final=True))
        if self.kind == "text":
            events += self._send(0)
        else:
            events, self._held = [Event(self.kind, self._held)], ""
        self._scored = []
        return events
