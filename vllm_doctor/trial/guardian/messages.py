"""Messages between the doctor and the guardian: fields of bytes without NUL, behind the length of them all."""

import os

# The words and variables of a launch; the kernel itself allows 2 MiB for both (execve(2): a quarter of the stack).
MAXIMUM_BYTES = 16 * 2**20

_LENGTH_BYTES = 4
_BLOCK_BYTES = 65_536


class Closed(Exception):
    """The other side is gone."""


def send(descriptor: int, *fields: bytes) -> None:
    """Write one message; raises Closed where nobody reads any more."""
    body = b"\0".join(fields)
    message = len(body).to_bytes(_LENGTH_BYTES, "big") + body
    try:
        while message:
            message = message[os.write(descriptor, message) :]
    except OSError as problem:
        raise Closed from problem


class Receiver:
    """The reading end: whole messages out of what has come so far."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._held = b""

    def receive(self) -> list[list[bytes]]:
        """One read, which blocks where nothing has come; the whole messages. Raises Closed at the end."""
        try:
            block = os.read(self.descriptor, _BLOCK_BYTES)
        except OSError as problem:
            raise Closed from problem
        if not block:
            raise Closed
        self._held += block
        messages = []
        while (message := self._next()) is not None:
            messages.append(message)
        return messages

    def _next(self) -> "list[bytes] | None":
        if len(self._held) < _LENGTH_BYTES:
            return None
        end = _LENGTH_BYTES + int.from_bytes(self._held[:_LENGTH_BYTES], "big")
        if end > MAXIMUM_BYTES:
            raise Closed
        if len(self._held) < end:
            return None
        body, self._held = self._held[_LENGTH_BYTES:end], self._held[end:]
        return body.split(b"\0")
