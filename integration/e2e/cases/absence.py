# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""OpenBao, its certificate or the API server is gone for a while: running pods notice nothing, new ones wait."""

import time

from rig import classes, counts, node, plugin, traces
from rig.pod import Pod, rotate, running, untouched
from rig.wait import check, until

from . import case


@case
def an_openbao_that_is_gone_for_long_costs_running_pods_nothing_and_new_ones_only_time(bao):
    with traces.nothing_leaks(), running("while-gone") as pod:
        with untouched(pod), _never_asked_before():
            bao.stop()
            with Pod("new-while-gone", volume="late") as late:
                try:
                    uid = late.uid()
                    _reads_all_the_while(pod.read, counts.OUTAGE_SECONDS)
                    late.refused("backend late cannot be reached", "Unavailable")
                finally:
                    bao.resume()
                late.wait_until_it_runs(counts.RETRY_SECONDS)
                check(late.uid() == uid, "the pod that waited was not created again")
        rotate(bao, pod, to=pod.name)


@case
def an_api_server_that_is_gone_for_long_costs_running_pods_nothing_and_new_ones_only_time(bao):
    with traces.nothing_leaks(), running("while-gone") as pod:
        with untouched(pod):
            read = pod.reader_without_api_server()
            node.node("stop", "apiserver")
            try:
                _reads_all_the_while(read, counts.OUTAGE_SECONDS)
            finally:
                node.node("start", "apiserver")
                until("the API server is back", lambda: node.kubectl("get", "--raw", "/readyz"))
            with until("the API server takes new pods", lambda: _created("after-api-server")) as late:
                late.wait_until_it_runs()
        rotate(bao, pod, to=pod.name)


@case
def an_expired_certificate_of_openbao_is_named_in_the_log_and_a_new_one_mends_it(bao):
    with running("before-expiry") as pod:
        with untouched(pod), _never_asked_before():
            bao.certify(ended=True)
            try:
                with Pod("after-expiry", volume="late") as late:
                    late.refused("backend late cannot be reached", "Unavailable")
                    # Servers and their certificates are the platform's: the log names them, the pod's event does not.
                    until("the log says why", lambda: "certificate has expired: renew it" in plugin.logs())
                    bao.certify()
                    late.wait_until_it_runs()
            finally:
                bao.certify()
        rotate(bao, pod, to=pod.name)


def _never_asked_before():
    """A class whose answers no earlier pod has left behind, as `limits.reuse` lets them."""
    return classes.made(classes.backend("late"), classes.volume("late", backend="late"))


def _created(name):
    pod = Pod(name)
    pod.create()
    return pod


def _reads_all_the_while(read, seconds):
    """The files are there at every look of an outage of that length."""
    seen, end = read("password"), time.monotonic() + seconds
    while time.monotonic() < end:
        check(read("password") == seen, "the same file is there all the while")
