"""
The live page's files: read once, served with an ETag, to whoever asks, as they hold nothing of any guest.

The page may load its own files and talk to its own origin, and nothing else: no script but those files runs, whatever
a guest is called (Content Security Policy Level 3; trusted types forbid to make markup of text). The path `/` is the
page for who asks for HTML by name, which browsers do, and the root of discovery for everybody else.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import PurePosixPath

import msgspec

from api import status
from api.answers import ETAG, NOSNIFF, REVALIDATE, Answer, joined, of_bytes, ranges
from api.identity import Headers

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

PREFIX = "/page/"

INDEX = "index.html"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)

SECURITY = (
    NOSNIFF
    + f"content-security-policy: {POLICY}\r\n".encode()
    + b"referrer-policy: no-referrer\r\n"
    + b"cross-origin-opener-policy: same-origin\r\n"
    + b"cross-origin-resource-policy: same-origin\r\n"
)


def load() -> dict[str, Answer]:
    """Every file of the page, by path."""
    found = {}
    for file in files("api").joinpath("page").iterdir():
        suffix = PurePosixPath(file.name).suffix
        if suffix in TYPES:
            body = file.read_bytes()
            etag = hashlib.sha256(body).hexdigest()[:32]
            head = ETAG + f'"{etag}"\r\n'.encode() + REVALIDATE + SECURITY
            found[PREFIX + file.name] = of_bytes(200, body, content_type=TYPES[suffix], head=head)
    return found


class Page:
    """The files in memory."""

    def __init__(self) -> None:
        self._files = load()
        index = self._files[PREFIX + INDEX]
        self._index = msgspec.structs.replace(index, head=index.head + b"vary: accept\r\n")

    def find(self, method: str, path: str, headers: Headers) -> Answer | None:
        """The file, if that is what is asked for; a refusal, if it is to be anything but read."""
        reads = method in {"GET", "HEAD"}
        if path == "/":
            return self._index if reads and _likes_html(joined(headers, b"accept")) else None
        file = self._files.get(path)
        return file if reads or file is None else status.method_not_allowed()


def _likes_html(accept: bytes) -> bool:
    """Whether it names HTML, and likes nothing of ours better."""
    liked = [media for media, _ in ranges(accept) if media in {"text/html", "application/json"}]
    return liked[:1] == ["text/html"]
