# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""A process of the plugin, or kubelet, dies: running pods keep their files, later pods get theirs."""

from rig import node, plugin, traces
from rig.pod import rotate, running
from rig.wait import check, until

from . import case


@case
def a_killed_engine_leaves_the_running_pod_its_files_and_serves_the_next(bao):
    with running("before-engine") as pod:
        seen = pod.read("password")
        warden, restarts = plugin.process("warden"), plugin.restarts()
        killed = plugin.kill("engine")
        check(pod.read("password") == seen, "the files are there without the engine")
        until("the warden started another engine", lambda: plugin.process("engine") != killed)
        until("the log says so", lambda: "engine half ended; it is started again" in plugin.logs())
        _still_whole(bao, pod, "after-engine")
        check(plugin.process("warden") == warden and plugin.restarts() == restarts, "the warden went on all the while")


@case
def a_killed_warden_takes_the_engine_along_and_both_come_back(bao):
    with running("before-warden") as pod:
        seen = pod.read("password")
        engine, restarts = plugin.process("engine"), plugin.restarts()
        plugin.kill("warden")
        check(pod.read("password") == seen, "the files are there without the plugin")
        until("kubelet started another container", lambda: plugin.restarts() > restarts)
        until("the plugin is ready again", plugin.ready)
        check(plugin.process("engine") != engine, "with an engine of its own")
        _still_whole(bao, pod, "after-warden")


@case
def a_restarted_kubelet_finds_the_plugin_and_the_running_pod_again(bao):
    with running("before-kubelet") as pod:
        node.node("restart", "kubelet")
        _still_whole(bao, pod, "after-kubelet")


def _still_whole(bao, pod, name):
    """One mount, the running pod refreshes, another pod starts, and the first can be deleted without a trace."""
    rotate(bao, pod, to=name)
    mounts = [trace for trace in traces.of_pod(pod.uid()) if trace.startswith("mount of the node") and "~csi" in trace]
    check(len(mounts) == 1, f"one mount for one volume: {mounts}")
    with running(name) as other:
        check(other.read("password") == f"{name}-password", "a new pod reads its files")
    uid = pod.uid()
    pod.delete()
    until("nothing of the running pod is left", lambda: not traces.of_pod(uid))
