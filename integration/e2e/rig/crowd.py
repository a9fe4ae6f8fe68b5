# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""Many pods of one kind, made and deleted together."""

import contextlib

from . import node
from .pod import NAMESPACE, Pod


@contextlib.contextmanager
def crowd(name, size, seconds=120, **how):
    """That many pods that run; deleted together at the end."""
    pods = [Pod(f"{name}-{number}", labels={"crowd": name}, **how) for number in range(size)]
    node.apply(*(pod.object for pod in pods))
    try:
        ready(name, seconds)
        yield pods
    finally:
        delete(name, seconds)


def ready(name, seconds):
    """Waits until each pod of the crowd is."""
    node.kubectl("wait", "--for=condition=Ready", "pods", "-l", f"crowd={name}", "-n", NAMESPACE, f"--timeout={seconds}s")


def delete(name, seconds):
    """Deletes the crowd and waits until the API server has forgotten it."""
    node.kubectl("delete", "pods", "-l", f"crowd={name}", "-n", NAMESPACE, f"--timeout={seconds}s")
