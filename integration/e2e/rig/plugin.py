# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""The node plugin in the cluster: its image, its installation, its processes."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from . import node, openbao
from .wait import Failure, check, until

MANIFESTS = node.HERE / "manifests"
NAMESPACE = "evanesce-system"
DRIVER = "csi.evanesce.dev"
STATE = "/run/evanesce"
# Told apart by the name each has given itself.
ENGINE, LAUNCHER = "evanesce-csi-engine", "evanesce-csi-launcher"


def binary(target):
    """The statically linked `evanesce-csi`: EVANESCE_CSI_BIN, or a release build."""
    if named := os.environ.get("EVANESCE_CSI_BIN"):
        path = pathlib.Path(named)
        check(path.is_file(), f"EVANESCE_CSI_BIN={named} is no file")
    else:
        host = re.search(r"host: (\S+)", subprocess.check_output(["rustc", "-vV"], text=True))[1]
        # `--target` keeps the flag from the build scripts and procedural macros, which cannot be linked so.
        subprocess.run(
            ["cargo", "build", "--release", "--target", host, "-p", "evanesce-csi-driver"],
            cwd=node.HERE, check=True, stdout=sys.stderr,
            env={**os.environ, "RUSTFLAGS": "-C target-feature=+crt-static", "CARGO_TARGET_DIR": str(target)},
        )
        path = target / host / "release" / "evanesce-csi"
    headers = subprocess.run(["readelf", "--program-headers", path], capture_output=True, text=True, check=True).stdout
    check("INTERP" not in headers, f"{path} is linked dynamically: its image holds nothing but itself")
    return path


def image(path):
    """Makes the plugin's image."""
    with tempfile.TemporaryDirectory() as root:
        shutil.copy(path, pathlib.Path(root, "evanesce-csi"))
        node.image("localhost/evanesce-csi:e2e", root, ["/evanesce-csi"])


def install():
    """Makes the plugin's objects, and waits until the plugin is ready and known to kubelet."""
    kept = node.kubectl("get", "daemonset", "-A", "--field-selector", "metadata.name=evanesce-csi", "-o", "name")
    node.kubectl("apply", "-f", MANIFESTS / "plugin.yaml")
    for name, key, file in (("classes", "classes.yaml", MANIFESTS / "classes.yaml"), ("credentials", "openbao-ca.crt", openbao.CA)):
        objects = node.kubectl("create", "configmap", f"evanesce-{name}", "-n", NAMESPACE, f"--from-file={key}={file}",
                               "--dry-run=client", "-o", "json")
        node.kubectl("apply", "-f", "-", stdin=objects)
    if kept:  # of an earlier run: the image has the same name and another content
        node.kubectl("rollout", "restart", "daemonset/evanesce-csi", "-n", NAMESPACE)
    until_it_serves()


def until_it_serves():
    """Waits until the newest plugin pod is ready and known to kubelet."""
    node.kubectl("rollout", "status", "daemonset/evanesce-csi", "-n", NAMESPACE, "--timeout", "60s")
    until("kubelet knows the plugin", registered)


@contextlib.contextmanager
def absent():
    """Meanwhile no plugin pod runs on the node."""
    _select({"evanesce.test/nowhere": "true"})
    until("the plugin is gone", lambda: not _pods() and not processes())
    try:
        yield
    finally:
        _select(None)
        until("there is a plugin again", _pods)
        until_it_serves()


def _select(nodes):
    patch = {"spec": {"template": {"spec": {"nodeSelector": nodes}}}}
    node.kubectl("patch", "daemonset", "evanesce-csi", "-n", NAMESPACE, "--type", "merge", "--patch", json.dumps(patch))


def reboot_node(bao):
    """The node dies and comes up again, OpenBao beside it, and the plugin with it."""
    node.node("reboot")
    bao.resume()
    until("the plugin runs again", lambda: "engine" in processes())
    until("the plugin is ready again", ready)
    until_it_serves()


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
    return node.get("pods", "-n", NAMESPACE)["items"]


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


def until_it_has_classes(files):
    """Waits until the plugin sees these files as they are to be: a text, or None for one that is gone."""
    classes = f"/proc/{process('warden')}/root/etc/evanesce/classes"

    def sees():
        held = dict(line.split(" ", 1) for line in node.inside("bash", "-c", 'cd "$0" && for f in *; do echo "$f $(cat "$f")"; done', classes)
                    .splitlines() if line.split(" ", 1)[0] in files)
        return all(held.get(name) == text for name, text in files.items())

    until("the plugin sees the changed classes", sees)


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
