"""
Fetch one file from the Hugging Face hub (or a mirror, HF_ENDPOINT): resumable, verified, atomic, safe twice
at once.

huggingface_hub forgets half a file when a process ends, and never compares bytes. A shard with a flipped bit
would be trained on without a word, so here the part that has arrived stays, and gets the name when its hash
is the hub's (the ETag). Its `http_get` is still what talks to the network.
"""
import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from nanochat.common import NanochatError, base_dir, log, sha256

ATTEMPTS = 4  # each resumes by itself as long as bytes arrive
PASSING_STATUS = (408, 416, 429, 500, 502, 503, 504)  # of a server that may do better in a moment
CHUNK_BYTES = 1 << 16

OnBytes = Callable[[int], None]


class HubError(NanochatError):
    """Nothing wrong stands under the file's name."""


class Stopped(BaseException):
    """Raised by an `on_bytes` callback to end a download. No Exception: nobody on the way shall handle it."""


def endpoint() -> str:
    """HF_ENDPOINT as it is now, not at the import."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def list_files(repo: str) -> list[str]:
    """Those of a data set, sorted. Raises HubError."""
    from huggingface_hub import HfApi
    with _explained(f"the list of files of {repo}"):
        return sorted(HfApi(endpoint=endpoint()).list_repo_files(repo, repo_type="dataset"))


def fetch(repo: str, path: str, dest: str | Path | None = None, on_bytes: OnBytes | None = None) -> Path:
    """The local path of a data set's file, fetched unless there: `dest` or base_dir()/hub/<repo>/<path>.

    on_bytes(n) is called as bytes arrive, and with 0 while another process is at it. Raises HubError.
    """
    from huggingface_hub.errors import HTTPError
    dest = Path(dest or base_dir() / "hub" / repo / path)
    if dest.exists():
        return dest
    dest.parent.mkdir(parents=True, exist_ok=True)
    with _explained(f"{path} of {repo}"):
        for attempt in range(ATTEMPTS):
            try:
                url, etag, size = _describe(repo, path)
                if _fetch_once(dest, url, etag, size, on_bytes or _ignore):
                    return dest
            except HTTPError as e:
                if attempt == ATTEMPTS - 1 or not _may_pass(e):
                    raise
            time.sleep(2 ** attempt)
    raise HubError(f"{url} does not give the bytes that the hub announces (size {size}, hash {etag}), "
                   f"{ATTEMPTS} times over. Run the same command again, or use another mirror (HF_ENDPOINT).")


def _ignore(n_bytes: int) -> None:
    pass


def _may_pass(error: Exception) -> bool:
    """Whether it may be gone at the next attempt."""
    from huggingface_hub.errors import HfHubHTTPError
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in PASSING_STATUS
    return type(error).__name__ != "ConnectError"  # by name: which httpx depends on huggingface_hub


def _describe(repo: str, path: str) -> tuple[str, str, int | None]:
    """(URL, ETag, bytes) of a file: what the hub announces, against which the bytes are checked."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    url = hf_hub_url(repo, path, repo_type="dataset", endpoint=endpoint())
    about = get_hf_file_metadata(url, endpoint=endpoint())
    if not about.etag:
        raise HubError(f"{endpoint()} is no Hugging Face hub: it gives no ETag for {path}. "
                       f"Check HF_ENDPOINT.")
    return url, about.etag, about.size


def _fetch_once(dest: Path, url: str, etag: str, size: int | None, on_bytes: OnBytes) -> bool:
    """Fetch what the part file lacks; with the right bytes it becomes `dest`. False: they were not."""
    version = re.sub("[^0-9A-Za-z]", "", etag)[:16]  # no part is continued with the bytes of another version
    part = dest.with_name(f".{dest.name}.{version}.part")
    with _locked(dest, on_bytes):
        if dest.exists():  # another process has finished it meanwhile
            return True
        if not _download(part, url, size, on_bytes):
            return False
        if not _right_bytes(part, etag):
            log.warning(f"{dest.name}: wrong bytes came from {url}")
            part.unlink()
            return False
        os.replace(part, dest)
        for old in dest.parent.glob(f".{dest.name}.*.part"):  # of older versions
            old.unlink(missing_ok=True)
        return True


@contextlib.contextmanager
def _locked(dest: Path, on_bytes: OnBytes) -> Iterator[None]:
    """Hold the lock of `dest`: two that write to one part file would spoil it, and fetch everything twice.

    The kernel lets go of it when a process ends, however it ends."""
    import filelock  # here, as it brings asyncio, which only downloads need
    path = dest.with_name(f".{dest.name}.lock")
    lock = filelock.FileLock(path)
    while not lock.is_locked:
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            on_bytes(0)  # may end the wait
            time.sleep(0.1)
    try:
        yield
    finally:
        # While it is held: who then gets the removed file's lock notices and begins anew. Windows removes no
        # open file, there filelock does it when it lets go.
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()


def _download(part: Path, url: str, size: int | None, on_bytes: OnBytes) -> bool:
    """Append to `part` what it lacks of `size` bytes. False: the hub gave another number of bytes."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers, disable_progress_bars
    disable_progress_bars()
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK_BYTES  # not 10 MB, which a break loses and Ctrl-C waits for
    part.touch()
    with open(part, "r+b") as file:
        have = file.seek(0, os.SEEK_END)
        if size is None or have > size:  # nothing to trust about this part
            have = file.seek(0)
            file.truncate()
        try:
            http_get(url, _Counted(file, on_bytes), resume_size=have, headers=build_hf_headers(),
                     expected_size=size)
        except OSError as e:
            if isinstance(e, HTTPError) or e.errno is not None:
                raise
            return False  # huggingface_hub's own "wrong size"
        file.flush()
        os.fsync(file.fileno())
    return True


class _Counted:
    """A file that reports what is written to it."""

    def __init__(self, file: BinaryIO, on_bytes: OnBytes) -> None:
        self.file = file
        self.on_bytes = on_bytes
        self.seek = file.seek
        self.tell = file.tell
        self.truncate = file.truncate

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.on_bytes(len(data))


def _right_bytes(file: Path, etag: str) -> bool:
    """Whether the file has its ETag for a hash: SHA-256 if it is big, git's SHA-1 if small; else True."""
    if re.fullmatch("[0-9a-f]{64}", etag):
        return sha256(file) == etag
    if re.fullmatch("[0-9a-f]{40}", etag):
        data = file.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == etag
    log.warning(f"{file}: the hub gives no hash ({etag}); only its size was checked")
    return True


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn huggingface_hub's errors into one line that says what to do."""
    from huggingface_hub import errors
    hub = endpoint()
    try:
        yield
        return
    except errors.OfflineModeIsEnabled:
        why = "HF_HUB_OFFLINE is set. Unset it."
    except errors.GatedRepoError:
        why = f"it is gated. Accept its terms on {hub} and set HF_TOKEN."
    except errors.RepositoryNotFoundError:
        why = f"{hub} has no such repository, or it wants a token (HF_TOKEN)."
    except errors.EntryNotFoundError:
        why = f"{hub} has no such file."
    except errors.HfHubHTTPError as e:
        why = f"{hub} answers {e.response.status_code}. Run the same command again later."
    except errors.HTTPError as e:
        why = (f"{hub} cannot be reached ({str(e) or type(e).__name__}). Check the network, "
               f"or set HF_ENDPOINT to a mirror, and run the same command again.")
    raise HubError(f"cannot fetch {what}: {why}")
