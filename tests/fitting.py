"""
A hook for schemathesis: valid requests are made to fit what JSON schema cannot say: whose turn it is, what is there, and
how little the context of a tiny model holds.
"""
import schemathesis


def short_content(content):
    """A message's content, a text or parts, of a few characters."""
    if content is None:
        return None
    if isinstance(content, str):
        return content[:8]
    return [{**part, "type": "text", "text": part["text"][:4]} for part in content[:2]]


@schemathesis.hook
def before_call(context, case, kwargs):
    body = case.body
    if not case.meta.generation.mode.is_positive or not isinstance(body, dict):
        return
    if "messages" in body:
        messages = body["messages"][:3]
        for i, message in enumerate(messages):
            role = ("user", "assistant")[i % 2]
            messages[i] = {"role": role, "content": short_content(message.get("content"))}
        body["messages"] = messages
        if messages[-1]["role"] == "assistant":    # nothing that is held to JSON is begun by the client
            body.pop("response_format", None)
    if isinstance(body.get("response_format"), dict):    # what can be held to is not for JSON schema to say
        body["response_format"] = {"type": body["response_format"]["type"]}
    if body.get("logit_bias"):
        body["logit_bias"] = {"5": 1.0}
    if isinstance(body.get("prompt"), list):
        body["prompt"] = [str(x)[:20] for x in body["prompt"][:3]]
    for name in ("max_tokens", "max_completion_tokens", "n"):
        if body.get(name):
            body[name] = 1 + body[name] % 3
    if body.get("model"):
        body["model"] = "tiny"
