"""
report.html: report.md in one file that asks nobody for anything, its pictures as charts that are alive.

markdown-it makes HTML of the text and escapes whatever HTML stands in it, so an answer with <script> in it
stays text. How it looks, and what its charts do, is report.html.txt's.
"""
import html
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markdown_it import MarkdownIt

from nanochat.report.plots import Curve
from nanochat.report.results import PHASES
from nanochat.report.summary import ScoreRow

TEMPLATE = Path(__file__).parent / "report.html.txt"
MOST_POINTS = 400  # of a curve: more than a screen shows apart


def write(text: str, rows: list[ScoreRow], curves: list[Curve]) -> str:
    """The page of the Markdown `text`, where pictures are charts of the rows and curves."""
    markdown = MarkdownIt("js-default")  # with tables, without HTML
    markdown.add_render_rule("image", _chart)
    markdown.add_render_rule("table_open", lambda *_: '<div class="wide" tabindex="0"><table>')
    markdown.add_render_rule("table_close", lambda *_: "</table></div>")
    templates = Environment(autoescape=True, trim_blocks=True)
    templates.policies["json.dumps_kwargs"] = {"sort_keys": False}  # stages stay in their order
    template = templates.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(body=markdown.render(text), skills=_skills(rows), charts=_charts(curves),
                           phases=PHASES)


def _chart(renderer, tokens, index, options, environment):
    """The place of a chart, with the words that tell what it shows."""
    token = tokens[index]
    return f'<span class="{Path(token.attrs["src"]).stem}">{html.escape(token.content)}</span>'


def _skills(rows: list[ScoreRow]) -> list[dict[str, Any]]:
    """What the page's script needs of each row, in per cent."""
    skills = []
    for row in rows:
        scores = {phase: _percent(record["score"]) for phase, record in row.records.items()}
        skills.append({"title": row.title, "scores": scores, "chance": _percent(row.last["chance"]),
                       "interval": [_percent(end) for end in row.last["ci95"]]})
    return skills


def _percent(share):
    return round(100 * share, 1)


def _charts(curves: list[Curve]) -> list[dict[str, Any]]:
    """A chart of each unit, of curves that have a length."""
    charts: dict[str, dict] = {}
    for curve in curves:
        drawn = {"phase": curve.phase, "what": curve.what, "points": thinned(curve.points),
                 "smooth": thinned(curve.smooth)}
        charts.setdefault(curve.unit, {"unit": curve.unit, "curves": []})["curves"].append(drawn)
    return [chart for chart in charts.values() if any(len(curve["points"]) > 1 for curve in chart["curves"])]


def thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """No more than a screen shows, to four digits: of each stretch its lowest and highest, and the last."""
    size = max(1, math.ceil(2 * len(points) / MOST_POINTS))
    kept = set(points[-1:])
    for start in range(0, len(points), size):
        stretch = sorted(points[start:start + size], key=lambda point: point[1])
        kept |= {stretch[0], stretch[-1]}
    return [(step, float(f"{value:.4g}")) for step, value in sorted(kept)]
