# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""The node is shut down gracefully: the plugin outlives the pods, so that their volumes are taken down and not left."""

from rig import logind, node, plugin, pod, traces
from rig.pod import Pod, running
from rig.wait import check, until

from . import case

# It takes its time, as applications do: a plugin that were told to end at the same moment would be gone before it.
READS_TO_THE_END = 'trap "sleep 5; test -s /secrets/password && echo read >/dev/termination-log; exit 0" TERM; while :; do sleep 1; done'


@case
def a_graceful_shutdown_ends_pods_before_the_plugin_and_unmounts_their_volumes(bao):
    last_reader = pod.container(command=["sh", "-c", READS_TO_THE_END])
    with traces.nothing_leaks():
        with running("shut-down", terminationGracePeriodSeconds=10, containers=[last_reader]) as ended:
            uid, ours = ended.uid(), plugin.pod()["metadata"]["name"]
            with logind.shutdown() as shutdown:
                bao.put("payments/db", username="payments-app", password="last-password")
                until("the kubelet that was started anew serves the pod", lambda: ended.read("password") == "last-password")
                shutdown.begin()
                check(not plugin.processes(), "the plugin has ended too")
                left = [line for line in node.inside("cat", "/proc/1/mountinfo").splitlines() if uid in line]
                check(not any("~csi" in line for line in left), f"kubelet unmounted the volume while there was a plugin: {left}")
            status = until("the pod's end is known", lambda: ended.status() if ended.phase() != "Running" else None)
            said = status["containerStatuses"][0]["state"]["terminated"].get("message", "")
            check(said.strip() == "read", f"the application read its file when it was told to end: {status}")
        until("there is another plugin pod", lambda: plugin.pod()["metadata"]["name"] != ours)
        plugin.until_it_serves()
        with Pod("after-shutdown") as after:
            after.wait_until_it_runs()
