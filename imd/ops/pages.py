"""The web pages: the files of `imd/web` under fixed paths, and the settings that they ask for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from imd.config.endpoints import place_of
from imd.config.settings import Settings

FOLDER = Path(__file__).resolve().parents[1] / "web"

_PATHS: dict[str, tuple[str, ...]] = {
    "pages/chat.html": ("/",),
    "pages/agent.html": ("/agent",),
    "pages/demo.html": ("/demo",),
    "widget/widget.js": ("/widget.js",),
    # Other modules import it by its folder.
    "client/imd.js": ("/imd.js", "/client/imd.js"),
}
"""paths that people and other sites know, by file; any other file is under its folder and name"""

_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}

_PAGE_POLICY = b"; ".join(
    (
        b"default-src 'none'",
        b"script-src 'self'",
        b"style-src 'self'",
        b"img-src 'self'",
        b"connect-src 'self' ws: wss:",
        b"base-uri 'none'",
        b"form-action 'none'",
        b"frame-ancestors 'none'",
        b"worker-src 'self'",
        # The browser refuses to make markup or a script from a string, but for the one URL in app/notices.js.
        b"require-trusted-types-for 'script'",
        b"trusted-types imd-worker",
    )
)


@dataclass(frozen=True, slots=True)
class File:
    """The answer under one path."""

    body: bytes
    etag: bytes
    headers: tuple[tuple[bytes, bytes], ...]


def read_files(folder: Path = FOLDER) -> dict[bytes, File]:
    """The files that are served, by path. A file without a type in `_TYPES` is not served."""
    found: dict[bytes, File] = {}
    for path in sorted(folder.glob("*/*")):
        if path.suffix in _TYPES:
            name = path.relative_to(folder).as_posix()
            file = _file(path.suffix, path.read_bytes())
            found |= {where.encode(): file for where in _PATHS.get(name, (f"/{name}",))}
    return found


def _file(suffix: str, body: bytes) -> File:
    headers = [
        (b"content-type", _TYPES[suffix]),
        # Cached, but revalidated each time: a newer node's pages show at once.
        (b"cache-control", b"no-cache"),
    ]
    if suffix == ".html":
        headers += [
            (b"content-security-policy", _PAGE_POLICY),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"referrer-policy", b"no-referrer"),
        ]
    if suffix == ".js":
        # Modules are fetched with CORS: a site with the widget has another origin.
        headers.append((b"access-control-allow-origin", b"*"))
    etag = b'"' + hashlib.sha256(body).hexdigest()[:32].encode() + b'"'
    return File(body, etag, tuple(headers))


def client_settings(settings: Settings, websocket_port: int | None, headers: Mapping[str, str]) -> bytes:
    """The settings that a page needs to reach its node, as JSON.

    `ws` is a port on the page's own host, a path on its own origin, or a whole URL. `headers` are the
    request's, names in lower case: through a proxy, the WebSocket is behind the same proxy.
    """
    where: int | str = "/ws"
    if settings.http.websocket_url:
        where = settings.http.websocket_url
    elif websocket_port is not None and not _through_a_proxy(headers):
        where = websocket_port
    return msgspec.json.encode(
        {
            "ws": where,
            "tls": place_of(settings.websocket.listen).is_tls,
            "authMode": settings.auth.mode,
            "visitors": settings.auth.visitors,
        }
    )


def _through_a_proxy(headers: Mapping[str, str]) -> bool:
    return any(name in ("forwarded", "via") or name.startswith("x-forwarded") for name in headers)
