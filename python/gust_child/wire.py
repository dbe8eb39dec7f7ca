"""Control frames between a zygote and its Rust owner.

A frame is a 4-byte big-endian length and a msgpack map. File descriptors ride on the first byte of a frame,
so that they can be taken together with its length.
"""

from __future__ import annotations

import socket
from typing import Any

import msgspec

MAX_FDS = 4
MAX_FRAME_BYTES = 16 * 1024 * 1024


class Fork(msgspec.Struct, tag="fork", tag_field="op", frozen=True):
    """Asks for one child; the frame carries its descriptors."""

    rid: int
    kind: str
    env: dict[str, str] = {}
    bundle_name: str = ""
    bundle_path: str = ""
    rel_path: str = ""


class Kill(msgspec.Struct, tag="kill", tag_field="op", frozen=True):
    """Sends a signal to a child's process group; with ``tree`` to every descendant as well."""

    pid: int
    signal: int
    tree: bool = False


Command = Fork | Kill


class Ready(msgspec.Struct, tag="ready", tag_field="ev", frozen=True):
    """The zygote can fork. A file zygote that must not serve says why in ``refused`` and ends."""

    pid: int
    sdk_version: str
    api_version: str
    refused: str | None = None


class Forked(msgspec.Struct, tag="forked", tag_field="ev", frozen=True):
    """A child exists."""

    rid: int
    pid: int


class ForkFailed(msgspec.Struct, tag="fork_failed", tag_field="ev", frozen=True):
    """No child came of a request."""

    rid: int
    error: str


class Ended(msgspec.Struct, tag="ended", tag_field="ev", frozen=True):
    """A child was reaped. ``code`` and ``signal`` exclude each other."""

    pid: int
    code: int | None
    signal: int | None
    user_s: float
    system_s: float
    max_rss_kb: int


Event = Ready | Forked | ForkFailed | Ended

_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_encoder = msgspec.msgpack.Encoder()


def _read_exactly(sock: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        chunk = sock.recv(count - len(parts))
        if not chunk:
            raise EOFError("control socket closed inside a frame")
        parts += chunk
    return bytes(parts)


def receive(sock: socket.socket) -> tuple[Command, list[int]] | None:
    """Take one command and its descriptors; None when the owner has gone."""
    try:
        head, fds, _, _ = socket.recv_fds(sock, 4, MAX_FDS)
        if not head:
            return None
        if len(head) < 4:
            head += _read_exactly(sock, 4 - len(head))
        size = int.from_bytes(head, "big")
        if size > MAX_FRAME_BYTES:
            raise EOFError(f"control frame of {size} bytes is over the limit of {MAX_FRAME_BYTES}")
        return _decoder.decode(_read_exactly(sock, size)), list(fds)
    except (OSError, EOFError):
        return None


def send(sock: socket.socket, event: Event) -> None:
    """Report one event; BrokenPipeError when the owner has gone."""
    body = _encoder.encode(event)
    sock.sendall(len(body).to_bytes(4, "big") + body)


def dumps(value: Any) -> bytes:
    """JSON text of what a serializer made, refusing what JSON cannot carry."""
    return msgspec.json.encode(value)
