"""Who may see the dashboard: whoever has its token, from a page of its own, by a name of this machine."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
NO_TOKEN = "Open the address that TraceML printed: it carries the key to this page."
WRONG_HOST = "This dashboard does not answer to that name. Open the address that TraceML printed."
READ_ONLY = "This dashboard can be read and nothing else."
# No script but its own, no other host, not inside another page.
HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Access:
    """In front of the pages: lets in who may see them, and says on every answer what a browser may do with it."""

    def __init__(self, app: ASGIApp, *, token: str, nonce: str, hosts: Iterable[str]) -> None:
        """Guard `app`. `hosts` are names and addresses besides loopback's under which it may be asked for."""
        self._app = app
        self._token = token.encode()
        said = {**HEADERS, "content-security-policy": POLICY.format(nonce=nonce)}
        self._headers = [(name.encode(), value.encode()) for name, value in said.items()]
        self._hosts = {*LOOPBACK_NAMES, *(f"[{host}]" if ":" in host else host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the pages answer."""
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message.get("headers", [])
                added = [(name, value) for name, value in self._headers if name not in {name for name, _ in own}]
                message = {**message, "headers": [*own, *added]}
            await send(message)

        await self._answer(scope)(scope, receive, send_guarded)

    def _answer(self, scope: Scope) -> ASGIApp:
        """What answers this question."""
        headers = {name: value.decode("latin-1") for name, value in reversed(scope["headers"])}
        if _host_name(headers.get(b"host", "")) not in self._hosts:
            return _refusal(421, WRONG_HOST)
        if scope["method"] not in ("GET", "HEAD"):
            return _refusal(405, READ_ONLY)
        cookie = f"traceml_{(scope.get('server') or ('', 0))[1]}"
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token")
        if given is not None:
            return self._entered(scope["path"], cookie) if self._is_token(given[0]) else _refusal(403, NO_TOKEN)
        return self._app if self._is_token(_cookie(headers.get(b"cookie", ""), cookie)) else _refusal(403, NO_TOKEN)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token)

    def _entered(self, path: str, cookie: str) -> ASGIApp:
        """Keeps the token in a cookie, and out of the address, where it would stay in the history."""
        from starlette.responses import RedirectResponse

        response = RedirectResponse("/" + quote(path.lstrip("/")), status_code=303)
        response.set_cookie(cookie, self._token.decode(), httponly=True, samesite="lax", path="/")
        return response


def _host_name(host: str) -> str:
    """A host header without its port: a forwarded one has another."""
    name, separator, port = host.rpartition(":")
    return (name if separator and port.isdigit() else host).lower()


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _refusal(status: int, text: str) -> ASGIApp:
    from starlette.responses import PlainTextResponse

    return PlainTextResponse(text + "\n", status_code=status)
