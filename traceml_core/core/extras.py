"""What the extras of this package bring, and what to say where one is missing. Nothing is imported to find out."""

from __future__ import annotations

import importlib.util

PAGE = ("jinja2", "plotly")
"""What the report as a page needs."""
DASHBOARD = (*PAGE, "starlette", "uvicorn", "sse_starlette")
"""What the dashboard needs."""


def what_is_missing(modules: tuple[str, ...]) -> str | None:
    """That some of the modules cannot be found, and what to do; null where all can."""
    missing = [name.replace("_", "-") for name in modules if not _is_there(name)]
    if not missing:
        return None
    said = " and ".join(missing) if len(missing) < 3 else f"{', '.join(missing[:-1])} and {missing[-1]}"
    verb = "is" if len(missing) == 1 else "are"
    return f"{said} {verb} not installed here; pip install 'traceml-callbacks[dashboard]'"


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a stand-in in sys.modules without a spec
        return False
