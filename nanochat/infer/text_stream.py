"""
A reply's tokens as text for whoever reads along: no half character, no special token as text, nothing of a
stop string.

A token is bytes, and a character may need several tokens: the first two bytes of an emoji are no text yet.
Likewise the beginning of a stop string may or may not become one. What is not yet certain is held back.
"""
import codecs
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nanochat.data.chat_format import Part, reply_text
from nanochat.data.tokenizer import Tokenizer

if TYPE_CHECKING:  # sequence.py looks for its stop strings with a TextStream
    from nanochat.infer.sequence import Sequence


@dataclass(frozen=True)
class Event:
    """What a reader sees: "text" in pieces, "python" and "python_output" whole, at last "end" with `usage`.

    When asked for, a "text" has for each token `logprobs` {"token", "bytes", "logprob", "top": [the same but
    "top"]}, where a text's first token has None for both numbers.
    """

    kind: str
    text: str = ""
    finish_reason: str | None = None
    usage: dict | None = None
    seconds: float = 0.0  # of an end: since the first token, where somebody measured that
    logprobs: list | tuple = ()

    @property
    def part(self) -> dict[str, str]:
        """A "text", "python" or "python_output" as a part of a message's content."""
        return {"type": self.kind, "text": self.text}


def join_texts(events: list[Event]) -> list[Event]:
    """The same events, neighbouring texts made one."""
    joined: list[Event] = []
    for event in events:
        if event.kind == "text" and joined and joined[-1].kind == "text":
            last = joined.pop()
            event = replace(event, text=last.text + event.text, logprobs=[*last.logprobs, *event.logprobs])
        joined.append(event)
    return joined


class TextStream:
    """A sequence's tokens as Events. `stopped` says that one of its stop strings was found."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.kind = "text"  # of the part that is being read
        self.stopped = False
        self._taken = 0  # tokens of the sequence so far
        self._held = ""  # text not sent
        self._has_text = False  # whether any was sent
        self._calls: list[Part] = []  # and their results
        self._scored: list[tuple[int, dict]] = []  # (place in the held text, logprobs) of its tokens
        self._first_blank_is_format: bool | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        special = tokenizer.special
        self._enters = {special("<|python_start|>"): "python", special("<|output_start|>"): "python_output",
                        special("<|python_end|>"): "text", special("<|output_end|>"): "text"}

    def take(self, sequence: "Sequence") -> list[Event]:
        """The Events of what `sequence` gained since the last call."""
        events: list[Event] = []
        if self._first_blank_is_format is None:
            # The chat format puts a blank before an answer; what goes on with a plain text keeps its own.
            special = self.tokenizer.special
            begins = (special("<|assistant_start|>"), special("<|output_end|>"))
            self._first_blank_is_format = sequence.prompt[-1] in begins
            events += self._echo(sequence)
        start = self._taken
        self._taken = len(sequence.ids)
        for token, logprobs in zip(sequence.ids[start:], sequence.logprobs[start:]):
            if token in self._enters:
                events += self._close()
                self.kind = self._enters[token]
                self._first_blank_is_format = True
                continue
            if logprobs:
                self._scored.append((len(self._held), self._scored_entry(token, *logprobs)))
            text = self._decoder.decode(self.tokenizer.decode_bytes([token]))
            events += self._read(text, sequence.sampling.stop)
        if sequence.finish_reason:
            events += self._close()
            said = "" if self._has_text or self.stopped else reply_text(self._calls)
            if said:  # a result that says it all
                events.append(Event("text", said))
            if sequence.is_scored and sequence.closing:
                # Who counts the tokens told, to find the prompt's among them, counts this one, too.
                token, logprobs = sequence.closing
                events.append(Event("text", logprobs=[self._scored_entry(token, *logprobs)]))
            usage = {"prompt_tokens": len(sequence.prompt), "completion_tokens": len(sequence.ids),
                     "cached_tokens": sequence.cached_tokens, "decoded_tokens": sum(sequence.sampled)}
            events.append(Event("end", finish_reason=sequence.finish_reason, usage=usage))
        return events

    def _echo(self, sequence):
        """The prompt's last tokens, where they are to be told again."""
        n = sequence.sampling.echo
        if not n:
            return []
        tokens = sequence.prompt[-n:]
        scored = []
        if sequence.is_scored:
            scored.append({**self._entry(tokens[0], None), "top": None})  # as if nothing stood before it
            for token, logprobs in zip(tokens[1:], sequence.prompt_logprobs[-n:][1:]):
                scored.append(self._scored_entry(token, *logprobs))
        return [Event("text", self.tokenizer.decode(tokens), logprobs=scored)]

    def _scored_entry(self, token, logprob, likeliest):
        entry = self._entry(token, logprob)
        entry["top"] = [self._entry(other, its_logprob) for other, its_logprob in likeliest]
        return entry

    def _entry(self, token, logprob):
        raw = self.tokenizer.decode_bytes([token])
        return {"token": raw.decode("utf-8", "replace"), "bytes": list(raw), "logprob": logprob}

    def _read(self, text, stops=()):
        """Add decoded text to what is held, and send what is certain."""
        if self.stopped:
            return []
        if self.kind == "text" and text and self._first_blank_is_format:
            text = text.removeprefix(" ")
            self._first_blank_is_format = False
        self._held += text
        if self.kind != "text":  # code and output are sent whole
            return []
        places = [self._held.find(stop) for stop in stops if stop in self._held]
        if places:
            self.stopped = True
            self._held = self._held[:min(places)]
            return self._send(keep=0)
        return self._send(keep=_longest_begun(self._held, stops))

    def _send(self, keep):
        """All held text but its last `keep` characters."""
        cut = len(self._held) - keep
        text = self._held[:cut]
        self._held = self._held[cut:]
        sent = [entry for place, entry in self._scored if place < cut]
        self._scored = [(place - cut, entry) for place, entry in self._scored if place >= cut]
        self._has_text = self._has_text or bool(text)
        return [Event("text", text, logprobs=sent)] if text else []

    def _close(self):
        """End the current part: a character that stayed half becomes a replacement character."""
        events = self._read(self._decoder.decode(b"", final=True))
        if self.kind == "text":
            events += self._send(keep=0)
        else:
            events = [Event(self.kind, self._held)]
            self._calls.append(events[0].part)
            self._held = ""
        self._scored = []
        return events


def _longest_begun(text, stops):
    """How many last characters of a text may be the beginning of a stop string."""
    longest = 0
    for stop in stops:
        for n in range(1, len(stop)):
            if text.endswith(stop[:n]):
                longest = max(longest, n)
    return longest
