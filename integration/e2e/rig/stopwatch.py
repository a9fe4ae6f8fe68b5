# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""How long pods take from their creation until they are ready, as a watch of the API server sees it.

Runs inside the node, so that neither kubectl nor a way into its namespaces is in the figures.
"""

import http.client
import json
import pathlib
import ssl
import sys
import time
import urllib.parse

if __package__:
    from . import node

_LABEL = "evanesce.test/timed"


def seconds_until_ready(groups, forgotten=False):
    """For each group of pods, one after the other: the seconds until all of it was ready. Deletes what it made.

    With `forgotten` the next group waits until the node has none of the last: the end of many sandboxes is a second burst
    of work, which else falls on what comes next. Kubelet collects them once a minute.
    """
    objects = json.dumps([[pod.object for pod in group] for group in groups])
    return json.loads(node.inside(sys.executable, __file__, node.HOME, *(["forgotten"] if forgotten else []), stdin=objects))


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


def _time(home, groups, forgotten):
    api, times, before = _Api(home / "pki"), [], _sandboxes(home)
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
        while forgotten and _sandboxes(home) - before:
            time.sleep(0.2)
    json.dump(times, sys.stdout)


def _sandboxes(home):
    """The sandboxes that containerd remembers, dead ones too."""
    return {folder.name for folder in (home / "containerd/io.containerd.grpc.v1.cri/sandboxes").iterdir()}


def _ready(pod):
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod.get("status", {}).get("conditions", []))


if __name__ == "__main__":
    _time(pathlib.Path(sys.argv[1]), json.load(sys.stdin), "forgotten" in sys.argv[2:])
