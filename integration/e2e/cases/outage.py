# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""OpenBao does not answer: running pods keep their files, and kubelet says what is wrong."""

import json

from rig import node
from rig.pod import Pod, running
from rig.wait import Failure, check, until

from . import case

SAYS = "VolumeConditionAbnormal: Volume secrets: the last refresh failed, and the last good files stay: backend vault cannot be reached"


@case
def a_volume_that_cannot_be_refreshed_is_abnormal_to_kubelet_and_whole_to_its_pod_until_it_can(bao):
    with running("outage") as pod:
        until("kubelet says that the volume is well", lambda: _abnormal(pod) is False)
        seen = pod.read("password")
        bao.seal()
        try:
            until("kubelet says what is wrong", lambda: [event for event in pod.events() if event.startswith(SAYS)])
            until("and counts the volume as abnormal", lambda: _abnormal(pod) is True)
            check(pod.read("password") == seen, "the files are there all the while")
            check(node.ADDRESS not in str(pod.events()), f"no address of the platform's is told to the pod: {pod.events()}")
            with Pod("outage-first") as late:
                late.refused("backend vault cannot be reached", "Unavailable")
                bao.unseal()
                late.wait_until_it_runs()
        finally:
            bao.unseal()
        until("kubelet says that the volume is well again", lambda: _abnormal(pod) is False)
        bao.put("payments/db", username="payments-app", password="after-password")
        until("and it shows what is new", lambda: pod.read("password") == "after-password")


def _abnormal(pod):
    """What kubelet's statistics say of the pod's volume; None before they say anything."""
    summary = json.loads(node.kubectl("get", "--raw", "/api/v1/nodes/node-1/proxy/stats/summary"))
    for stats in summary["pods"]:
        if stats["podRef"]["name"] == pod.name:
            for volume in stats.get("volume", []):
                if volume["name"] == "secrets" and "volumeHealthStats" in volume:
                    return volume["volumeHealthStats"]["abnormal"]
    raise Failure(f"no health of {pod.name}'s volume in kubelet's summary")
