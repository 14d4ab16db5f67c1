"""The doors to a conversation: scripts/chat_cli.py and the refusals of scripts/chat_web.py."""
import contextlib
import io
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from standin import ByHeart, pieces
from tiny import save_tiny_checkpoint

from nanochat import runtime
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


def test_a_question_of_several_lines_can_come_from_a_file(model, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("What is\n47 * 12?\n"))
    assert chat_cli.main(["-p", "-"]) is None
    assert capsys.readouterr().out == "[47*12 = 564] It is 564.\n" and "What is\n47 * 12?" in model.asked[0]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    with pytest.raises(UsageError, match="prompt"):
        chat_cli.main(["-p", "-"])


LOOP = """if True:
    from scripts import chat_cli
    from types import SimpleNamespace
    chat = chat_cli.Chat(SimpleNamespace(max_len=100), chat_cli.Config())
    chat.answer = lambda text: print("ASKED", repr(text), flush=True)
    chat.loop()"""


@pytest.mark.parametrize("lacks", ["import sys; sys.modules['readline'] = None", "pass"])
def test_a_paste_is_one_message_without_gnu_readline_and_a_pipe_is_not_asked(lacks):
    """uv's and macOS's Python have no GNU readline; with a pipe behind stdout nobody's is used."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    to_pipe = lacks == "pass"
    process = subprocess.Popen([sys.executable, "-c", f"{lacks}\n{LOOP}"], stdin=slave, cwd=ROOT,
                               stdout=subprocess.PIPE if to_pipe else slave, stderr=slave)
    os.close(slave)
    received = b""
    while b"> " not in received:
        received += os.read(master, 1024)
    os.write(master, b"one\ntwo\n\nthree\n")
    answers = process.stdout.readline() if to_pipe else b""
    while not to_pipe and b"three'" not in received:
        received += os.read(master, 1024)
    os.write(master, b"/quit\n")
    rest = process.communicate()[0] or b""
    os.close(master)
    assert b"ASKED 'one\\ntwo\\n\\nthree'" in (answers or received)
    assert not to_pipe or answers + rest == b"ASKED 'one\\ntwo\\n\\nthree'\n", "no '> ' in the pipe"


def test_what_is_pasted_into_a_terminal_is_one_message():
    readline = pytest.importorskip("readline")
    pty = pytest.importorskip("pty")
    if "libedit" in (readline.__doc__ or ""):
        pytest.skip("this Python's line editor is libedit, which knows nothing of pastes")
    master, slave = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", LOOP], stdin=slave, stdout=slave, cwd=ROOT,
                               env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    received = b""
    while b"> " not in received:
        received += os.read(master, 1024)
    os.write(master, b"\x1b[200~one\ntwo\x1b[201~\rthree\r\x04")
    with contextlib.suppress(OSError):              # EIO: the program has ended
        while block := os.read(master, 1024):
            received += block
    os.close(master)
    assert process.wait() == 0 and b"ASKED 'one\\ntwo'" in received and b"ASKED 'three'" in received


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
    out = capsys.readouterr().out
    assert out.count("It is 564.") == 3 and "\ufffd caf\ufffd" in model.asked[1]
    assert ">" not in out, "a pipe is not asked"


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


def test_a_second_ctrl_c_lets_the_first_finish(model, monkeypatch, capsys):
    real, finished = chat_cli.Engine.stream, []

    def stream(engine, prompt, **how):
        try:
            yield from real(engine, prompt, **how)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            finished.append(True)
    monkeypatch.setattr(chat_cli.Engine, "stream", stream)
    monkeypatch.setattr(chat_cli.Chat, "_show", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    out = talk(monkeypatch, capsys, ["one"])
    assert finished and "(stopped)" in out and "Ctrl-D" not in out


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
        assert chat_cli.main(["-i", "base", "--max_tokens=30", "-p", text]) is None
        assert ("its beginning was left out" in capsys.readouterr().out) == cut
        assert prompts[-1][0] == model.tokenizer.bos_id and model.tokenizer.decode(prompts[-1]).endswith("end")
        assert len(prompts[-1]) == 90 if cut else model.tokenizer.decode(prompts[-1]) == text


@pytest.mark.parametrize("argv", [["--temperature=-1"], ["--temperature=9"], ["--prompt="], ["--prompt= "], ["--top_k=-3"],
                                  ["--max_tokens=0"], ["-i", "nobody"]])
def test_wrong_flags_are_refused_by_name(argv):
    with pytest.raises(UsageError, match=argv[0].strip("-").split("=")[0]):
        chat_cli.main(argv)


@pytest.mark.parametrize("argv", [["--host=0.0.0.0"], ["--host=192.168.1.1"], ["--host=::"]])
def test_a_public_address_wants_a_key_or_no_auth(argv):
    with pytest.raises(UsageError, match="api_key"):
        chat_web.Config(host=argv[0].removeprefix("--host="))
    assert chat_web.Config(host="0.0.0.0", no_auth=True) and chat_web.Config(host="0.0.0.0", api_key="x")
    assert chat_web.Config(host="::1") and chat_web.Config(host="localhost")


def test_a_port_in_use_gives_way_to_the_next_where_that_is_wanted():
    with chat_web.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with chat_web.listen("127.0.0.1", port, or_next=True) as sock:
            assert port < sock.getsockname()[1] <= port + 100


def test_a_port_in_use_is_said():
    with chat_web.listen("127.0.0.1", 0) as sock, pytest.raises(UsageError, match="another --port"):
        chat_web.listen("127.0.0.1", sock.getsockname()[1])


@pytest.mark.parametrize("flag", ["deterministic", "int8"])
def test_the_page_passes_on_how_to_decode_and_refuses_it_off_the_cpu(monkeypatch, flag):
    save_tiny_checkpoint("sft", "kindergarten")
    apps = []

    class Server:
        def __init__(self, app, trusted_proxy):
            apps.append(app)

        def run(self, sockets):
            pass

    monkeypatch.setattr(chat_web.limits, "server", Server)
    argv = ["-i", "sft", "--port=0", f"--{flag}"]
    chat_web.main([*argv, "--device=cpu"])
    options = apps[0].state.served.loaded["nanochat-sft"].api.engine.options
    assert [name for name, on in options.items() if on] == [flag]
    monkeypatch.setattr(runtime, "init", lambda _: SimpleNamespace(rank=0, device=torch.device("cuda")))
    with pytest.raises(UsageError, match=flag):
        chat_web.main(argv)
