"""
Fetch one file from the Hugging Face hub (or a mirror, HF_ENDPOINT): resumable, verified, atomic, safe twice
at once.

huggingface_hub forgets half a file when a process ends, and never compares bytes. Here the part that has
arrived stays, and gets the name when its hash is the hub's (the ETag).
"""
import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from nanochat.common import NanochatError, base_dir, log, sha256

ATTEMPTS = 4  # each resumes by itself as long as bytes arrive


class HubError(NanochatError):
    """Nothing wrong stands under the file's name."""


class Stopped(BaseException):
    """Raised by an `on_bytes` callback to end a download."""


def endpoint() -> str:
    """HF_ENDPOINT as it is now, not at the import."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def list_files(repo: str) -> list[str]:
    """Those of a data set, sorted. Raises HubError."""
    from huggingface_hub import HfApi
    with _explained(f"the list of files of {repo}"):
        return sorted(HfApi(endpoint=endpoint()).list_repo_files(repo, repo_type="dataset"))


def fetch(repo: str, path: str, dest: Path | None = None,
          on_bytes: Callable[[int], None] | None = None) -> Path:
    """The local path of a data set's file, fetched unless there: `dest` or base_dir()/hub/<repo>/<path>.

    on_bytes(n) is called as bytes arrive. Raises HubError.
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
                if _fetch_once(dest, url, etag, size, on_bytes or (lambda n: None)):
                    return dest
            except HTTPError as e:
                if attempt == ATTEMPTS - 1 or not _passing(e):
                    raise
            time.sleep(2 ** attempt)
    raise HubError(f"{url} does not give the bytes that the hub announces (size {size}, hash {etag}), {ATTEMPTS} times "
                   f"over. Run the same command again, or use another mirror (HF_ENDPOINT).")


def _passing(error):
    """May it be gone at the next attempt?"""
    from huggingface_hub.errors import HfHubHTTPError
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 416, 429, 500, 502, 503, 504)
    return type(error).__name__ != "ConnectError"  # by name: which httpx depends on huggingface_hub


def _describe(repo, path):
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    url = hf_hub_url(repo, path, repo_type="dataset", endpoint=endpoint())
    about = get_hf_file_metadata(url, endpoint=endpoint())
    if not about.etag:
        raise HubError(f"{endpoint()} is no Hugging Face hub: it gives no ETag for {path}. Check HF_ENDPOINT.")
    return url, about.etag, about.size


@contextlib.contextmanager
def _part_file(dest, etag, on_bytes):
    """The part of `dest` that has arrived, locked; None when another process has finished it meanwhile."""
    part = dest.with_name(f".{dest.name}.{re.sub('[^0-9A-Za-z]', '', etag)[:16]}.part")
    while True:
        with open(part, "r+b", opener=lambda path, flags: os.open(path, flags | os.O_CREAT, 0o644)) as file:
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                on_bytes(0)
                time.sleep(0.1)
            mine, done = part.exists() and os.path.samestat(os.fstat(file.fileno()), part.stat()), dest.exists()
            if mine and done:  # opened after the other had finished
                part.unlink()
            if mine or done:
                yield None if done else file
                return


def _fetch_once(dest, url, etag, size, on_bytes):
    """Fetch what the part file lacks; with the right bytes it becomes `dest`. False: they were not."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers, disable_progress_bars
    disable_progress_bars()
    constants.DOWNLOAD_CHUNK_SIZE = 1 << 16  # not 10 MB, which a break loses and Ctrl-C waits for
    with _part_file(dest, etag, on_bytes) as part:
        if part is None:
            return True
        have = part.seek(0, os.SEEK_END)
        if size is None or have > size:  # nothing to trust about this part
            have = part.truncate(part.seek(0))
        try:
            http_get(url, _Counted(part, on_bytes), resume_size=have, headers=build_hf_headers(), expected_size=size)
        except OSError as e:
            if isinstance(e, HTTPError) or e.errno is not None:
                raise
            return False  # huggingface_hub's own "wrong size"
        if not _right_bytes(part, etag):
            log.warning(f"{dest.name}: wrong bytes came from {url}")
            part.truncate(0)
            return False
        os.fsync(part.fileno())
        os.replace(part.name, dest)
        for old in dest.parent.glob(f".{dest.name}.*.part"):  # of older versions
            old.unlink(missing_ok=True)
        return True


class _Counted:
    """A file that reports what is written to it."""

    def __init__(self, file, on_bytes):
        self.file, self.on_bytes = file, on_bytes
        self.seek, self.tell, self.truncate = file.seek, file.tell, file.truncate

    def write(self, data):
        self.file.write(data)
        self.on_bytes(len(data))


def _right_bytes(file, etag):
    """True for an ETag of another kind."""
    file.flush()
    if re.fullmatch("[0-9a-f]{64}", etag):
        return sha256(file.name) == etag
    if re.fullmatch("[0-9a-f]{40}", etag):
        data = Path(file.name).read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == etag
    log.warning(f"{file.name}: the hub gives no hash ({etag}); only its size was checked")
    return True


@contextlib.contextmanager
def _explained(what):
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
        why = (f"{hub} cannot be reached ({str(e) or type(e).__name__}). Check the network, or set HF_ENDPOINT to a "
               f"mirror, and run the same command again.")
    raise HubError(f"cannot fetch {what}: {why}")
