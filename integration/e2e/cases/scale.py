# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""Many pods at once, and what a node full of volumes costs the API server."""

import time

from rig import audit, classes, counts, node, plugin, traces
from rig.crowd import crowd
from rig.wait import check, until

from . import case


@case
def sixty_pods_at_once_all_start_and_nothing_of_them_is_left(_bao):
    with traces.nothing_leaks(), crowd("burst", counts.BURST_PODS) as pods:
        check(_files("secrets", "password") == len(pods), "each has its file")


@case
def a_hundred_pods_with_ten_secrets_each_start_twice_and_nothing_of_them_is_left(bao):
    secrets = [f"ten-{number}" for number in range(10)]
    for secret in secrets:
        bao.put(f"payments/{secret}", password=f"{secret}-password")
    ten = classes.volume("ten", files={secret: (f"kv/payments/{secret}", "password") for secret in secrets}, every="30s")
    with classes.made(ten):
        for _ in range(2):
            with traces.nothing_leaks(), crowd("hundred", counts.MANY_PODS, seconds=300, volume="ten") as pods:
                check(_files("secrets", "ten-*") == 10 * len(pods), "each has its ten files")


@case
def in_a_steady_state_the_plugin_asks_the_api_server_nothing(_bao):
    names = [f"volume-{number}" for number in range(10)]
    with crowd("steady", counts.STEADY_VOLUMES // len(names), volumes={name: "db" for name in names}):
        until("every volume was refreshed", _all_were_refreshed(1))
        before, again = len(audit.requests(node.HOME)), _all_were_refreshed(counts.STEADY_ROUNDS)
        end = time.monotonic() + counts.STEADY_SECONDS
        until("every volume was refreshed again and again", lambda: again() and time.monotonic() > end, 10 * counts.STEADY_SECONDS)
        check(any(verb == "watch" for verb, _ in audit.requests(node.HOME)), "the log has the plugin's watches")
        asked = [request for request in audit.requests(node.HOME)[before:] if request[0] != "watch"]
        check(not asked, f"{len(asked)} requests in {counts.STEADY_SECONDS} s: {asked[:10]}")


def _files(volume, pattern):
    """How many such files with a password the pods of the node have."""
    script = 'cat /var/lib/kubelet/pods/*/volumes/kubernetes.io~csi/"$0"/mount/$1 | grep -o -e -password | wc -l'
    return int(node.inside("bash", "-c", script, volume, pattern))


def _all_were_refreshed(rounds):
    """A condition: since now there were so many refreshes of each volume."""
    wanted = plugin.metric("evanesce_refreshes_total") + rounds * counts.STEADY_VOLUMES
    return lambda: plugin.metric("evanesce_refreshes_total") >= wanted
