"""
From the events of a reply to the parts of a message, which the conversation so far consists of.

Needed by whoever shows a reply and then goes on with the conversation: the web server and the terminal alike.
"""
from dataclasses import replace

from nanochat.infer.text_stream import Event


def message_part(event: Event) -> dict[str, str]:
    """A "text", "python" or "python_output" event as a part of a message's content."""
    return {"type": event.kind, "text": event.text}


def join_texts(events: list[Event]) -> list[Event]:
    """The same events, neighbouring texts made one."""
    joined: list[Event] = []
    for event in events:
        if event.kind == "text" and joined and joined[-1].kind == "text":
            last = joined.pop()
            event = replace(event, text=last.text + event.text, logprobs=[*last.logprobs, *event.logprobs])
        joined.append(event)
    return joined
