"""
The web server under load: latencies, throughput with many users, disconnects, slow loris, hostile bodies,
SIGTERM, memory.

    python -m benchmarks.bench_server                       about two minutes; wants a trained chat model
    python -m benchmarks.bench_server --minutes=10          and ten minutes of load, during which memory must stay flat

Starts the real server (scripts.chat_web) on a free port of 127.0.0.1 as a process, talks raw HTTP to it from
this one, and stops it with SIGTERM under 32 streams. Every load is bounded. Writes one line a figure; exits 1
when a bar is missed.
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
from nanochat.common import run

QUESTIONS = [
    "Why is the sky blue?",
    "What is 47 * 12?",
    "How many r are in strawberry?",
    "Hello, who are you?",
    "What is the opposite of hot?",
    "Spell the word apple.",
    "What colour is grass?",
    "Tell me something.",
]


@dataclass
class Config:
    slots: int = option(32, "answers decoded at the same time")
    requests: int = option(1000, "requests of the burst, 64 at a time")
    seconds: float = option(10.0, "length of each measurement of throughput")
    minutes: float = option(0.0, "length of the load under which memory must stay flat")


def body(i, **more):
    """A chat request's JSON as bytes."""
    return json.dumps(
        {
            "messages": [{"role": "user", "content": QUESTIONS[i % len(QUESTIONS)]}],
            "stream": True,
            "seed": i,
            "max_tokens": 64,
            "temperature": 1,
            "stream_options": {"include_usage": True},
            **more,
        }
    ).encode()


def head(length):
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n"
        "Connection: close\r\n\r\n"
    ).encode()


async def ask(port, data):
    """(status, seconds to the first token, seconds a token after it, tokens, complete) of one request."""
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head(len(data)) + data)
        status = int((await reader.readuntil(b"\r\n")).split()[1])
        first, text = None, b""
        while block := await reader.read(65536):
            text += block
            if first is None and b'"content": "' in text.replace(b'"content": ""', b""):
                first = time.perf_counter() - start
        tokens = int((re.findall(rb'"completion_tokens": (\d+)', text) or [0])[0])
        whole = time.perf_counter() - start
        first = whole if first is None else first
        return status, first, (whole - first) / max(tokens - 1, 1), tokens, b"data: [DONE]" in text
    finally:
        writer.close()


async def get(port, path):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer


def spread(values):
    """'p50 / p99' in milliseconds."""
    values = sorted(values)
    return " / ".join(f"{1000 * values[min(int(len(values) * q), len(values) - 1)]:.1f}" for q in (0.5, 0.99))


async def burst(port, n, at_once):
    """The answers to n requests of which `at_once` are on their way at any time."""
    todo, done = iter(range(n)), []

    async def user():
        for i in todo:
            done.append(await ask(port, body(i)))

    await asyncio.gather(*(user() for _ in range(at_once)))
    return done


async def throughput(port, users, seconds):
    """Answer tokens a second and the latencies of `users` who ask again as soon as they are answered."""
    end, done = time.perf_counter() + seconds, []

    async def user(i):
        while time.perf_counter() < end:
            done.append(await ask(port, body(i)))
            i += users

    start = time.perf_counter()
    await asyncio.gather(*(user(i) for i in range(users)))
    return sum(d[3] for d in done) / (time.perf_counter() - start), done


async def leave(port, i):
    """A client that goes away: before the headers are sent, before the body, before the first token, in the
    stream."""
    data = body(i)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write([b"POST /v1/chat", head(len(data)), head(len(data)) + data, head(len(data)) + data][i % 4])
    if i % 4 == 3:
        await reader.readuntil(b'"delta"')
    elif i % 8 < 4:
        await asyncio.sleep(0.005)
    writer.transport.abort() if i % 3 else writer.close()


async def disconnects(port, server, n):
    """Seconds until descriptors, running and waiting requests of the server are back where they were; None
    after 10."""
    await asyncio.sleep(1)
    files = server.num_fds()
    for i in range(0, n, 20):
        await asyncio.gather(*(leave(port, i + j) for j in range(20)), return_exceptions=True)
    start = time.perf_counter()
    while time.perf_counter() - start < 10:
        state = (await get(port, "/metrics")).decode()
        if (
            "nanochat_running 0.0\n" in state
            and "nanochat_waiting 0.0\n" in state
            and server.num_fds() <= files
        ):
            return time.perf_counter() - start
        await asyncio.sleep(0.02)
    return None


async def loris(port):
    """The answers to 20 requests while 200 sockets send a header a byte at a time."""
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]

    async def trickle():
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


async def hostile(port, server):
    """(statuses, growth of memory in MB, whether an answer told a path) of bodies that are none."""
    before, statuses, told = server.memory_info().rss, [], False
    bodies = [
        b" " * (10 << 20),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe",
        b'{"temperature": NaN}',
        b'{"max_tokens": 1' + b"0" * 5000 + b"}",
        b'{"seed": 1e999}',
    ]
    for data in bodies:
        for length in (len(data), 1):  # the second is a lie
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


async def measure(config, port, process, line):
    """All figures of a running server, told by `line`(what, value, bar, met)."""
    server = psutil.Process(process.pid)
    await burst(port, 40, 8)
    done = await burst(port, config.requests, 64)
    served = [d for d in done if d[0] == 200]
    line(
        f"{config.requests} requests, 64 at a time",
        f"{len(served)} x 200, {sum(d[0] == 429 for d in done)} x 429",
        "nothing else, all complete",
        all(d[0] in (200, 429) for d in done) and all(d[4] for d in served),
    )
    line("time to first token, p50 / p99 ms", spread([d[1] for d in served]))
    line("time per token, p50 / p99 ms", spread([d[2] for d in served if d[3] > 1]))
    one, answers = await throughput(port, 1, config.seconds)
    line("1 user, tok/s", f"{one:,.0f}; first token {spread([d[1] for d in answers])} ms")
    many, answers = await throughput(port, 32, config.seconds)
    line("32 users, tok/s", f"{many:,.0f}; first token {spread([d[1] for d in answers])} ms")
    line("32 users over 1", f"{many / one:.1f}x", ">= 8x", many >= 8 * one)
    back = await disconnects(port, server, 500)
    line(
        "500 disconnects, all back after",
        "never" if back is None else f"{back:.2f} s",
        "<= 1 s",
        (back or 9) <= 1,
    )
    done = await loris(port)
    line(
        "200 slow-loris sockets, others",
        f"{sum(d[0] == 200 and d[4] for d in done)} of {len(done)} served",
        "all",
        all(d[0] == 200 and d[4] for d in done),
    )
    statuses, grown, told = await hostile(port, server)
    line(
        "hostile bodies",
        f"{sorted(set(statuses))}, {grown:+.0f} MB",
        "4xx or closed, < 50 MB, nothing told",
        all(s == 0 or 400 <= s < 500 for s in statuses) and grown < 50 and not told,
    )
    if config.minutes:
        sizes = []
        for _ in range(10):
            await throughput(port, 32, config.minutes * 6)
            sizes.append(server.memory_info().rss / 2**20)
        line(
            f"memory over {config.minutes:g} minutes, MB",
            " ".join(f"{s:.0f}" for s in sizes),
            "flat (< 5 %)",
            sizes[-1] < 1.05 * sizes[1],
        )
    streams = [asyncio.create_task(ask(port, body(i))) for i in range(32)]
    while b"nanochat_running 32.0\n" not in await get(port, "/metrics") and not any(
        s.done() for s in streams
    ):
        await asyncio.sleep(0.01)
    start = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    done = await asyncio.gather(*streams)
    code = await asyncio.to_thread(process.wait, 60)
    took = time.perf_counter() - start
    line(
        "SIGTERM under 32 streams",
        f"{sum(d[4] for d in done)} complete, exit {code} after {took:.1f} s",
        "all complete",
        all(d[4] for d in done),
    )


def main(argv=None):
    config, missed = parse(Config, argv, __doc__), []

    def line(what, value, bar="", met=True):
        print(f"| {what} | {value} | {bar} | {'' if not bar else 'yes' if met else 'NO'} |", flush=True)
        missed.extend([] if met else [what])

    command = [sys.executable, "-m", "scripts.chat_web", "--port=0", f"--slots={config.slots}", "--queue=64"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            port = next(int(m[1]) for text in process.stdout if (m := re.search(r"http://\S+:(\d+)", text)))
            print("| what | measured | bar | met |\n|---|---|---|---|")
            asyncio.run(measure(config, port, process, line))
        finally:
            process.kill()
    return 1 if missed else None


if __name__ == "__main__":
    run(main)
