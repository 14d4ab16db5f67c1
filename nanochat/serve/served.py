"""
The models of a server: those that lie on disk, and those that somebody has asked.

A model is loaded when a question for it comes, and again when a newer checkpoint lies there: so one can talk
to a model that is still being trained. What was not asked for longest goes when memory is wanted. Until then
nothing here imports torch, and a page that only shows a run costs next to nothing.
"""
import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nanochat.common import NanochatError, UsageError, log
from nanochat.eval import records
from nanochat.serve.errors import ApiError
from nanochat.serve.metrics import Metrics
from nanochat.serve.refusals import NoModel
from nanochat.train import places
from nanochat.train.stages import CHAT_STAGES, STAGES

if TYPE_CHECKING:  # these two bring torch
    from nanochat.infer.engine import Engine
    from nanochat.serve.openai_api import OpenAIApi

SHARE = 0.25  # of the memory, for weights
ALL_STAGES = (*CHAT_STAGES, *(name for name in STAGES if name not in CHAT_STAGES))


# ---- on disk
@dataclass(frozen=True)
class Found:
    """A model that can be loaded."""

    id: str
    max_model_len: int
    version: str = ""  # another one when its weights have changed
    chats: bool = True
    created: int = 0  # seconds since 1970
    size: int = 0  # of its weights, in bytes


class Checkpoints:
    """The newest checkpoint of each of these stages; of one tag, or one step's, if these are given."""

    def __init__(self, stages: tuple[str, ...] = ALL_STAGES, tag: str = "", step: int | None = None,
                 device: str = "", **options: Any):
        self.stages = stages
        self.tag = tag
        self.step = step
        self.device = device
        self.options = options  # of the Engine
        self._runtime: Any = None

    def found(self) -> list[Found]:
        """Those that there are now; the first answers who names none."""
        models = []
        for stage in self.stages:
            with contextlib.suppress(NanochatError, OSError):  # an older one is just being dropped
                folder = places.find(stage, self.tag, self.step)
                meta = places.read_meta(folder)
                size = (folder / "model.safetensors").stat().st_size
                models.append(Found(f"nanochat-{stage}", meta["model"]["sequence_len"],
                                    f"{folder.parent.name}/{folder.name}", STAGES[stage].chats,
                                    int(meta["time"]), size))
        return models

    def suggestions(self, found: Found) -> list[str]:
        """Questions for a page to offer: those that it answered right in its last evaluation."""
        stage = found.id.removeprefix("nanochat-")
        return records.passed_questions(f"{stage}@{self.tag}" if self.tag else stage)

    def load(self, found: Found) -> "Engine":
        """Its weights, or where these are damaged the checkpoint's before it."""
        from nanochat import runtime  # here, as these bring torch
        from nanochat.infer.engine import Engine
        from nanochat.train.checkpoint import load_model

        if self._runtime is None:
            self._runtime = runtime.init(self.device)
        if any(self.options.values()) and self._runtime.device.type != "cpu":
            raise UsageError("--deterministic and --int8 are for a CPU: --device=cpu.")
        stage = found.id.removeprefix("nanochat-")
        model, tokenizer, _ = load_model(stage, self._runtime, self.tag, self.step)
        return Engine(model, tokenizer, **self.options)

    def room(self) -> float:
        """A share of the device's memory: the rest is for training, caches and others."""
        from nanochat import runtime

        return SHARE * runtime.memory_gib(self._runtime) * 2**30


# ---- loaded
@dataclass
class Loaded:
    """A model in memory, and the thread that decodes with it."""

    found: Found
    api: "OpenAIApi"
    asked: float = 0.0  # time.monotonic() of the last question


class Served:
    """Loads models for those who ask; `slots` and `max_waiting` are each model's, `defaults` are settings of
    requests that name none."""

    def __init__(self, source: Checkpoints, slots: int = 8, max_waiting: int = 32, temperature: float = 0.0,
                 top_k: int = 50):
        self.source = source
        self.slots = slots
        self.max_waiting = max_waiting
        self.defaults = {"temperature": temperature, "top_k": top_k}
        self.loaded: dict[str, Loaded] = {}
        self.metrics = Metrics(self)
        self._hand_over: Callable[[Callable[[], None]], object] | None = None  # set while the server runs
        self._loading = asyncio.Lock()  # two must not load the same, nor fill the memory together

    # ---- how it does
    @property
    def busy(self) -> int:
        """Answers that are being decoded or wait."""
        return sum(loaded.api.worker.busy for loaded in self.loaded.values())

    @property
    def running(self) -> int:
        """Answers that are being decoded."""
        return sum(min(loaded.api.worker.busy, self.slots) for loaded in self.loaded.values())

    @property
    def places(self) -> int:
        """How many answers may be decoded or wait, of one model."""
        return self.slots + self.max_waiting

    @property
    def failed(self) -> bool:
        """Whether a thread has crashed."""
        return any(loaded.api.worker.failed for loaded in self.loaded.values())

    def check(self) -> None:
        """Raise Busy or Stopped if no model would take an answer now."""
        workers = [loaded.api.worker for loaded in self.loaded.values()]
        if workers:
            min(workers, key=lambda worker: (worker.failed, worker.busy)).check()

    # ---- what there is
    def describe(self, found: Found) -> dict[str, Any]:
        """A model as OpenAI's API lists it, with what our page wants to know beside."""
        return {"id": found.id, "object": "model", "created": found.created, "owned_by": "nanochat",
                "max_model_len": found.max_model_len, "suggestions": self.source.suggestions(found),
                "chats": found.chats, "version": found.version,
                "defaults": {**self.defaults, "max_tokens": 3 * found.max_model_len // 8}}

    def find(self, name: str | None) -> Found:
        """The one of that name, by default the first. Raises ApiError 404, NoModel."""
        models = self.source.found()
        if not models:
            raise NoModel("No model has been trained yet. When the first checkpoint is written, it can be "
                          "talked to.")
        for found in models:
            if name in (None, "", found.id):
                return found
        there = ", ".join(repr(found.id) for found in models)
        message = f"No model {str(name)[:100]!r} here, only {there}."
        raise ApiError(404, message, param="model", code="model_not_found")

    # ---- loading
    async def api(self, name: str | None) -> "OpenAIApi":
        """What answers for a model, in its newest version unless the one before is just answering. Raises as
        `find`."""
        found = await asyncio.to_thread(self.find, name)
        loaded = self.loaded.get(found.id)
        if loaded is None or (loaded.found != found and loaded.api.idle):
            async with self._loading:
                loaded = self.loaded.get(found.id)
                if loaded is None or (loaded.found != found and loaded.api.idle):  # still, after waiting
                    loaded = await self._load(found)
        loaded.asked = time.monotonic()
        return loaded.api

    async def _load(self, found):
        for gone in self._too_much(found):
            await asyncio.to_thread(self.loaded.pop(gone).api.worker.stop)
        try:
            new = await asyncio.to_thread(self._open, found)
        except NanochatError as error:
            log.warning(str(error))  # which may tell of paths, and is not the client's to mend
            raise NoModel(f"{found.id} cannot be loaded now. The server's log says why.") from None
        old = self.loaded.get(found.id)
        self.loaded[found.id] = new
        if old:
            await asyncio.to_thread(old.api.worker.stop)
        self._start(new)
        return new

    def _too_much(self, found):
        """The idle models that must go to make room, those first that were not asked for longest."""
        if not self.loaded:
            return []
        held = found.size + sum(loaded.found.size for loaded in self.loaded.values())
        gone = []
        for name, loaded in sorted(self.loaded.items(), key=lambda item: item[1].asked):
            if held > self.source.room() and loaded.api.idle:
                held -= loaded.found.size
                gone.append(name)
        return gone

    def _open(self, found):
        from nanochat.memory import ran_out  # here, as these bring torch
        from nanochat.serve.openai_api import OpenAIApi
        from nanochat.serve.worker import Worker

        try:
            engine = self.source.load(found)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            raise NoModel(f"There is not enough memory for {found.id} now.") from None
        worker = Worker(engine, self.slots, self.max_waiting)
        return Loaded(found, OpenAIApi(worker, found.id, self.defaults, self.metrics))

    def preload(self) -> "OpenAIApi":
        """Load the first model before the server starts. Raises as `find` and `Checkpoints.load`."""
        found = self.find(None)
        self.loaded[found.id] = self._open(found)
        return self.loaded[found.id].api

    # ---- the server's life
    def start(self, hand_over: Callable[[Callable[[], None]], object]) -> None:
        """From now on answers go to the event loop by `hand_over`: see Worker."""
        self._hand_over = hand_over
        for loaded in self.loaded.values():
            self._start(loaded)

    def _start(self, loaded):
        loaded.api.worker.hand_over = self._hand_over
        loaded.api.worker.start()

    def stop(self) -> None:
        """Let all models go, after their current step."""
        for loaded in self.loaded.values():
            loaded.api.worker.stop()
