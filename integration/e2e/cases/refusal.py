# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""Who may not have a secret does not get it, and the pod's event says why."""

from rig import late_clock
from rig.pod import Pod
from rig.wait import check

from . import case


@case
def another_service_account_is_refused_and_the_event_says_why(_bao):
    with Pod("stranger", account="stranger") as pod:
        _reveals_nothing(pod.refused("PermissionDenied", "stranger", "payments"))


@case
def another_namespace_is_refused_and_the_event_says_why(_bao):
    with Pod("shopper", namespace="shop") as pod:
        _reveals_nothing(pod.refused("PermissionDenied", "shop"))


@case
def a_service_account_that_openbao_does_not_know_is_refused_and_the_event_says_why(_bao):
    with Pod("guest", account="guest") as pod:
        _reveals_nothing(pod.refused("Unauthenticated", "does not accept this pod's login", "service account"))


@case
def a_token_for_another_audience_is_refused_and_the_event_says_why(_bao):
    with Pod("elsewhere", volume="db-with-a-token-for-elsewhere") as pod:
        _reveals_nothing(pod.refused("Unauthenticated", "does not accept this pod's login", "audience"))


@case
def an_audience_that_the_csidriver_does_not_ask_for_is_named_in_the_event(_bao):
    with Pod("tokenless", volume="db-without-a-token") as pod:
        _reveals_nothing(pod.refused("nobody-asks-for-this", "tokenRequests"))


@case
def an_expired_token_is_refused_and_the_event_says_why(_bao):
    with late_clock.kubelet_gets_expired_tokens("payments", "app"):
        with Pod("late") as pod:
            _reveals_nothing(pod.refused("expired"))


def _reveals_nothing(event):
    for hidden in ("-password", "payments-app", "eyJ"):
        check(hidden not in event, f"an event holds no value and no token: {event}")
