"""
Serves the page: index.html at "/", its style sheets and scripts at "/page/<name>", a run's report at
"/report/<name>".

The page's files are read once, when the server starts, those of the report are listed anew, and a request's
name is looked up among them. No path is ever built from what a stranger sent, so "/page/../../etc/passwd" is
just another name that is not there.
"""
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from nanochat.report.results import report_files

FOLDER = Path(__file__).parent / "page"
TYPES = {".css": "text/css", ".js": "text/javascript"}  # browsers refuse modules and styles of another type
REPORT_TYPES = {".html": "text/html", ".png": "image/png"}

# Content-Security-Policy: what the browser lets the page do, whatever comes to stand in it. A model may
# repeat anything that was ever written, a <script> too; should a mistake of ours ever put that into the page
# as HTML, it still could not run: scripts and styles come from files of this server alone, and nothing can be
# sent to anybody else.
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")

# The report is one file with scripts of its own. In a sandbox it is of no origin: it may draw its curves, and
# neither read what the page keeps in this browser, a key among it, nor ask this server or another.
REPORT_POLICY = ("sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
                 "style-src 'unsafe-inline'; img-src data:")

HEADERS = {
    "Cache-Control": "no-cache",  # ask each time: a new server's page must not run an old one's scripts
    "X-Content-Type-Options": "nosniff",  # believe the type that is told
}
PAGE_HEADERS = {**HEADERS, "Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}


@dataclass
class PageFiles:
    """The page's markup, and its other files by name: (media type, text)."""

    index: str
    others: dict[str, tuple[str, str]]


def read_page(folder: Path = FOLDER) -> PageFiles:
    """Exactly the files that exist: index.html and every .css and .js beside it."""
    others = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in TYPES:
            others[path.name] = (TYPES[path.suffix], path.read_text(encoding="utf-8"))
    return PageFiles((folder / "index.html").read_text(encoding="utf-8"), others)


def add_page(app: FastAPI, folder: Path = FOLDER) -> None:
    """Serve the page of a folder. It needs no API key: it asks its user for it."""
    files = read_page(folder)

    @app.get("/", response_class=HTMLResponse)
    async def chat_page() -> HTMLResponse:
        return HTMLResponse(files.index, headers=PAGE_HEADERS)

    @app.get("/favicon.ico", include_in_schema=False)
    async def no_icon() -> Response:
        return Response(status_code=204)  # browsers ask for one beside whatever they show

    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(name: str) -> Response:
        if name not in files.others:
            raise HTTPException(404)
        media_type, text = files.others[name]
        return Response(text, headers=HEADERS, media_type=media_type)


def add_report(app: FastAPI, keyed: list) -> None:
    """Serve the report that a run has left, and its pictures, to read."""
    @app.get("/report/{name:path}", dependencies=keyed, include_in_schema=False)
    def report_file(name: str) -> Response:  # no coroutine, so that a slow disk holds up a thread alone
        path = report_files().get(name)
        if path is None:
            raise HTTPException(404)
        headers = {**PAGE_HEADERS, "Content-Security-Policy": REPORT_POLICY}
        media_type = REPORT_TYPES.get(path.suffix, "text/plain")
        return Response(path.read_bytes(), headers=headers, media_type=media_type)
