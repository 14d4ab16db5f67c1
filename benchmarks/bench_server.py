"""
The web server under load: latencies, throughput with many users, disconnects, slow loris, hostile bodies, SIGTERM, memory.

    python -m benchmarks.bench_server                       about two minutes; wants a trained chat model
    python -m benchmarks.bench_server --minutes=10          and ten minutes of load, during which memory must stay flat

Starts the real server (scripts.chat_web) on a free port of 127.0.0.1 as a process, talks raw HTTP to it from this one, and
stops it with SIGTERM under 32 streams. Every load is bounded. Writes one line a figure; exits 1 when a bar is missed.
"""
import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import psutil

from nanochat.cli import option, parse
from nanochat.common import UsageError, run

QUESTIONS = ["Why is the sky blue?", "What is 47 * 12?", "How many r are in strawberry?", "Hello, who are you?",
             "What is the opposite of hot?", "Spell the word apple.", "What colour is grass?", "Tell me something."]


@dataclass
class Config:
    slots: int = option(32, "answers decoded at the same time")
    requests: int = option(1000, "requests of the burst, 64 at a time")
    seconds: float = option(10.0, "length of each measurement of throughput")
    minutes: float = option(0.0, "length of the load under which memory must stay flat")


@dataclass
class Answer:
    """What one request was answered with."""

    status: int
    first_token_s: float  # the whole, if there was none
    per_token_s: float  # after the first
    tokens: int
    complete: bool  # up to [DONE]


def body(number: int) -> bytes:
    """The JSON of a chat request, another question and seed for each number."""
    question = {"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}
    return json.dumps({"messages": [question], "stream": True, "seed": number, "max_tokens": 64, "temperature": 1,
                       "stream_options": {"include_usage": True}}).encode()


def head(length: int) -> bytes:
    return (f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n"
            "Connection: close\r\n\r\n").encode()


async def ask(port: int, data: bytes) -> Answer:
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head(len(data)) + data)
        status_line = await reader.readuntil(b"\r\n")
        first = None
        text = b""
        block = await reader.read(65536)
        while block:
            text += block
            if first is None and b'"content": "' in text.replace(b'"content": ""', b""):
                first = time.perf_counter() - start
            block = await reader.read(65536)
        whole = time.perf_counter() - start
    finally:
        writer.close()
    told = re.search(rb'"completion_tokens": (\d+)', text)
    tokens = int(told[1]) if told else 0
    first = whole if first is None else first
    return Answer(status=int(status_line.split()[1]), first_token_s=first, per_token_s=(whole - first) / max(tokens - 1, 1),
                  tokens=tokens, complete=b"data: [DONE]" in text)


async def get(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer


def spread(values: list[float]) -> str:
    """'p50 / p99' in milliseconds."""
    ordered = sorted(values)
    shown = []
    for fraction in (0.5, 0.99):
        place = min(int(len(ordered) * fraction), len(ordered) - 1)
        shown.append(f"{1000 * ordered[place]:.1f}")
    return " / ".join(shown)


async def burst(port: int, requests: int, at_once: int) -> list[Answer]:
    """The answers to so many requests, of which `at_once` are on their way at any time."""
    todo = iter(range(requests))  # shared: each user takes the next
    done: list[Answer] = []

    async def user() -> None:
        for number in todo:
            done.append(await ask(port, body(number)))

    await asyncio.gather(*(user() for _ in range(at_once)))
    return done


async def throughput(port: int, users: int, seconds: float) -> tuple[float, list[Answer]]:
    """Answer tokens a second, and the answers, of `users` who ask again as soon as they are answered."""
    start = time.perf_counter()
    done: list[Answer] = []

    async def user(number: int) -> None:
        while time.perf_counter() < start + seconds:
            done.append(await ask(port, body(number)))
            number += users

    await asyncio.gather(*(user(i) for i in range(users)))
    return sum(answer.tokens for answer in done) / (time.perf_counter() - start), done


async def leave(port: int, number: int) -> None:
    """A client that goes away: before the headers are sent, before the body, before the first token, in the stream."""
    data = body(number)
    moment = number % 4
    sent = b"POST /v1/chat" if moment == 0 else head(len(data))
    if moment >= 2:
        sent += data
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    if moment == 3:
        await reader.readuntil(b'"delta"')
    elif number % 8 < 4:
        await asyncio.sleep(0.005)
    if number % 3:
        writer.transport.abort()  # a reset instead of a goodbye
    else:
        writer.close()


async def disconnects(port: int, server: psutil.Process, clients: int) -> float | None:
    """Seconds until descriptors, running and waiting requests of the server are back where they were; None after 10."""
    await asyncio.sleep(1)
    files = server.num_fds()
    for i in range(0, clients, 20):
        await asyncio.gather(*(leave(port, i + j) for j in range(20)), return_exceptions=True)
    start = time.perf_counter()
    while time.perf_counter() - start < 10:
        state = (await get(port, "/metrics")).decode()
        if "nanochat_running 0.0\n" in state and "nanochat_waiting 0.0\n" in state and server.num_fds() <= files:
            return time.perf_counter() - start
        await asyncio.sleep(0.02)
    return None


async def loris(port: int) -> list[Answer]:
    """The answers to 20 requests while 200 sockets send a header a byte at a time."""
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]

    async def trickle() -> None:
        while True:
            for _, writer in slow:
                writer.write(b"x")
            await asyncio.sleep(0.2)
    for _, writer in slow:
        writer.write(b"GET / HTTP/1.1\r\nX: ")
    task = asyncio.create_task(trickle())
    done = await burst(port, 20, 4)
    task.cancel()
    for _, writer in slow:
        writer.transport.abort()
    return done


BODIES_THAT_ARE_NONE = [
    b" " * (10 << 20), b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b'{"temperature": NaN}',
    b'{"max_tokens": 1' + b"0" * 5000 + b"}", b'{"seed": 1e999}']


async def hostile(port: int, server: psutil.Process) -> tuple[list[int], float, bool]:
    """(statuses, growth of memory in MB, whether an answer told a path) of bodies that are none."""
    before = server.memory_info().rss
    statuses = []
    told = False
    for data in BODIES_THAT_ARE_NONE:
        for length in (len(data), 1):      # the second is a lie
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(head(length).replace(b"Connection: close\r\n", b"") + data)
                answer = await asyncio.wait_for(reader.read(65536), 15)
                statuses.append(int(answer.split()[1]) if answer else 0)
                told |= b"Traceback" in answer or b".py" in answer
            except ConnectionError:
                statuses.append(0)
            finally:
                writer.transport.abort()
    return statuses, (server.memory_info().rss - before) / 2**20, told


# ---- the table
class Table:
    """Prints a line a figure, and remembers which bars were missed."""

    def __init__(self) -> None:
        self.missed: list[str] = []
        print("| what | measured | bar | met |\n|---|---|---|---|")

    def line(self, what: str, value: str, bar: str = "", met: bool = True) -> None:
        verdict = ""
        if bar:
            verdict = "yes" if met else "NO"
        print(f"| {what} | {value} | {bar} | {verdict} |", flush=True)
        if not met:
            self.missed.append(what)


async def measure_speed(config: Config, port: int, table: Table) -> None:
    await burst(port, 40, 8)
    done = await burst(port, config.requests, 64)
    served = [answer for answer in done if answer.status == 200]
    refused = [answer for answer in done if answer.status == 429]
    only_those = len(served) + len(refused) == len(done)
    table.line(f"{config.requests} requests, 64 at a time", f"{len(served)} x 200, {len(refused)} x 429",
               "nothing else, all complete", only_those and all(answer.complete for answer in served))
    table.line("time to first token, p50 / p99 ms", spread([answer.first_token_s for answer in served]))
    table.line("time per token, p50 / p99 ms", spread([answer.per_token_s for answer in served if answer.tokens > 1]))
    one, answers = await throughput(port, 1, config.seconds)
    table.line("1 user, tok/s", f"{one:,.0f}; first token {spread([answer.first_token_s for answer in answers])} ms")
    many, answers = await throughput(port, 32, config.seconds)
    table.line("32 users, tok/s", f"{many:,.0f}; first token {spread([answer.first_token_s for answer in answers])} ms")
    table.line("32 users over 1", f"{many / one:.1f}x", ">= 8x", many >= 8 * one)


async def measure_harm(port: int, server: psutil.Process, table: Table) -> None:
    back = await disconnects(port, server, 500)
    table.line("500 disconnects, all back after", "never" if back is None else f"{back:.2f} s", "<= 1 s",
               back is not None and back <= 1)
    done = await loris(port)
    served = [answer for answer in done if answer.status == 200 and answer.complete]
    table.line("200 slow-loris sockets, others", f"{len(served)} of {len(done)} served", "all", len(served) == len(done))
    statuses, grown, told = await hostile(port, server)
    refused = all(status == 0 or 400 <= status < 500 for status in statuses)
    table.line("hostile bodies", f"{sorted(set(statuses))}, {grown:+.0f} MB", "4xx or closed, < 50 MB, nothing told",
               refused and grown < 50 and not told)


async def measure_memory(minutes: float, port: int, server: psutil.Process, table: Table) -> None:
    sizes = []
    for _ in range(10):
        await throughput(port, 32, minutes * 60 / 10)
        sizes.append(server.memory_info().rss / 2**20)
    shown = " ".join(f"{size:.0f}" for size in sizes)
    table.line(f"memory over {minutes:g} minutes, MB", shown, "flat (< 5 %)", sizes[-1] < 1.05 * sizes[1])


async def measure_stop(port: int, process: subprocess.Popen, table: Table) -> None:
    streams = [asyncio.create_task(ask(port, body(i))) for i in range(32)]
    while b"nanochat_running 32.0\n" not in await get(port, "/metrics") and not any(s.done() for s in streams):
        await asyncio.sleep(0.01)
    start = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    done = await asyncio.gather(*streams)
    code = await asyncio.to_thread(process.wait, 60)
    took = time.perf_counter() - start
    complete = sum(answer.complete for answer in done)
    table.line("SIGTERM under 32 streams", f"{complete} complete, exit {code} after {took:.1f} s", "all complete",
               complete == len(done))


async def measure(config: Config, port: int, process: subprocess.Popen, table: Table) -> None:
    """All figures of a running server, which is stopped at the end."""
    server = psutil.Process(process.pid)
    await measure_speed(config, port, table)
    await measure_harm(port, server, table)
    if config.minutes:
        await measure_memory(config.minutes, port, server, table)
    await measure_stop(port, process, table)


def main(argv: list[str] | None = None) -> int | None:
    config = parse(Config, argv, __doc__)
    command = [sys.executable, "-m", "scripts.chat_web", "--port=0", f"--slots={config.slots}", "--queue=64"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            address = None
            while address is None:
                said = process.stdout.readline()
                if not said:
                    raise UsageError("the server did not start. Run python -m scripts.chat_web to see why.")
                address = re.search(r"http://\S+:(\d+)", said)
            table = Table()
            asyncio.run(measure(config, int(address[1]), process, table))
        finally:
            process.kill()
    return 1 if table.missed else None


if __name__ == "__main__":
    run(main)
