"""
How the report writes numbers, tables, footnotes and foreign text.
"""
import re


def duration(seconds):
    """'3h51m', '12m05s' or '8s'."""
    s = round(seconds)
    return f"{s // 3600}h{s // 60 % 60:02d}m" if s >= 3600 else f"{s // 60}m{s % 60:02d}s" if s >= 60 else f"{s}s"


def wall_clock(seconds):
    """'0h12m', to the nearest minute."""
    minutes = round(seconds / 60)
    return f"{minutes // 60}h{minutes % 60:02d}m"


def human(value):
    """1,234 or 5.12M or 0.8123 or 2.1e+15."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if abs(value) >= 1e6:
        return (f"{value:.2e}" if abs(value) >= 1e15 else f"{value / 1e9:.2f}B" if abs(value) >= 1e9
                else f"{value / 1e6:.2f}M")
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"


def percent(score, ci95=None, whole=100, digits=1):
    """'92.5 ± 4.1', where ± is the longer side of the interval; '92.5' without one."""
    error = f" ± {whole * max(score - ci95[0], ci95[1] - score):.{digits}f}" if ci95 else ""
    return f"{whole * score:.{digits}f}{error}"


def table(header, rows, left=1):
    """The lines of a Markdown table, its first `left` columns flush left, and a blank one."""
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    cells = [[str(c).replace("|", "\\|").replace("\n", " ") for c in row] for row in (header, *rows)]
    return [*("| " + " | ".join(row) + " |" for row in (cells[0], rule, *cells[1:])), ""]


class Footnotes(dict):
    """{reason: its number}, in the order of their first use."""

    def dash(self, reason):
        return f"- <sup>{self.setdefault(reason, len(self) + 1)}</sup>"

    def lines(self):
        return [f"<sup>{n}</sup> {reason}  " for reason, n in self.items()]


def inline(text):
    """Model text on one line harmless to Markdown and HTML."""
    return re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", " ".join(str(text).split()))
