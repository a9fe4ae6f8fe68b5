# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""Test pods: a shell with a secret volume at /secrets."""

import contextlib
import json
import pathlib
import shutil
import sys
import tempfile

from . import node, plugin
from .wait import Failure, check, until

NAMESPACE = "payments"
ACCOUNTS = {NAMESPACE: ["app", "guest", "stranger"], "shop": ["app"]}
NAMESPACES = list(ACCOUNTS)
IMAGE = "localhost/busybox:e2e"
# kubelet tries a failed mount again after half a second, then twice as long, up to two minutes.
START_SECONDS = 90
REFUSAL_SECONDS = 45


def prepare():
    """The image, the namespaces and the service accounts that the cases use."""
    busybox = shutil.which("busybox") or sys.exit("no busybox: apt-get install -y busybox-static")
    with tempfile.TemporaryDirectory() as root:
        bin_directory = pathlib.Path(root, "bin")
        bin_directory.mkdir()
        shutil.copy(busybox, bin_directory / "busybox")
        for name in ("sh", "cat", "ls", "sleep", "stat", "id", "test", "touch", "readlink"):
            (bin_directory / name).symlink_to("busybox")
        node.image(IMAGE, root, ["/bin/sleep", "1000000"])
    for namespace, names in ACCOUNTS.items():
        node.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        for name in names:
            node.apply({"apiVersion": "v1", "kind": "ServiceAccount", "automountServiceAccountToken": False,
                        "metadata": {"name": name, "namespace": namespace}})


class Pod:
    """One pod of a case; leaving the `with` block deletes it."""

    def __init__(self, name, account="app", volume="db", namespace=NAMESPACE, **spec):
        self.name, self.namespace = name, namespace
        self._object = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "serviceAccountName": account, "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "app", "image": IMAGE, "imagePullPolicy": "Never",
                                "volumeMounts": [{"name": "secrets", "mountPath": "/secrets", "readOnly": True}]}],
                "volumes": [{"name": "secrets", "csi": {"driver": plugin.DRIVER, "readOnly": True,
                                                        "volumeAttributes": {"secretVolume": volume}}}],
                **spec,
            },
        }

    def __enter__(self):
        node.apply(self._object)
        return self

    def __exit__(self, kind, *_):
        if kind is None or not issubclass(kind, Exception):
            self.delete()

    def delete(self):
        """Deletes it and waits until the API server has forgotten it."""
        node.kubectl("delete", "pod", self.name, "-n", self.namespace, "--ignore-not-found", "--timeout", "60s")

    def wait_until_it_runs(self):
        """`Failure` with its events if it never does."""
        try:
            node.kubectl("wait", "--for=condition=Ready", f"pod/{self.name}", "-n", self.namespace, f"--timeout={START_SECONDS}s")
        except Failure as failure:
            raise Failure(f"pod {self.name} does not run: {failure}; its events: {self.events()}") from None

    def uid(self):
        """What the API server calls it."""
        return node.get("pod", self.name, "-n", self.namespace)["metadata"]["uid"]

    def read(self, file):
        """What the application reads from a file of the volume."""
        return self.run("cat", f"/secrets/{file}")

    def run(self, *command):
        """What a command prints inside the container; `Failure` if it fails."""
        return node.kubectl("exec", "-n", self.namespace, self.name, "--", *command)

    def events(self):
        """The messages of its events."""
        selector = f"involvedObject.kind=Pod,involvedObject.name={self.name}"
        events = node.get("events", "-n", self.namespace, "--field-selector", selector)["items"]
        return [f"{event['reason']}: {event['message']}" for event in events]

    def refused(self, *words):
        """Waits for a FailedMount event that says all of `words`, and sees that the pod does not run; the event's text."""
        def says():
            if self.phase() != "Pending":
                return None, f"{self.name} is {self.phase()}, although its volume was to be refused"
            seen = self.events()
            for event in seen:
                if event.startswith("FailedMount") and all(word in event for word in words):
                    return event, None
            raise Failure(json.dumps(seen, indent=1))

        event, instead = until(f"an event of {self.name} that says {', '.join(words)}", says, REFUSAL_SECONDS)
        check(instead is None, instead)
        return event

    def phase(self):
        """As the API server has it."""
        return node.get("pod", self.name, "-n", self.namespace)["status"]["phase"]


@contextlib.contextmanager
def running(name, **how):
    """A `Pod` that runs."""
    with Pod(name, **how) as pod:
        pod.wait_until_it_runs()
        yield pod
