# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""How long pods take from their creation until they are ready, as a watch of the API server sees it.

Runs inside the node, so that neither kubectl nor a way into its namespaces is in the figures.
"""

import http.client
import json
import ssl
import sys
import time
import urllib.parse

if __package__:
    from . import node

_LABEL = "evanesce.test/timed"


def seconds_until_ready(groups):
    """For each group of pods, one after the other: the seconds until all of it was ready. Deletes what it made."""
    pki = node.HOME / "pki"
    return json.loads(node.inside(sys.executable, __file__, pki, stdin=json.dumps([[pod.object for pod in group] for group in groups])))


class _Api:
    def __init__(self, pki):
        self._trust = ssl.create_default_context(cafile=f"{pki}/ca.crt")
        self._trust.load_cert_chain(f"{pki}/admin.crt", f"{pki}/admin.key")
        self._asks = self._connection()

    def _connection(self):
        return http.client.HTTPSConnection("127.0.0.1", 6443, context=self._trust)

    def ask(self, verb, path, body=None):
        self._asks.request(verb, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        answer = self._asks.getresponse()
        said = json.loads(answer.read())
        if answer.status >= 300:
            sys.exit(f"{verb} {path}: {said}")
        return said

    def watch(self, path):
        connection = self._connection()
        connection.request("GET", f"{path}&watch=true")
        return map(json.loads, connection.getresponse())


def _time(pki, groups):
    api, times = _Api(pki), []
    namespace = groups[0][0]["metadata"]["namespace"]
    path = f"/api/v1/namespaces/{namespace}/pods"
    watch = api.watch(f"{path}?labelSelector={urllib.parse.quote(_LABEL)}")
    for group in groups:
        start = time.monotonic()
        for pod in group:
            pod["metadata"]["labels"] = {_LABEL: ""}
            api.ask("POST", path, pod)
        waiting = {pod["metadata"]["name"] for pod in group}
        while waiting:
            event = next(watch)
            if _ready(event["object"]):
                waiting.discard(event["object"]["metadata"]["name"])
        times.append(time.monotonic() - start)
        left = {pod["metadata"]["name"] for pod in group}
        for name in left:
            api.ask("DELETE", f"{path}/{name}")
        while left:
            event = next(watch)
            if event["type"] == "DELETED":
                left.discard(event["object"]["metadata"]["name"])
    json.dump(times, sys.stdout)


def _ready(pod):
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod.get("status", {}).get("conditions", []))


if __name__ == "__main__":
    _time(sys.argv[1], json.load(sys.stdin))
