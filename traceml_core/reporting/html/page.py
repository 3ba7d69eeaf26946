"""Lays out pages: the report as one file that opens anywhere, without a network."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from traceml_core.core.extras import PAGE, what_is_missing
from traceml_core.reporting.html.view import PageView, figures_of, moment, page_view

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

    from traceml_core.reporting.summary import FinalSummary

HERE = Path(__file__).parent
ASSETS = HERE / "assets"
GENERATOR = '<meta name="generator" content="TraceML">'
"""What every page carries in its head, so that it is known again."""
HEAD_LETTERS = 2_000


class PageUnavailableError(Exception):
    """No page can be made here; the message says why, and what to do."""


def render_report(summary: FinalSummary) -> str:
    """The report as a page that needs nothing but itself.

    Raises:
        PageUnavailableError: what the extra `dashboard` brings is not installed.
    """
    missing = what_is_missing(PAGE)
    if missing is not None:
        raise PageUnavailableError(missing)
    plotly, charts = _closed(plotly_script()), _closed(asset("charts.js"))
    return (
        templates()
        .get_template("report.html")
        .render(
            view=page_view(summary),
            style=asset("report.css"),
            scripts=[plotly, charts],
            policy=_policy(plotly, charts),
        )
    )


def is_ours(path: Path) -> bool:
    """Whether the file is a page that this module made, and may be made anew."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return GENERATOR in file.read(HEAD_LETTERS)
    except OSError:
        return False


def asset(name: str) -> str:
    """A style sheet or script of this package."""
    return (ASSETS / name).read_text(encoding="utf-8")


def plotly_script() -> str:
    """plotly.js, as the installed plotly brings it.

    Raises:
        PageUnavailableError: plotly is not installed, or is not whole.
    """
    found = importlib.util.find_spec("plotly")  # importing plotly takes longer than the whole page
    places = [] if found is None else list(found.submodule_search_locations or [])
    try:
        return (Path(places[0]) / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    except (IndexError, OSError) as error:
        raise PageUnavailableError(
            "plotly is not installed whole; pip install 'traceml-callbacks[dashboard]'"
        ) from error


@lru_cache(maxsize=1)
def templates() -> jinja2.Environment:
    """The templates. Whatever a summary says is text in them, never markup."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figures"] = figures_json
    environment.filters["moment"] = moment
    return environment


def figures_json(view: PageView) -> Markup:
    """The charts of a page as JSON that can stand inside a script element."""
    from markupsafe import Markup

    figures = {one.key: {"data": one.data, "layout": one.layout} for one in figures_of(view)}
    text = msgspec.json.encode(figures).decode()
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # noqa: S704 - nothing is left in it that could end the element


def _closed(script: str) -> str:
    """A script that can stand inside its element: what would end that is written in another way."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _policy(*scripts: str) -> str:
    """A content-security policy: these scripts, this style, and nothing from anywhere else."""
    allowed = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
