# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""Brings up what cases and measurements stand on, step by step, and takes it down."""

import os
import pathlib
import subprocess

from . import node, openbao, plugin, pod, release, traces
from .wait import until


class Stand:
    """Cluster, OpenBao and plugin; `step(what, action)` runs each step."""

    def __init__(self, step):
        self._step, self._machine = step, traces.Machine()
        self._target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or node.HERE.parent.parent / "target").resolve()
        self._target.mkdir(exist_ok=True)

    def up(self):
        """All of it, as far as it is not up; the OpenBao."""
        archive = self._step("the image", lambda: release.archive(self._target))
        if node.is_up():
            print("using the node that is up", flush=True)
        else:
            if subprocess.run([node.PROGRAM, "built"], check=False).returncode:
                self._step("build the cluster's programs", lambda: node.node("build"))
            self._step("node up", lambda: node.node("up"))
        self._machine.remember_namespaces()
        bao = openbao.OpenBao(self._target)
        self._step("OpenBao up", bao.start)
        self._step("images and accounts", lambda: (pod.prepare(), node.import_archive(archive)))
        self._step("the chart installed, the plugin registered", release.install)
        return bao

    def down(self):
        """Ends the node by the id of its first process, and shows that nothing is left."""
        node.node("down")
        self._machine.check_clean()


def reboot(bao):
    """The node dies and comes up again, OpenBao beside it, and the plugin with it."""
    node.node("reboot")
    bao.resume()
    until("the plugin runs again", lambda: "engine" in plugin.processes())
    until("the plugin is ready again", plugin.ready)
    plugin.until_it_serves()
