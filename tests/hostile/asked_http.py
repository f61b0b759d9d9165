"""Hostile requests over HTTP: what is sent, byte for byte."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from typing import Any, Final

from PIL import Image

from tests.hostile.asked import SHAPE, Asked, Transport, edited, right_document
from tests.hostile.documents import TEXTS
from tests.hostile.files import CHANGES
from tests.hostile.pictures import png, png_bomb

_INFER: Final = "/v2/models/adaptive/infer"
_PREDICT: Final = "/v1/predict"
_NUMBERS: Final = SHAPE[1] * SHAPE[2] * SHAPE[3]

FIELDS: Final[dict[str, tuple[Any, ...]]] = {
    "inputs": (None, {}, [], [1], "x"),
    "inputs.0.name": (*TEXTS, 1, None, "\ud800"),
    "inputs.0.datatype": (*TEXTS, "FP64", "INT32", "BYTES", "fp32", 1, None),
    "inputs.0.shape": (
        *([], None, {}, "x", [1] * 100_000, [1, 3, 96], [1, 3, 96, 96, 1], [1.5, 3, 96, 96], ["1", 3, 96, 96]),
        *([number, 3, 96, 96] for number in (0, -1, 2, 2**32, 2**62, 2**63, 10**400, None, True, [])),
    ),
    "inputs.0.data": (
        *(None, [], {}, "x", [1], [[1, 2], [1]], float("nan"), 1),
        *([value] * _NUMBERS for value in (float("nan"), float("inf"), 1e39, 10**400, None, True, "1", {}, [], [[]])),
    ),
    "inputs.0.parameters": (
        *(None, [], "x"),
        *({"binary_data_size": size} for size in (-1, 0, 1, 2**63, 10**400, True, "1", 1.5, None, [], {})),
    ),
    "id": (1, None, {}, [], "\ud800"),
    "parameters": (None, [], "x", *({"point": point} for point in (*TEXTS[1:], "no", 1, True, [], {}, 1.5))),
    "outputs": (None, {}, [1], [{}], [{"name": 1}], *([{"name": text}] for text in TEXTS)),
    "more": (1,),
}
ANSWERED: Final[dict[str, tuple[Any, ...]]] = {
    "id": TEXTS,
    "outputs": ([], [{"name": "logits"}] * 1000, [{"name": "logits", "parameters": {"binary_data": "x"}}]),
    "parameters": ({}, {"binary_data_output": "x"}, {"more": TEXTS[1]}),
}
"""Fields with values that are unusual and right."""

_BESIDE: Final[dict[str, tuple[Any, ...]]] = {
    "mass": (float("nan"), float("inf"), -1, 1e400, True, None, "1", [0.5]),
    "keep_limits": ([1], [1, 2, 3], [0, 1], [9, 1], [1, 10**400], [-1, 2**31], [1, 1.5], [True, True], None),
}
_HEADERS: Final[dict[str, str]] = {
    **{
        f"header-length-{number}": f"Inference-Header-Content-Length: {value}"
        for number, value in enumerate(("", "-1", "0", "1.5", "abc", "\xb2", "1_0", "9" * 5000, "1, 2", "999999"))
    },
    **{
        f"length-{number}": f"Content-Length: {value}"
        for number, value in enumerate(("", "-1", "1", "1.5", "abc", "\xb2", "1_0", "9" * 30, "1, 2"))
    },
    "length-and-chunks": "Transfer-Encoding: chunked",
    "coding": "Transfer-Encoding: gzip",
    "compressed": "Content-Encoding: gzip",
    "compressed-twice": "Content-Encoding: identity\r\nContent-Encoding: br",
    "name-of-control": "A\x01b: c",
    "value-of-control": "A: \x00\x1b[31m",
    "folded": "A: b\r\n c",
    "no-colon": "abc",
    "long": f"A: {'x' * (1 << 20)}",
    "many": "\r\n".join(f"A{number}: b" for number in range(20_000)),
}
_PLACES: Final = (
    "..%2f..%2fetc%2fpasswd",
    "%00",
    "%1b%5b31m",
    "%0d%0aA:%20b",
    "%ff%fe",
    "x" * 50_000,
    "%",
    "%F0%9F",
    "'\"",
)
_QUERIES: Final = (
    *(f"top={value}" for value in ("-1", "0", "1.5", "nan", "inf", "1e400", "9" * 5000, "\xb2", "", "%00", "1&top=x")),
    *(f"mass={value}" for value in ("-1", "nan", "inf", "1e400", "", "%1b", "0x1", "1_0")),
    *(f"min_keep={value}" for value in ("0", "-1", "nan", "1e30", "1.5", "9" * 5000)),
    *(
        "min_keep=9&max_keep=1",
        "point=%1b%5b31m",
        "point=",
        "model=..%2f..",
        "model=%ff",
        "model=",
        "evil=1",
        "=",
        "%ff=1",
    ),
)
_LINES: Final[dict[str, bytes]] = {
    "nothing": b"",
    "zeros": bytes(1000),
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "http-2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http-0.9": b"GET /\r\n\r\n",
    "version": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "method": b"EVIL / HTTP/1.1\r\nHost: x\r\n\r\n",
    "connect": b"CONNECT evil.example:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "trace": b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
    "proxied": b"GET http://evil.example/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "star": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "no-host": b"GET /v3 HTTP/1.1\r\n\r\n",
    "line-of-control": b"GET /\x1b[31m HTTP/1.1\r\nHost: x\r\n\r\n",
    "line-long": b"GET /" + b"x" * (1 << 20) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "socket": b"GET /v2 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x"
    b"\r\n\r\n",
    "chunk-negative": b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    "chunk-large": b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 64 + b"\r\n",
    "chunk-short": b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    "body-short": b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nab",
}


def _file(format_name: str) -> bytes:
    file = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(file, format_name)
    return file.getvalue()


def _images() -> Iterator[tuple[str, bytes]]:
    for name in ("empty", "deep-list", "zeros", "pickle", "not-utf8"):
        yield name, next(bytes_of(CHANGES[name]))
    yield "png-largest", png(2**31 - 1, 2**31 - 1)
    yield "png-wide", png(2**31 - 1, 1)
    yield "png-none", png(0, 0)
    yield "png-empty", png(10, 10)
    yield "png-bomb", png_bomb()
    yield "png-dense", png(8_000, 8_000, zlib.compress(bytes(8_000 * 1_001)), 1, 0)
    for format_name in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"):
        data = _file(format_name)
        yield f"{format_name.lower()}-half", data[: len(data) // 2]
        yield f"{format_name.lower()}-head", data[:20]
        middle = len(data) // 3
        yield f"{format_name.lower()}-damaged", data[:middle] + b"\xff" * 64 + data[middle + 64 :]
    yield "eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) (w) file\n"
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'


_DECODES: Final = frozenset({"png-dense", *(f"{name}-damaged" for name in ("jpeg", "gif", "bmp", "tiff", "webp"))})
"""Images that a decoder makes something of."""


def bytes_of(change: Any) -> Iterator[bytes]:
    """Yields what a change of files writes into its file."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        change(Path(folder) / "file")
        yield (Path(folder) / "file").read_bytes()


def posted(path: str, body: bytes, *headers: str, length: bool = True) -> bytes:
    """Returns a POST, byte for byte."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Connection: close", *headers]
    lines += [f"Content-Length: {len(body)}"] * length
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def _asked(name: str, sent: bytes, harmless: bool = False) -> Asked:
    return Asked(f"http/{name}", Transport.HTTP, sent, harmless=harmless)


def requests() -> Iterator[Asked]:
    """Yields every request."""
    right = right_document()
    for fields, harmless in ((FIELDS, False), (ANSWERED, True)):
        for path, values in fields.items():
            for number, value in enumerate(values):
                kind = "right" if harmless else "wrong"
                body = json.dumps(edited(right, path, value)).encode()
                yield _asked(f"{kind}/{path}/{number}", posted(_INFER, body), harmless)
    for name, values in _BESIDE.items():
        for number, value in enumerate(values):
            datatype, shape = ("FP32", [1]) if name == "mass" else ("INT32", [1, 2])
            beside = {"name": name, "datatype": datatype, "shape": shape, "data": [value]}
            body = json.dumps(edited(right, "inputs", [*right["inputs"], beside])).encode()
            yield _asked(f"{name}/{number}", posted(_INFER, body), (name, value) == ("mass", [0.5]))
    for name, change in CHANGES.items():
        if name in (
            "empty",
            "deep-list",
            "deeper-list",
            "deep-object",
            "list",
            "null",
            "number",
            "not-utf8",
            "nan",
            "zeros",
        ):
            yield _asked(f"body/{name}", posted(_INFER, next(bytes_of(change))))
    whole = json.dumps(right).encode()
    yield _asked("body/number-long", posted(_INFER, whole.replace(b"[1, 3", b"[" + b"9" * 5000 + b", 3", 1)))
    yield _asked("body/number-infinite", posted(_INFER, whole.replace(b"0.5", b"1e999", 1)))
    yield _asked("body/key-twice", posted(_INFER, whole[:-1] + b', "inputs": []}'))
    for name, header in _HEADERS.items():
        own = header.startswith(("Content-Length", "Transfer-Encoding"))
        harmless = name in (
            "header-length-4",
            "length-2",
            "length-and-chunks",
            "value-of-control",
            "folded",
            "long",
            "many",
        )
        yield _asked(f"header/{name}", posted(_INFER, whole, header, length=not own or "and" in name), harmless)
    for number, place in enumerate(_PLACES):
        for model, version in ((place, ""), ("adaptive", f"/versions/{place}")):
            yield _asked(f"place/{number}/{bool(version)}", posted(f"/v2/models/{model}{version}/infer", whole))
    good = _file("PNG")
    for number, query in enumerate(_QUERIES):
        yield _asked(f"query/{number}", posted(f"{_PREDICT}?{query}", good), query in ("=", "mass=1_0"))
    for name, data in _images():
        yield _asked(f"image/{name}", posted(f"{_PREDICT}?picture=1", data), name in _DECODES)
    for name, line in _LINES.items():
        yield _asked(f"line/{name}", line, name in ("http-0.9", "version", "proxied", "socket"))
