# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""A pod that is gone has left nothing."""

from collections import Counter

from rig import traces
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


def _settled():
    now = traces.of_volumes()
    return now if not any("kubernetes.io~csi" in trace for trace in now) else None


def _new_since(before):
    return Counter(traces.of_volumes()) - Counter(before)


def _only(before):
    new = _new_since(before)
    check(not new, "\n".join(new))
    return True
