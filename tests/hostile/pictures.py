"""Image files written byte for byte, whose headers say what they please."""

from __future__ import annotations

import struct
import zlib


def png(width: int, height: int, data: bytes = b"", bits: int = 8, kind: int = 2) -> bytes:
    """Returns a PNG of any header and compressed data."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def png_bomb() -> bytes:
    """Returns a small file of 400 million pixels."""
    return png(20_000, 20_000, zlib.compress(bytes(1 << 24)), 1, 0)
