# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""A graceful shutdown of the node, as kubelet sees it.

kubelet hears of one from systemd-logind over D-Bus, and holds it up with an inhibitor lock until its pods have ended. The
node has no systemd; so kubelet is started anew with shutdown periods and with a bus whose one service answers as logind
does (https://systemd.io/INHIBITOR_LOCKS). What kubelet then does to pods is all its own.
"""

import contextlib
import os
import pathlib
import signal
import socket
import struct
import sys

if __package__:
    from . import node
    from .wait import until

PERIODS = "\nshutdownGracePeriod: 30s\nshutdownGracePeriodCriticalPods: 10s\n"
_TRUE_LATER = 60_000_000  # microseconds that logind would wait at most


class Shutdown:
    """A shutdown that kubelet watches for."""

    def __init__(self):
        self.bus, self._locks = node.HOME / "run" / "bus", node.HOME / "run" / "bus.locks"

    def watched(self):
        """Whether kubelet holds the lock."""
        return self._locks.exists() and self._locks.read_text() == "1"

    def begin(self):
        """Tells kubelet that the node is about to go, and waits until kubelet lets it."""
        node.inside("kill", "-USR1", (node.HOME / "run" / "logind.pid").read_text().strip())
        until("kubelet lets the node go", lambda: not self.watched(), 90)


@contextlib.contextmanager
def shutdown():
    """A `Shutdown` to begin; afterwards the node goes on, as if it had come up again."""
    whole = Shutdown()
    config = node.HOME / "etc" / "kubelet-shutdown.yaml"
    config.write_text((node.HOME / "etc" / "kubelet.yaml").read_text() + PERIODS)
    node.start_inside("logind", sys.executable, __file__, whole.bus)
    until("the bus is there", whole.bus.exists)
    node.node("restart", "kubelet", env={"NODE_KUBELET_CONFIG": str(config), "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={whole.bus}"})
    try:
        until("kubelet watches for a shutdown", whole.watched)
        yield whole
    finally:
        node.node("restart", "kubelet")
        node.stop_inside("logind")
        whole.bus.unlink()


class _Peer:
    """The one that is connected: a D-Bus conversation as its specification has it, of which kubelet needs little."""

    def __init__(self, connection, locks):
        self._connection, self._locks, self._serial, self._mine = connection, locks, 0, None

    def converse(self):
        lines = self._connection.makefile("rb")
        for line in iter(lines.readline, b""):
            word = line.lstrip(b"\0").split()
            if word == [b"BEGIN"]:
                break
            self._connection.sendall({
                (b"AUTH",): b"REJECTED EXTERNAL\r\n", (b"AUTH", b"EXTERNAL"): b"DATA\r\n", (b"NEGOTIATE_UNIX_FD",): b"AGREE_UNIX_FD\r\n",
            }.get(tuple(word), b"OK 0123456789abcdef0123456789abcdef\r\n"))
        while head := lines.read(16):
            body_length, serial, fields_length = struct.unpack("<4xIII", head)
            fields = lines.read(_padded(fields_length, 8))[:fields_length]
            lines.read(body_length)
            self._answer(serial, _text_fields(fields).get(3))

    def _answer(self, serial, member):
        reply = [_field(5, "u", struct.pack("<I", serial))]
        if member == "Hello":
            self._send(2, reply, "s", _string(":1.1"))
        elif member == "Get":  # of the only property that is asked for
            self._send(2, reply, "v", b"\1t\0" + b"\0" * 5 + struct.pack("<Q", _TRUE_LATER))
        elif member == "Inhibit":
            self._mine, theirs = os.pipe()
            self._locks.write_text("1")
            self._send(2, [*reply, _field(9, "u", struct.pack("<I", 1))], "h", struct.pack("<I", 0), descriptors=[theirs])
            os.close(theirs)
        else:
            self._send(2, reply)

    def prepare_for_shutdown(self, *_):
        """The signal; the lock is free when the other end of its pipe is closed."""
        where = [_field(1, "o", _string("/org/freedesktop/login1")), _field(2, "s", _string("org.freedesktop.login1.Manager")),
                 _field(3, "s", _string("PrepareForShutdown")), _field(7, "s", _string(":1.0"))]
        self._send(4, where, "b", struct.pack("<I", 1))
        while os.read(self._mine, 1):
            pass
        self._locks.write_text("0")

    def _send(self, kind, fields, signature="", body=b"", descriptors=()):
        self._serial += 1
        if signature:
            fields = [*fields, struct.pack("<B", 8) + b"\1g\0" + _signature(signature)]
        head = b""
        for field in fields:
            head = head.ljust(_padded(len(head), 8), b"\0") + field
        message = struct.pack("<cBBBIII", b"l", kind, 0, 1, len(body), self._serial, len(head)) + head
        socket.send_fds(self._connection, [message.ljust(_padded(len(message), 8), b"\0") + body], descriptors)


def _padded(length, to):
    return -(-length // to) * to


def _string(text):
    return struct.pack("<I", len(text)) + text.encode() + b"\0"


def _signature(text):
    return bytes([len(text)]) + text.encode() + b"\0"


def _field(code, kind, value):
    return bytes([code]) + _signature(kind) + value


def _text_fields(fields):
    """Those header fields that hold text, by their code."""
    found, at = {}, 0
    while at < len(fields):
        at = _padded(at, 8)
        code, kind, at = fields[at], chr(fields[at + 2]), at + 4
        if kind in "so":
            (length,) = struct.unpack_from("<I", fields, at)
            found[code] = fields[at + 4:at + 4 + length].decode()
            at += 4 + length + 1
        else:
            at += 4 if kind == "u" else fields[at] + 2
    return found


def _serve(path):
    path = pathlib.Path(path)
    locks = path.with_suffix(".locks")
    locks.write_text("0")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        while True:  # the first to come may be a kubelet that is about to be stopped
            peer = _Peer(listener.accept()[0], locks)
            signal.signal(signal.SIGUSR1, peer.prepare_for_shutdown)
            peer.converse()


if __name__ == "__main__":
    _serve(sys.argv[1])
