"""The pages of the dashboard, and the events by which an open page follows its run."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any
from urllib.parse import quote

import msgspec
from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from traceml_core.dashboard.access import Access
from traceml_core.dashboard.shown_runs import ShownRun, ShownRuns
from traceml_core.loggers.error_log import get_error_logger
from traceml_core.reporting.html.page import asset, plotly_script, templates
from traceml_core.reporting.html.view import page_view

LOOK_INTERVAL_S = 0.5
PING_S = 15
SCRIPT, STYLE = "text/javascript", "text/css"

_logger = get_error_logger("Dashboard")


def dashboard_app(
    runs: ShownRuns, *, token: str, is_ending: Callable[[], bool] = lambda: False, hosts: Iterable[str] = ()
) -> ASGIApp:
    """The dashboard as an ASGI application. Once `is_ending`, open pages get the last news, and are told."""
    nonce = secrets.token_urlsafe(16)
    pages = _Pages(runs, nonce, is_ending)
    routes = [
        Route("/", pages.list),
        Route("/events", pages.list_events),
        Route("/runs/{name}", pages.run),
        Route("/runs/{name}/events", pages.run_events),
        Route("/assets/{name}", pages.asset),
    ]
    handlers: dict[Any, Any] = {404: pages.nothing_there, Exception: pages.failed}
    return Access(Starlette(routes=routes, exception_handlers=handlers), token=token, nonce=nonce, hosts=hosts)


class _Pages:
    """One method a route."""

    def __init__(self, runs: ShownRuns, nonce: str, is_ending: Callable[[], bool]) -> None:
        self._runs = runs
        self._nonce = nonce
        self._is_ending = is_ending
        self._assets: dict[str, tuple[str, Callable[[], str]]] = {
            "plotly.js": (SCRIPT, plotly_script),
            "styles.js": (SCRIPT, lambda: asset("styles.js")),
            "charts.js": (SCRIPT, lambda: asset("charts.js")),
            "dashboard.js": (SCRIPT, lambda: asset("dashboard.js")),
            "report.css": (STYLE, lambda: asset("report.css")),
        }

    async def list(self, request: Request) -> Response:
        """All runs."""
        content = await run_in_threadpool(self._list_content)
        return self._page("TraceML runs", content, "/events", content)

    async def list_events(self, request: Request) -> Response:
        """The list, whenever it changes."""
        return self._events(request, self._list_content, _fingerprint, self._list_content)

    async def run(self, request: Request) -> Response:
        """One run."""
        name = request.path_params["name"]
        run = await run_in_threadpool(self._runs.one, name)
        if run is None:
            return self._nothing()
        content = await run_in_threadpool(_run_content, run)
        return self._page(
            f"{run.title} – TraceML", content, f"/runs/{quote(name, safe='')}/events", run.version, is_run=True
        )

    async def run_events(self, request: Request) -> Response:
        """One run, whenever it changes."""
        name = request.path_params["name"]
        if not self._runs.version(name):
            return self._nothing()

        def content() -> str:
            run = self._runs.one(name)
            return "" if run is None else _run_content(run)

        return self._events(request, lambda: self._runs.version(name), _fingerprint, content)

    async def asset(self, request: Request) -> Response:
        """A script or the style sheet."""
        known = self._assets.get(request.path_params["name"])
        if known is None:
            return self._nothing()
        kind, make = known
        return Response(
            await run_in_threadpool(make), media_type=kind, headers={"cache-control": "private, max-age=60"}
        )

    async def nothing_there(self, request: Request, error: Exception) -> Response:
        """For an address that is none."""
        return self._nothing()

    async def failed(self, request: Request, error: Exception) -> Response:
        """For what cannot be shown; why is written where TraceML writes its failures."""
        _logger.error("[TraceML] showing a page failed", exc_info=error)
        return PlainTextResponse("This page could not be made. `traceml report` shows the run as text.\n", 500)

    def _nothing(self) -> Response:
        return PlainTextResponse("There is nothing here. The first page lists the runs.\n", 404)

    def _list_content(self) -> str:
        return templates().get_template("runs.html").render(runs=self._runs.all())

    def _page(self, title: str, content: str, events: str, version: str, is_run: bool = False) -> Response:
        page = templates().get_template("dashboard.html")
        return HTMLResponse(
            page.render(
                title=title,
                content=content,
                events=f"{events}?have={_fingerprint(version)}",
                nonce=self._nonce,
                is_run=is_run,
            )
        )

    def _events(
        self, request: Request, look: Callable[[], str], name: Callable[[str], str], content: Callable[[], str]
    ) -> Response:
        have = request.query_params.get("have", "")

        async def news() -> AsyncIterator[dict[str, str]]:
            shown = have
            while True:
                ends = self._is_ending()  # asked first: what is written until then is shown
                seen = name(await run_in_threadpool(look))
                if seen != shown:
                    shown = seen
                    text = await run_in_threadpool(content)
                    yield {"event": "page", "data": msgspec.json.encode(text).decode()}
                if ends:
                    yield {"event": "end", "data": "{}"}
                    return
                await asyncio.sleep(LOOK_INTERVAL_S)

        return EventSourceResponse(news(), ping=PING_S)


def _run_content(run: ShownRun) -> str:
    if run.summary is None:
        return templates().get_template("no_summary.html").render(run=run)
    return templates().get_template("run.html").render(run=run, view=page_view(run.summary))


def _fingerprint(text: str) -> str:
    """What stands for a version in an address."""
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:16]
