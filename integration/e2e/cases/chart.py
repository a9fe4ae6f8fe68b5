# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""The chart over time: upgraded, installed twice, uninstalled, beside definitions of another version."""

import contextlib

from rig import classes, node, plugin, release, traces
from rig.pod import Pod, rotate, running, untouched
from rig.wait import check, refused

from . import case

VOLUMES = "secretvolumes.evanesce.dev"
SPEC = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties"


@case
def an_upgrade_of_the_chart_touches_no_running_pod(bao):
    with traces.nothing_leaks(), running("before-upgrade") as pod:
        with untouched(pod):
            before = plugin.pod()["metadata"]["uid"]
            release.install("--set", "log.level=debug")
            check(plugin.pod()["metadata"]["uid"] != before, "another plugin pod took over")
            rotate(bao, pod, to="upgraded")
            with Pod("after-upgrade") as after:
                after.wait_until_it_runs()
                release.rollback()
        rotate(bao, pod, to="rolled-back")


@case
def a_second_release_of_the_chart_fails_clearly_and_leaves_the_first_alone(_bao):
    before = plugin.pod()["metadata"]["uid"]
    said = refused(lambda: release.helm("install", "second", release.CHART, "-n", "evanesce-second", "--create-namespace", *release.VALUES))
    node.kubectl("delete", "namespace", "evanesce-second", "--ignore-not-found", "--timeout=60s")
    check("exists" in said and "evanesce" in said, f"helm says what exists, and whose it is: {said}")
    check(not node.kubectl("get", "daemonset", "-A", "-l", "app.kubernetes.io/instance=second", "-o", "name"), "nothing of it is there")
    check(plugin.pod()["metadata"]["uid"] == before and plugin.ready(), "the first goes on")


@case
def uninstalling_is_refused_while_pods_have_volumes_and_then_hangs_nobody(_bao):
    with traces.nothing_leaks(), running("in-the-way") as pod:
        with untouched(pod):
            said = refused(release.uninstall)
            check("payments/in-the-way" in said + release.uninstall_check_says(), f"the pod is named: {said}")
            check(plugin.ready(), "and nothing was removed")
        pod.delete()
        try:
            release.uninstall()
            check(node.get("secretvolume", "db", "-n", "payments"), "classes outlive the chart")
        finally:
            release.install()
        with Pod("after-reinstall") as after:
            after.wait_until_it_runs()


@case
def where_definitions_are_newer_a_class_with_their_new_key_is_refused_by_its_name(_bao):
    newer = {"op": "add", "path": f"{SPEC}/sparkle", "value": {"type": "boolean"}}
    ours = classes.volume("newer")
    ours["spec"]["sparkle"] = True
    with _definitions(newer), running("before-newer") as pod, untouched(pod):
        with classes.made(ours), Pod("newer", volume="newer") as late:
            late.refused("sparkle")
            del ours["spec"]["sparkle"]
            node.kubectl("patch", "secretvolume", "newer", "-n", "payments", "--type", "json", "--patch",
                         node.text([{"op": "remove", "path": "/spec/sparkle"}]))
            late.wait_until_it_runs()


@case
def where_definitions_are_older_than_the_driver_a_key_they_lack_counts_all_the_same(_bao):
    older = {"op": "remove", "path": f"{SPEC}/keepPrevious"}
    ours = classes.volume("older")
    ours["spec"]["keepPrevious"] = "20s"
    with _definitions(older), running("before-older") as pod, untouched(pod), classes.made(ours):
        check(node.get("secretvolume", "older", "-n", "payments")["spec"]["keepPrevious"] == "20s", "the API server keeps it")
        with running("older", volume="older"):
            pass


@contextlib.contextmanager
def _definitions(change):
    """Meanwhile the definition of SecretVolumes is another version's."""
    ours = node.get("crd", VOLUMES)
    node.kubectl("patch", "crd", VOLUMES, "--type", "json", "--patch", node.text([change]))
    try:
        yield
    finally:
        for server_set in ("resourceVersion", "uid", "creationTimestamp", "generation"):
            ours["metadata"].pop(server_set)
        node.kubectl("replace", "-f", "-", stdin=node.text(ours))
