# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""What the pod stands on is restarted on purpose: the plugin by its DaemonSet, containerd, the whole node."""

from rig import node, plugin, stand, traces
from rig.pod import Pod, rotate, running, untouched
from rig.wait import check, until

from . import case


@case
def a_rolling_restart_of_the_daemonset_touches_no_running_pod(bao):
    with traces.nothing_leaks(), running("before-rollout") as pod:
        with untouched(pod):
            before = plugin.pod()["metadata"]["uid"]
            node.kubectl("rollout", "restart", "daemonset/evanesce-csi", "-n", plugin.NAMESPACE)
            plugin.until_it_serves()
            check(plugin.pod()["metadata"]["uid"] != before, "another plugin pod took over")
            _serves(bao, pod, "after-rollout")


@case
def a_restarted_containerd_touches_no_running_pod(bao):
    with traces.nothing_leaks(), running("before-containerd") as pod:
        with untouched(pod):
            node.node("restart", "containerd")
            until("containerd answers", lambda: node.inside("ctr", "version"))
            _serves(bao, pod, "after-containerd")


@case
def after_a_reboot_the_pods_come_back_with_their_files_and_no_other_volume_is_left(bao):
    with traces.nothing_leaks(), running("survivor") as pod:
        with Pod("casualty") as gone:
            gone.wait_until_it_runs()
            before, uid, gone_uid = pod.life(), pod.uid(), gone.uid()
            node.node("stop", "kubelet")
            gone.forget()
            stand.reboot(bao)
        until("the pod's container was started again", lambda: pod.life() != before)
        pod.wait_until_it_runs()
        check(pod.uid() == uid, "it is the same pod")
        until("it reads its files", lambda: pod.read("password").endswith("-password"))
        until("nothing is left of the pod that was deleted meanwhile", lambda: not traces.of_pod(gone_uid))
        _serves(bao, pod, "after-reboot")


def _serves(bao, pod, name):
    """The running pod sees a change, and another pod starts."""
    rotate(bao, pod, to=name)
    with running(name) as other:
        check(other.read("password").endswith("-password"), "a new pod reads its files")
