# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""A pod that is refused starts by itself, the same pod, once the cause is mended."""

import contextlib

from rig import classes
from rig.pod import Pod
from rig.wait import check

from . import case


@case
def a_pod_of_a_class_outside_the_allow_list_starts_once_it_is_inside(_bao):
    outside, inside = (classes.backend("mended", secrets=[pattern]) for pattern in ("kv/payments/other", "kv/payments/*"))
    with classes.made(outside, _volume()), _refused("PermissionDenied", "payments") as pod:
        classes.put(inside)
        pod.wait_until_it_runs()


@case
def a_pod_of_a_deleted_class_starts_once_the_class_is_there(_bao):
    with classes.made(_volume(backend="vault")):
        classes.delete(_volume())
        with _refused("NotFound", "SecretVolume", "mended") as pod:
            classes.put(_volume(backend="vault"))
            pod.wait_until_it_runs()


@case
def a_pod_of_a_deleted_backend_starts_once_the_backend_is_there(_bao):
    with classes.made(_volume(), classes.backend("mended")):
        classes.delete(classes.backend("mended"))
        with _refused("NotFound", "SecretBackend", "mended") as pod:
            classes.put(classes.backend("mended"))
            pod.wait_until_it_runs()


@case
def a_pod_of_a_class_with_a_typo_in_a_key_starts_once_it_is_spelled_right(_bao):
    with classes.made(_volume(backend="vault", files={"password": ("kv/payments/db", "pasword")})), _refused("NotFound", "pasword") as pod:
        classes.put(_volume(backend="vault"))
        pod.wait_until_it_runs()


@case
def a_pod_whose_service_account_is_refused_starts_once_it_is_allowed(bao):
    _every_account_logs_in(bao)
    with classes.made(classes.backend("mended", role="everyone"), _volume()), _refused("PermissionDenied", "stranger", account="stranger") as pod:
        classes.put(classes.backend("mended", role="everyone", serviceAccounts=["app", "stranger"]))
        pod.wait_until_it_runs()


@case
def a_pod_whose_namespace_is_refused_starts_once_it_is_allowed(bao):
    _every_account_logs_in(bao)
    volume = _volume(namespace="shop")
    with classes.made(classes.backend("mended", role="everyone"), volume), _refused("PermissionDenied", "shop", namespace="shop") as pod:
        classes.put(classes.backend("mended", role="everyone", namespaces=["payments", "shop"]))
        pod.wait_until_it_runs()


@case
def a_pod_whose_login_openbao_refuses_starts_once_its_role_knows_the_account(bao):
    bao.role("mended", accounts=["app"])
    with classes.made(classes.backend("mended", role="mended", serviceAccounts=["guest"]), _volume()):
        with _refused("Unauthenticated", "does not accept this pod's login", account="guest") as pod:
            bao.role("mended", accounts=["app", "guest"])
            pod.wait_until_it_runs()


@contextlib.contextmanager
def _refused(*words, **how):
    """A pod whose event says all of `words`; whoever mends the cause finds it running, and it is the same pod."""
    with Pod("mended", volume="mended", **how) as pod:
        event = pod.refused(*words)
        check("-password" not in event, f"an event holds no value: {event}")
        uid = pod.uid()
        yield pod
        check(pod.uid() == uid, "it was not created again")
        check(pod.read("password").endswith("-password"), "it reads its file")


def _volume(backend="mended", **how):
    return classes.volume("mended", backend=backend, **how)


def _every_account_logs_in(bao):
    bao.role("everyone", accounts=["*"], namespaces=["*"])
