# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""The node plugin that runs in the cluster: its pod, its processes, what it says."""

import contextlib
import re

from . import node
from .wait import Failure, check, until

NAMESPACE = "evanesce-system"
DRIVER = "csi.evanesce.dev"
STATE = "/run/evanesce"
# Told apart by the name each has given itself.
ENGINE, LAUNCHER = "evanesce-csi-engine", "evanesce-csi-launcher"


def until_it_serves():
    """Waits until the newest plugin pod is ready and known to kubelet."""
    node.kubectl("rollout", "status", "daemonset/evanesce-csi", "-n", NAMESPACE, "--timeout", "60s")
    until("kubelet knows the plugin", registered)


@contextlib.contextmanager
def absent():
    """Meanwhile no plugin pod runs on the node."""
    _only_where("true")
    until("the plugin is gone", lambda: not _pods() and not processes())
    try:
        yield
    finally:
        _only_where(None)
        until("there is a plugin again", _pods)
        until_it_serves()


def _only_where(label):
    patch = {"spec": {"template": {"spec": {"nodeSelector": {"evanesce.test/nowhere": label}}}}}
    node.kubectl("patch", "daemonset", "evanesce-csi", "-n", NAMESPACE, "--type", "merge", "--patch", node.text(patch))


def registered():
    """Whether kubelet has written the plugin down for its node."""
    try:
        drivers = node.get("csinode", "node-1")["spec"]["drivers"] or []
    except (Failure, KeyError):
        return False
    return any(driver["name"] == DRIVER for driver in drivers)


def pod():
    """The plugin's pod."""
    pods = [pod for pod in _pods() if "deletionTimestamp" not in pod["metadata"]]
    check(len(pods) == 1, f"{len(pods)} plugin pods")
    return pods[0]


def _pods():
    return node.get("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=csi")["items"]


def ready():
    """Whether its one container is ready."""
    statuses = pod()["status"].get("containerStatuses", [])
    return bool(statuses) and statuses[0]["ready"]


def restarts():
    """How often the container was started again."""
    return pod()["status"]["containerStatuses"][0]["restartCount"]


def metric(name):
    """The sum of one of its metrics, over all labels."""
    at = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod()['metadata']['name']}:9811/proxy/metrics"
    lines = node.kubectl("get", "--raw", at).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{name}[{{ ]", line))


def processes():
    """Their ids inside the node, by which is which."""
    found = {}
    for line in node.inside("ps", "-eo", "pid=,args=").splitlines():
        pid, _, arguments = line.strip().partition(" ")
        name = arguments.split(" ")[0].rsplit("/", 1)[-1]
        if name == ENGINE:
            found["engine"] = pid
        elif name == "evanesce-csi":
            found["warden"] = pid
        elif name == LAUNCHER:
            found["launcher"] = pid
    return found


def process(which):
    """The id of `engine` or `warden`."""
    found = processes()
    if which not in found:
        raise Failure(f"no {which} among the plugin's processes: {found}")
    return found[which]


def kill(which):
    """Ends one of the plugin's processes as a crash would; returns its id."""
    pid = process(which)
    node.inside("kill", "-KILL", pid)
    return pid


def logs():
    """What the plugin said, before its last restart too."""
    said = []
    for previous in ("true", "false"):
        try:
            said.append(node.kubectl("logs", "-n", NAMESPACE, "daemonset/evanesce-csi", f"--previous={previous}", "--tail", "200"))
        except Failure as failure:
            said.append(f"({failure})")
    return "\n--- restarted ---\n".join(said)
