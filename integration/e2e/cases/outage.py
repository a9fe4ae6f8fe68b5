# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""OpenBao does not answer: running pods keep their files, and kubelet says what is wrong."""

from rig import node, plugin
from rig.pod import Pod, running
from rig.wait import check, until

from . import case

ABNORMAL = "VolumeConditionAbnormal"
SAYS = f"{ABNORMAL}: Volume secrets: the last refresh failed, and the last good files stay: backend vault cannot be reached"


@case
def a_volume_that_cannot_be_refreshed_is_abnormal_to_kubelet_and_whole_to_its_pod(bao):
    with running("outage") as pod:
        seen = pod.read("password")
        check(not _events(pod, ABNORMAL), "a volume that is fresh is not abnormal")
        bao.seal()
        try:
            until("kubelet says what is wrong", lambda: _events(pod, SAYS))
            check(pod.read("password") == seen, "the files are there all the while")
            check(node.ADDRESS not in str(pod.events()), f"no address of the platform's is told to the pod: {pod.events()}")
            with Pod("outage-first") as late:
                late.refused("backend vault cannot be reached", "Unavailable")
                until("the log says what it is", lambda: "it is sealed or down for maintenance: unseal it" in plugin.logs())
                bao.unseal()
                late.wait_until_it_runs()
        finally:
            bao.unseal()
        bao.put("payments/db", username="payments-app", password="after-password")
        until("the running pod sees what is new", lambda: pod.read("password") == "after-password")


def _events(pod, begin):
    """The pod's events that begin so."""
    return [event for event in pod.events() if event.startswith(begin)]
