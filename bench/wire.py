"""The benchmark's client: requests made before the clock starts, blocking sockets, no SDK.

On a machine that client and server share, what the client burns is missing from the server. A
request here is one `sendall` of bytes that were signed beforehand, and a body that is read into one
buffer and thrown away: about 20 µs of CPU per small request, under 0.3 ms per MB.
"""

import socket
from dataclasses import dataclass

from compose.s3_http import UNSIGNED_PAYLOAD, S3Http

RECEIVE_BYTES = 1024 * 1024
TIMEOUT_SECONDS = 120
# A signature is valid for 15 minutes; no measurement takes that long.


class UnexpectedReply(RuntimeError):
    """The server answered something else than the benchmark needs; the message shows it."""


@dataclass(frozen=True)
class Prepared:
    """A signed request. `head` includes the body when it is small; `status` is what must come."""

    head: bytes
    body: memoryview | None
    status: int


def prepare(
    http: S3Http,
    method: str,
    path: str,
    query: str = "",
    *,
    body: memoryview | None = None,
    payload_hash: str = UNSIGNED_PAYLOAD,
    status: int = 200,
) -> Prepared:
    given = {"content-length": str(len(body))} if body is not None else {}
    headers, _ = http.signed_headers(method, path, query, given, payload_hash)
    target = f"{path}?{query}" if query else path
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode()
    if body is not None and len(body) <= 64 * 1024:
        return Prepared(head + body, None, status)
    return Prepared(head, body, status)


class Connection:
    """One keep-alive connection; it opens itself again when the server closed it."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._socket: socket.socket | None = None
        self._buffer = bytearray(RECEIVE_BYTES)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=TIMEOUT_SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket

    def exchange(self, request: Prepared, *, keep: bool = False) -> tuple[int, bytes]:
        """Send, read the whole reply, and return (bytes of body, the body when `keep`)."""
        connected = self._connected()
        connected.sendall(request.head)
        if request.body is not None:
            connected.sendall(request.body)
        head, rest = self._head(connected)
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ", 2)[1])
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        bodiless = request.head.startswith(b"HEAD ") or status in (204, 304)
        if status != request.status:
            body = b"" if bodiless else self._collect(connected, headers, rest)
            self.close()
            raise UnexpectedReply(f"{request.head.split(b' HTTP')[0]!r}: {lines[0]} {body[:500]!r}")
        if bodiless:
            result = (0, b"")
        elif keep or "content-length" not in headers:
            body = self._collect(connected, headers, rest)
            result = (len(body), body)
        else:
            length = int(headers["content-length"])
            self._discard(connected, length - len(rest))
            result = (length, b"")
        if headers.get("connection", "").lower() == "close":
            self.close()
        return result

    def _head(self, connected: socket.socket) -> tuple[bytes, bytes]:
        received = b""
        while b"\r\n\r\n" not in received:
            count = connected.recv_into(self._buffer)
            if not count:
                self.close()
                raise UnexpectedReply("the server closed the connection before its reply")
            received += self._buffer[:count]
        head, _, rest = received.partition(b"\r\n\r\n")
        return head, rest

    def _discard(self, connected: socket.socket, left: int) -> None:
        view = memoryview(self._buffer)
        while left > 0:
            count = connected.recv_into(view[: min(left, RECEIVE_BYTES)])
            if not count:
                raise UnexpectedReply("the server closed the connection inside a body")
            left -= count

    def _collect(self, connected: socket.socket, headers: dict[str, str], rest: bytes) -> bytes:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            body = bytearray(rest)
            while len(body) < int(headers.get("content-length", "0")):
                body += connected.recv(RECEIVE_BYTES)
            return bytes(body)
        body, pending = bytearray(), bytearray(rest)
        while True:
            while b"\r\n" not in pending:
                pending += connected.recv(RECEIVE_BYTES)
            line, _, after = bytes(pending).partition(b"\r\n")
            size = int(line.split(b";")[0], 16)
            pending = bytearray(after)
            while len(pending) < size + 2:
                pending += connected.recv(RECEIVE_BYTES)
            if size == 0:
                return bytes(body)
            body += pending[:size]
            del pending[: size + 2]
