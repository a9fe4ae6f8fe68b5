# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""What the plugin itself says about a pod, as events that `kubectl describe pod` shows."""

from rig import classes
from rig.pod import Pod, running
from rig.wait import until

from . import case


@case
def a_refused_pod_has_an_event_of_the_plugin_with_the_same_words_as_kubelets(_bao):
    with Pod("told", account="stranger") as pod:
        refusal = pod.refused("PermissionDenied", "stranger")
        words = refusal.split(" desc = ", 1)[1]
        until("the plugin says it too", lambda: f"SecretsRefused: {words}" in pod.events())


@case
def a_rotation_is_told_by_an_event_that_holds_no_value(bao):
    with running("told") as pod:
        bao.put("payments/db", username="payments-app", password="told-password")
        until("the plugin says so", lambda: _told(pod, "SecretsRotated"))
        assert not any("told-password" in event for event in pod.events())


@case
def a_pod_that_cannot_start_and_a_volume_that_is_stale_are_told_while_openbao_is_gone(bao):
    with classes.made(classes.backend("late"), classes.volume("late", backend="late")), running("told") as pod:
        bao.stop()
        try:
            with Pod("told-late", volume="late") as late:
                until("the plugin says that the running pod's files are old", lambda: _told(pod, "SecretsStale"))
                until("and that the new pod has none", lambda: _told(late, "SecretsUnavailable"))
        finally:
            bao.resume()


def _told(pod, reason):
    return [event for event in pod.events() if event.startswith(f"{reason}: ")]
