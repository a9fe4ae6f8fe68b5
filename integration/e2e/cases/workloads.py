# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""Every kind of workload gets its files, and the new ones when they change."""

import contextlib

from rig import classes, node, pod
from rig.crowd import crowd
from rig.pod import NAMESPACE, Pod, rotate, running, untouched
from rig.wait import check, until

from . import case

READS = ["sh", "-c", "cat /secrets/username && test -s /secrets/password"]

@case
def two_volumes_of_one_pod_hold_what_each_class_says_and_both_rotate(bao):
    bao.put("payments/mail", password="mail-first")
    with classes.made(classes.volume("mail", files={"password": ("kv/payments/mail", "password")})), running("two", volumes={"secrets": "db", "mail": "mail"}) as both:
        check(both.read("password").endswith("-password") and both.run("cat", "/mail/password") == "mail-first", "each its own")
        bao.put("payments/mail", password="mail-second")
        until("the second volume rotates", lambda: both.run("cat", "/mail/password") == "mail-second")
        _rotates(bao, both)


@case
def one_class_in_many_pods_rotates_in_each_of_them(bao):
    with crowd("many", 8) as pods:
        _rotates(bao, *pods)


@case
def the_pods_of_a_statefulset_rotate_and_a_deleted_one_comes_back_with_its_files(bao):
    with _made("StatefulSet", "apps/v1", serviceName="ledger", replicas=2, podManagementPolicy="Parallel",
               selector={"matchLabels": {"app": "ledger"}}, template={"metadata": {"labels": {"app": "ledger"}}, "spec": pod.spec()}):
        pods = [Pod("ledger-0"), Pod("ledger-1")]
        for one in pods:
            until(f"the controller made {one.name}", one.uid)
            one.wait_until_it_runs()
        _rotates(bao, *pods)
        uid = pods[0].uid()
        pods[0].delete()
        until("another pod has its name", lambda: pods[0].uid() != uid)
        pods[0].wait_until_it_runs()
        check(pods[0].read("password") == "rotated-password", "with its files")


@case
def a_job_reads_its_file_and_completes(_bao):
    reads = pod.container(command=READS)
    with _made("Job", "batch/v1", backoffLimit=0, template={"spec": pod.spec(containers=[reads], restartPolicy="Never")}):
        node.kubectl("wait", "--for=condition=Complete", "job/ledger", "-n", NAMESPACE, "--timeout=60s")


@case
def an_init_container_reads_before_the_application_starts(bao):
    first = pod.container("first", command=READS)
    with running("init", initContainers=[first]) as after:
        _rotates(bao, after)


@case
def a_native_sidecar_and_the_application_see_the_same_rotation(bao):
    with running("sidecar", initContainers=[pod.container("side", restartPolicy="Always")]) as beside:
        _rotates(bao, beside)
        check(beside.run("cat", "/secrets/password", container="side") == "rotated-password", "the sidecar sees it too")


@case
def a_pod_whose_network_is_unplugged_still_rotates(bao):
    with running("unplugged") as alone:
        network = ("nsenter", "--target", alone.process(), "--net", "ip")
        node.inside(*network, "link", "set", "eth0", "down")
        check(not node.inside(*network, "route"), "no way leads out of it")
        _rotates(bao, alone)


def _rotates(bao, *pods):
    """A changed secret shows in each of the pods, and no container was started again."""
    with untouched(*pods):
        rotate(bao, *pods, to="rotated")


@contextlib.contextmanager
def _made(kind, api, **spec):
    """An object whose controller makes the pods; they go with it."""
    node.apply({"apiVersion": api, "kind": kind, "metadata": {"name": "ledger", "namespace": NAMESPACE}, "spec": spec})
    try:
        yield
    finally:
        node.kubectl("delete", kind, "ledger", "-n", NAMESPACE, "--cascade=foreground", "--timeout=60s")
