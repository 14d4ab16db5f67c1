"""
Programs that people bring, as they come from PyPI, talk to the server: does each get its answer?

    python3 -m venv CLIENTS && CLIENTS/bin/pip install openai langchain-openai litellm llm httpx
    python -m benchmarks.clients --python=CLIENTS/bin/python -i sft                    half a minute; any chat model will do

The server listens on a free port of this machine, with a key. One line a client: its version, and what it was told, or
the last line of its error; exits 1 if one of them failed. Open WebUI is played by the requests that it sends to a
connection of the kind "OpenAI": its list of models, then a streamed chat.
"""
import datetime
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.serving import serving
from nanochat.cli import option, parse
from nanochat.common import run
from nanochat.train import checkpoint

KEY = "sk-of-this-run"
CLIENTS = {  # name: its package, and what a program of its user says; URL ends in /v1
    "openai, chat": ("openai", """
from openai import OpenAI
client = OpenAI()
whole = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello"}], temperature=0, max_tokens=8)
pieces = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello"}], temperature=0, max_tokens=8,
                                        stream=True)
said = "".join(piece.choices[0].delta.content or "" for piece in pieces)
assert said == whole.choices[0].message.content, said
print(said)"""),
    "openai, completions": ("openai", """
from openai import OpenAI
scored = OpenAI().completions.create(model=MODEL, prompt="The cat", max_tokens=0, echo=True, logprobs=1).choices[0]
assert scored.text == "The cat" and scored.logprobs.token_logprobs[0] is None
print(scored.logprobs.token_logprobs)"""),
    "LangChain": ("langchain-openai", """
from langchain_openai import ChatOpenAI
chat = ChatOpenAI(model=MODEL, temperature=0, max_tokens=8)
said = chat.invoke([("system", "You are kind."), ("user", "hello")]).content
assert said == "".join(piece.content for piece in chat.stream([("system", "You are kind."), ("user", "hello")])), said
print(said)"""),
    "LiteLLM": ("litellm", """
import litellm
asked = dict(model="openai/" + MODEL, api_base=URL, messages=[{"role": "user", "content": "hello"}], temperature=0, max_tokens=8)
said = litellm.completion(**asked).choices[0].message.content
assert said == "".join(piece.choices[0].delta.content or "" for piece in litellm.completion(**asked, stream=True)), said
print(said)"""),
    "llm": ("llm", """
import os, pathlib, subprocess, sys
folder = pathlib.Path(os.environ["LLM_USER_PATH"])
folder.mkdir()
model = f"- model_id: mine\\n  model_name: {MODEL}\\n  api_base: {URL}\\n  api_key_name: openai\\n"
(folder / "extra-openai-models.yaml").write_text(model)
llm = pathlib.Path(sys.executable).with_name("llm")
command = [llm, "-m", "mine", "--key", os.environ["OPENAI_API_KEY"], "-o", "max_tokens", "8"]
for more in ([], ["--no-stream"]):
    done = subprocess.run([*command, *more, "hello"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout.strip(), end=" ")"""),
    "Open WebUI's requests": ("httpx", """
import httpx
headers = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"}
models = httpx.get(URL + "/models", headers=headers).raise_for_status().json()["data"]
body = {"model": models[0]["id"], "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 8,
        "messages": [{"role": "user", "content": "hello"}]}
answer = httpx.post(URL + "/chat/completions", headers=headers, json=body, timeout=60).raise_for_status()
assert answer.text.endswith("data: [DONE]\\n\\n") and '"usage"' in answer.text
print(models[0]["id"])"""),
}


@dataclass
class Config:
    python: str = option(sys.executable, "the Python that has the clients")
    source: str = checkpoint.source_flag()


def ask(python: str, url: str, model: str, package: str, program: str) -> tuple[bool, str]:
    """Whether a client's program got its answer; and its version and what it was told, or why not."""
    head = f"import importlib.metadata, os\nURL, MODEL = {url + '/v1'!r}, {model!r}\n"
    told = f"print(importlib.metadata.version({package!r}), end=': ')\n"
    with tempfile.TemporaryDirectory() as folder:
        mine = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"{url}/v1", "LLM_USER_PATH": str(Path(folder) / "llm"),
                "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        done = subprocess.run([python, "-c", head + told + program], capture_output=True, text=True, timeout=120,
                              env={**os.environ, **mine})
    if done.returncode:
        return False, done.stderr.strip().splitlines()[-1]
    return True, done.stdout.strip()


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    failed = False
    source = config.source or checkpoint.newest_chat_stage()
    with serving(source, f"--api_key={KEY}") as url:
        models = httpx.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {KEY}"}).json()["data"]
        print(datetime.date.today())
        for name, (package, program) in CLIENTS.items():
            good, told = ask(config.python, url, models[0]["id"], package, program)
            failed = failed or not good
            print(f"{'ok    ' if good else 'FAILED'} {name:22s} {told}", flush=True)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    run(main)
