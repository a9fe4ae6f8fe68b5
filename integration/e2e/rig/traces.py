# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""What is there: of the pods' volumes inside the node, and of the node on the machine."""

import contextlib
import os
import pathlib
import re
from collections import Counter

from . import node, plugin
from .wait import Failure, check, until


def of_volumes():
    """Everything a volume may leave inside the node: mounts, directories, records, and files the plugin holds open."""
    warden, engine = plugin.process("warden"), plugin.process("engine")
    # One program start for all of it: each line is a trace.
    script = """
        cut -d' ' -f3- /proc/1/mountinfo | sed 's/^/mount of the node: /'
        cut -d' ' -f3- "/proc/$1/mountinfo" | sed 's/^/mount of the plugin: /'
        find /var/lib/kubelet/pods -maxdepth 1 -mindepth 1 -printf 'directory %p\\n'
        find "$3" -printf 'record %p\\n'
        for who in "warden $1" "engine $2"; do
            set -- $who; find "/proc/$2/fd" -type l -lname '/*' -printf "file of the $1: %l\\n"
        done
    """
    listing = node.inside("bash", "-c", script, "-", warden, engine, plugin.STATE)
    return sorted(listing.splitlines())


def of_pod(uid):
    """The traces that name a pod."""
    return [trace for trace in of_volumes() if uid in trace]


def that_outlive_restarts():
    """The traces of volumes, without what differs from one start of plugin or node to the next."""
    own = plugin.pod()["metadata"]["uid"]
    kept = (trace for trace in of_volumes() if ("~csi" in trace or plugin.STATE in trace or trace.startswith("directory")) and own not in trace)
    return Counter(re.sub(r"\b\d+:\d+ |(shared|master|propagate_from):\d+ ", "", trace) for trace in kept if not trace.startswith("file"))


@contextlib.contextmanager
def nothing_leaks():
    """After this there are no more mounts, directories and records than before it; its pods are gone by then."""
    before = until("the volumes of earlier pods are gone", _no_volumes)
    yield

    def only_what_was():
        new = that_outlive_restarts() - before
        check(not new, "\n".join(new))
        return True

    until("nothing is left", only_what_was)


def _no_volumes():
    now = that_outlive_restarts()
    check(not any("~csi" in trace for trace in now), "\n".join(now))
    return now


class Machine:
    """The machine outside the node's namespaces, before and after."""

    _PLACES = ("/run/evanesce", "/run/containerd", "/var/lib/kubelet", "/var/lib/cni", "/var/log/pods", str(node.HOME))

    def __init__(self):
        self._before = self._look()
        self._namespaces = set()

    def remember_namespaces(self):
        """To be called while the node is up: which namespaces are its own."""
        pid = (node.HOME / "pid").read_text().strip()
        self._namespaces = {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "mnt", "pid")}

    def check_clean(self):
        """`Failure` with what the node left."""
        left = sorted(self._look() - self._before)
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            for kind in ("net", "mnt", "pid"):
                try:
                    if os.readlink(process / "ns" / kind) in self._namespaces:
                        left.append(f"process {process.name} in a namespace of the node")
                except OSError:
                    pass
        if left:
            raise Failure("left on the machine:\n" + "\n".join(left))

    def _look(self):
        mounts = {f"mount {line.split(' ', 5)[4]}" for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()}
        places = {f"path {place}" for place in self._PLACES if os.path.exists(place)}
        cgroups = {f"cgroup {path}" for path, _, _ in os.walk("/sys/fs/cgroup") if path.endswith("/kubepods")}
        links = {f"interface {name}" for name in os.listdir("/sys/class/net")}
        return mounts | places | cgroups | links
