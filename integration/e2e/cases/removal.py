# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""A pod that is gone has left nothing."""

from collections import Counter

from rig import node, plugin, traces
from rig.pod import running
from rig.wait import check, until

from . import case


@case
def a_deleted_pod_leaves_no_mount_no_directory_no_record_and_no_open_file(_bao):
    with running("before"):
        pass  # what a first pod leaves for good in the plugin (a connection, a file opened once) is no trace of the next one
    before = until("the first pod is gone", _settled)
    with running("leaver") as pod:
        uid = pod.uid()
        kinds = {trace.split(" ", 1)[0] for trace in _new_since(before)}
        check({"mount", "directory", "record"} <= kinds, f"a running pod has a mount, a directory and a record: {kinds}")
    until("nothing of the pod is left", lambda: not traces.of_pod(uid))
    until("nothing is left", lambda: _only(before))


@case
def a_pod_deleted_by_force_is_cleaned_up(_bao):
    with traces.nothing_leaks(), running("forced") as pod:
        pod.forget()


@case
def a_pod_deleted_while_the_plugin_is_away_is_cleaned_up_when_it_is_back(_bao):
    with traces.nothing_leaks(), running("waiting") as waiting, running("forgotten") as forgotten:
        uids = waiting.uid(), forgotten.uid()
        with plugin.absent():
            node.kubectl("delete", "pod", waiting.name, "-n", waiting.namespace, "--wait=false")
            forgotten.forget()
            for uid in uids:
                until("kubelet has ended its containers", lambda uid=uid: uid not in node.inside("ps", "-eo", "args="))
        for uid in uids:
            until("nothing of the pod is left", lambda uid=uid: not traces.of_pod(uid))


def _settled():
    now = traces.of_volumes()
    return now if not any("kubernetes.io~csi" in trace for trace in now) else None


def _new_since(before):
    return Counter(traces.of_volumes()) - Counter(before)


def _only(before):
    new = _new_since(before)
    check(not new, "\n".join(new))
    return True
