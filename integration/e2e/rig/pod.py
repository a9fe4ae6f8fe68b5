# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""Test pods: a shell with a secret volume at /secrets."""

import contextlib
import json
import pathlib
import shutil
import sys
import tempfile
import uuid

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


def container(name="app", volumes=("secrets",), **more):
    """A container that sleeps, with each volume mounted at a directory of its name."""
    mounts = [{"name": volume, "mountPath": f"/{volume}", "readOnly": True} for volume in volumes]
    return {"name": name, "image": IMAGE, "imagePullPolicy": "Never", "volumeMounts": mounts, **more}


def spec(account="app", volumes=None, **more):
    """A pod's spec; `volumes` is the class of each volume by its name."""
    volumes = volumes or {"secrets": "db"}
    return {
        "serviceAccountName": account, "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0,
        "containers": [container(volumes=volumes)],
        "volumes": [{"name": name, "csi": {"driver": plugin.DRIVER, "readOnly": True, "volumeAttributes": {"secretVolume": of}}}
                    for name, of in volumes.items()],
        **more,
    }


class Pod:
    """One pod of a case; leaving the `with` block deletes it."""

    def __init__(self, name, account="app", volume="db", namespace=NAMESPACE, labels=None, **more):
        self.name, self.namespace = name, namespace
        more.setdefault("volumes", {"secrets": volume})
        whole = spec(account, **more) if isinstance(more["volumes"], dict) else {**spec(account), **more}
        metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
        self.object = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": whole}

    def __enter__(self):
        self.create()
        return self

    def __exit__(self, kind, *_):
        if kind is None or not issubclass(kind, Exception):
            self.delete()

    def create(self):
        """Tells the API server of it."""
        node.apply(self.object)

    def delete(self):
        """Deletes it and waits until the API server has forgotten it."""
        node.kubectl("delete", "pod", self.name, "-n", self.namespace, "--ignore-not-found", "--timeout", "60s")

    def forget(self):
        """Takes it out of the API server at once, whatever kubelet has done."""
        node.kubectl("delete", "pod", self.name, "-n", self.namespace, "--force", "--grace-period=0")

    def wait_until_it_runs(self, seconds=START_SECONDS):
        """`Failure` with its events if it never does."""
        try:
            node.kubectl("wait", "--for=condition=Ready", f"pod/{self.name}", "-n", self.namespace, f"--timeout={seconds}s")
        except Failure as failure:
            raise Failure(f"pod {self.name} does not run: {failure}; its events: {self.events()}") from None

    def status(self):
        """As the API server has it."""
        return node.get("pod", self.name, "-n", self.namespace)["status"]

    def life(self):
        """Each container's id and how often it was started again: both stay while nobody touches the pod."""
        return {one["name"]: (one["containerID"].removeprefix("containerd://"), one["restartCount"])
                for one in self.status()["containerStatuses"]}

    def uid(self):
        """What the API server calls it."""
        return node.get("pod", self.name, "-n", self.namespace)["metadata"]["uid"]

    def read(self, file):
        """What the application reads from a file of the volume."""
        return self.run("cat", f"/secrets/{file}")

    def run(self, *command, container="app"):
        """What a command prints inside a container; `Failure` if it fails."""
        return node.kubectl("exec", "-n", self.namespace, self.name, "-c", container, "--", *command)

    def process(self):
        """The id of its container's process, as the node has it."""
        ((identity, _),) = self.life().values()
        tasks = (line.split() for line in node.inside("ctr", "tasks", "ls").splitlines())
        return next(pid for task, pid, *_ in tasks if task == identity)

    def reader_without_api_server(self):
        """How to read what the application reads, whoever else is gone."""
        ((identity, _),) = self.life().values()
        return lambda file: node.inside("ctr", "tasks", "exec", "--exec-id", uuid.uuid4().hex, identity, "cat", f"/secrets/{file}")

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
        """Of its life, as the API server has it."""
        return self.status()["phase"]


@contextlib.contextmanager
def untouched(*pods):
    """What happens meanwhile neither takes files from running pods nor starts a container again."""
    lives = [pod.life() for pod in pods]
    yield
    for pod, life in zip(pods, lives):
        check(pod.read("password").endswith("-password"), f"{pod.name} has its files")
        check(pod.life() == life, f"no container of {pod.name} was started again: {life}, now {pod.life()}")


def rotate(bao, *pods, to):
    """Changes the secret of the class `db` and waits until each of these running pods reads it."""
    password = f"{to}-password"
    bao.put("payments/db", username="payments-app", password=password)
    for pod in pods:
        until(f"{pod.name} reads the new password", lambda pod=pod: pod.read("password") == password)


@contextlib.contextmanager
def running(name, **how):
    """A `Pod` that runs."""
    with Pod(name, **how) as pod:
        pod.wait_until_it_runs()
        yield pod
