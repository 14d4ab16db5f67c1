"""The doors to a conversation: scripts/chat_cli.py and the refusals of scripts/chat_web.py."""
import io
from types import SimpleNamespace

import pytest
import torch
from standin import ByHeart, pieces

from nanochat.common import UsageError
from nanochat.data.tokenizer import Tokenizer
from nanochat.terminal import mend_streams
from nanochat.train import checkpoint
from scripts import chat_cli, chat_web


@pytest.fixture
def model(monkeypatch):
    """It answers every prompt with a tool call and "It is 564."."""
    tokenizer = Tokenizer.train(["hello there 47 * 12 = 564 " * 9], 300)
    model = ByHeart(tokenizer, {"": ["\0python:47*12", "\0output:564", "It is 564."]}, sequence_len=120)
    monkeypatch.setattr(checkpoint, "load_model", lambda *_: (model, tokenizer, {"step": 7}))
    return model


def talk(monkeypatch, capsys, lines, argv=()):
    """What the terminal shows when the user types `lines`; a line that is an exception is raised instead."""
    typed = iter(lines)

    def read(prompt):
        line = next(typed, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line
    monkeypatch.setattr("builtins.input", read)
    assert chat_cli.main([*argv]) is None
    return capsys.readouterr().out


def test_one_question_prints_the_call_and_the_answer(model, capsys):
    assert chat_cli.main(["-p", "What is 47 * 12?"]) is None
    assert capsys.readouterr().out == "[47*12 = 564] It is 564.\n"


def test_a_conversation_is_remembered_until_clear(model, monkeypatch, capsys):
    out = talk(monkeypatch, capsys, ["one", "", "two", "/clear", "three"])
    assert out.count("It is 564.") == 3
    assert "one" in model.asked[1] and "It is 564." in model.asked[1]
    assert "two" not in model.asked[2] and "three" in model.asked[2]


def test_the_same_conversation_after_clear_has_the_same_seeds(model, monkeypatch, capsys):
    seeds, stream = [], chat_cli.Engine.stream
    monkeypatch.setattr(chat_cli.Engine, "stream", lambda *args, **how: seeds.append(how["seed"]) or stream(*args, **how))
    talk(monkeypatch, capsys, ["one", "two", "/clear", "one", "two"])
    assert seeds[:2] == seeds[2:] and seeds[0] != seeds[1]


def test_a_backslash_continues_a_line(model, monkeypatch, capsys):
    talk(monkeypatch, capsys, ["one\\", "two \\", "three", "four\\", KeyboardInterrupt(), "five"])
    assert "one\ntwo \nthree" in model.asked[0] and len(model.asked) == 2
    assert "four" not in model.asked[1] and "five" in model.asked[1]


def test_bytes_that_are_no_text_do_not_end_the_conversation(model, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\n\xff caf\xe9\nthree\n"), "utf-8"))
    mend_streams()                                              # as common.run does
    assert chat_cli.main([]) is None
    assert capsys.readouterr().out.count("It is 564.") == 3 and "\ufffd caf\ufffd" in model.asked[1]


def test_commands(model, monkeypatch, capsys):
    lines = ["/help", "/temperature 0.5", "/temperature -1", "/topk x", "/nonsense", "/quit", "unread"]
    out = talk(monkeypatch, capsys, lines)
    assert "(temperature is 0.5)" in out and "temperature must be 0 or more" in out and "'x' is not a number" in out
    assert "There is no /nonsense" in out and not model.asked


def test_ctrl_c_stops_the_answer_and_not_the_program(model, monkeypatch, capsys):
    model.interrupt_at = len(pieces(model.tokenizer, *model.answers[""])) - 3
    out = talk(monkeypatch, capsys, ["one", KeyboardInterrupt(), "two"])
    assert "(stopped)" in out and "Ctrl-D" in out and out.count("[47*12 = 564]") == 2 and out.count("It is 564.") == 1
    assert "It is" in model.asked[1]


@pytest.mark.parametrize("where", ["render_prompt", "join_texts"])
def test_ctrl_c_just_before_or_after_an_answer_does_not_end_the_conversation(model, monkeypatch, capsys, where):
    real = getattr(chat_cli, where)
    left = iter([1, 1, 1, 0] if where == "render_prompt" else [1, 0])      # at the second question

    def pressed(*args):
        if next(left, None) == 0:
            raise KeyboardInterrupt
        return real(*args)
    monkeypatch.setattr(chat_cli, where, pressed)
    out = talk(monkeypatch, capsys, ["one", "two", "three"])
    assert "Ctrl-D" in out and "one" in model.asked[-1] and "three" in model.asked[-1] and "two" not in model.asked[-1]


def test_a_long_conversation_is_trimmed_with_a_note(model, monkeypatch, capsys):
    out = talk(monkeypatch, capsys, [f"question {i}" for i in range(5)], ["--max_tokens=40"])
    assert "were left out" in out and "question 0" not in model.asked[-1] and "question 4" in model.asked[-1]
    out = talk(monkeypatch, capsys, ["x y " * 100 + "end"], ["--max_tokens=40"])
    assert "its beginning was left out" in out and "end" in model.asked[-1]


def test_a_text_too_long_for_the_base_model_goes_on_from_its_end_with_a_note(model, monkeypatch, capsys):
    prompts = []
    monkeypatch.setattr(chat_cli.Engine, "stream", lambda engine, prompt, **how: prompts.append(prompt) or (e for e in ()))
    for text, cut in (("x y " * 100 + "end", True), ("short end", False)):
        assert chat_cli.main(["-i", "base", "--max_tokens=40", "-p", text]) is None
        assert ("its beginning was left out" in capsys.readouterr().out) == cut
        assert prompts[-1][0] == model.tokenizer.bos_id and model.tokenizer.decode(prompts[-1]).endswith("end")
        assert len(prompts[-1]) == 90 if cut else model.tokenizer.decode(prompts[-1]) == text


@pytest.mark.parametrize("argv", [["--temperature=-1"], ["--top_k=-3"], ["--max_tokens=0"], ["-i", "nobody"]])
def test_wrong_flags_are_refused_by_name(argv):
    with pytest.raises(UsageError, match=argv[0].strip("-").split("=")[0]):
        chat_cli.main(argv)


@pytest.mark.parametrize("argv", [["--host=0.0.0.0"], ["--host=192.168.1.1"], ["--host=::"]])
def test_a_public_address_wants_a_key_or_no_auth(argv):
    with pytest.raises(UsageError, match="api_key"):
        chat_web.Config(host=argv[0].removeprefix("--host="))
    assert chat_web.Config(host="0.0.0.0", no_auth=True) and chat_web.Config(host="0.0.0.0", api_key="x")
    assert chat_web.Config(host="::1") and chat_web.Config(host="localhost")


def test_a_port_in_use_is_said():
    with chat_web.listen("127.0.0.1", 0) as sock, pytest.raises(UsageError, match="another --port"):
        chat_web.listen("127.0.0.1", sock.getsockname()[1])


@pytest.mark.parametrize("flag", ["deterministic", "int8"])
def test_the_page_passes_on_how_to_decode_and_refuses_it_off_the_cpu(model, monkeypatch, flag):
    apps = []

    class Server:
        def __init__(self, app):
            apps.append(app)

        def run(self, sockets):
            pass

    monkeypatch.setattr(chat_web.limits, "server", Server)
    argv = ["-i", "sft", "--port=0", f"--{flag}"]
    chat_web.main([*argv, "--device=cpu"])
    options = apps[0].state.worker.engine.options
    assert [name for name, on in options.items() if on] == [flag]
    monkeypatch.setattr(chat_web.runtime, "init", lambda _: SimpleNamespace(rank=0, device=torch.device("cuda")))
    with pytest.raises(UsageError, match=flag):
        chat_web.main(argv)
