# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""Classes of one case, beside those that all cases share (`manifests/classes.yaml`)."""

import contextlib

from . import node, openbao

_API = "evanesce.dev/v1alpha1"


def backend(name, role="payments", address=openbao.ADDRESS, trust=("caFile", "openbao-ca.crt"), **allow):
    """A `SecretBackend` of the cases' OpenBao with one allow entry; `trust` is the key and value that say whose certificates count."""
    entry = {"namespaces": ["payments"], "serviceAccounts": ["app"], "secrets": ["kv/payments/*"], **allow}
    vault = {"address": address, "auth": {"kubernetes": {"mount": "kubernetes", "role": role, "audience": "vault"}}, **dict([trust])}
    return {"apiVersion": _API, "kind": "SecretBackend", "metadata": {"name": name}, "spec": {"vault": vault, "allow": [entry]}}


def volume(name, namespace="payments", backend="vault", files=None, every="5s", **more):
    """A `SecretVolume`; `files` names secret and key for each path; without a key it is the whole secret."""
    files = files or {"password": ("kv/payments/db", "password")}
    files = [{"path": path, "from": {"backend": backend, "secret": secret, **({"key": key} if key else {})}}
             for path, (secret, key) in files.items()]
    return {"apiVersion": _API, "kind": "SecretVolume", "metadata": {"name": name, "namespace": namespace},
            "spec": {"refresh": {"every": every, "jitter": "10%"}, "files": files, **more}}


def put(*objects):
    """Creates or changes classes."""
    node.apply(*objects)


def delete(*objects):
    """Deletes classes."""
    node.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=node.text({"apiVersion": "v1", "kind": "List", "items": objects}))


@contextlib.contextmanager
def made(*objects):
    """Classes that are deleted at the end."""
    put(*objects)
    try:
        yield
    finally:
        delete(*objects)
