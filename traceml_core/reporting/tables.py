"""The numbers behind the card: each section's metrics as a text table."""

from __future__ import annotations

from traceml_core.reporting import final
from traceml_core.reporting.plain_text import ascii_symbols, one_line
from traceml_core.reporting.summary import FinalSummary


def render_tables(summary: FinalSummary) -> str:
    """Every section's issues and numbers in plain ASCII, ending in a newline."""
    lines: list[str] = []
    for spec in final.SECTIONS:
        section = summary.sections.get(spec.name)
        if section is None:
            continue
        lines += [spec.name.replace("_", " ").capitalize(), ""]
        lines += [f"  {issue.label}: {one_line(issue.summary)}" for issue in section.issues]
        lines += [f"  {line}".rstrip() for line in spec.table_lines(section)]
        lines.append("")
    return ascii_symbols("\n".join(lines))
