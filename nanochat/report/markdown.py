"""
How the report writes numbers, tables and foreign text.
"""
import re
from collections.abc import Iterable, Sequence


def duration(seconds: float) -> str:
    """'3h51m', '12m05s' or '8s'."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole // 60 % 60:02d}m"
    if whole >= 60:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole}s"


def wall_clock(seconds: float) -> str:
    """'0h12m', to the nearest minute."""
    minutes = round(seconds / 60)
    return f"{minutes // 60}h{minutes % 60:02d}m"


def human(value: object) -> str:
    """1,234 or 5.12M or 0.8123 or 2.1e+15."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    size = abs(value)
    if size >= 1e15:
        return f"{value:.2e}"
    if size >= 1e9:
        return f"{value / 1e9:.2f}B"
    if size >= 1e6:
        return f"{value / 1e6:.2f}M"
    if isinstance(value, int) or size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def percent(score: float, ci95: Sequence[float] | None = None, whole: float = 100, digits: int = 1) -> str:
    """'92.5 ± 4.1', where ± is the longer side of the interval; '92.5' without one. `whole` is what a score
    of 1 is."""
    text = f"{whole * score:.{digits}f}"
    if not ci95:
        return text
    low, high = ci95
    error = max(score - low, high - score)
    return f"{text} ± {whole * error:.{digits}f}"


def table(header: Sequence, rows: Iterable[Sequence], left: int = 1) -> list[str]:
    """The lines of a Markdown table, its first `left` columns flush left, and a blank one."""
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    lines = [_row(header), "| " + " | ".join(rule) + " |"]
    for row in rows:
        lines.append(_row(row))
    return [*lines, ""]


def _row(cells):
    escaped = [str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells]
    return "| " + " | ".join(escaped) + " |"


def inline(text: str) -> str:
    """Model text on one line harmless to Markdown and HTML."""
    one_line = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", one_line)
