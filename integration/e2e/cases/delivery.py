# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""A pod gets its secrets, and the new ones when they change."""

import json

from rig import node, plugin, traces
from rig.pod import running
from rig.wait import Failure, check, until

from . import case


@case
def kubelet_registers_the_plugin_over_a_socket_with_an_at_sign_in_its_name(_bao):
    sockets = node.inside("find", "/var/lib/kubelet/plugins_registry", "-type", "s", "-printf", "%f %m %u\n").splitlines()
    check(len(sockets) == 1, f"one registration socket: {sockets}")
    name, mode, owner = sockets[0].split()
    check("@" in name and mode == "600" and owner == "root", f"a registration socket with @, mode 600, of root: {sockets}")
    check(plugin.registered(), "the CSINode object names the driver")


@case
def a_pod_with_its_own_service_account_reads_its_files(_bao):
    with running("reader") as pod:
        check(pod.read("username") == "payments-app", "the user name that OpenBao holds")
        check(pod.read("password") == "first-password", "the password that OpenBao holds")
        whole = json.loads(pod.read("all.json"))
        check(whole == {"username": "payments-app", "password": "first-password"}, f"the whole secret as JSON: {whole}")
        # At the target; what the pod sees of it is the container runtime's: runc mounts it again, with flags of its own.
        mounts = [trace for trace in traces.of_pod(pod.uid()) if trace.startswith("mount of the node") and "~csi" in trace]
        check(len(mounts) == 1, f"one mount: {mounts}")
        fields = mounts[0].split()
        options = set(fields[7].split(",") + fields[-1].split(","))
        check(fields[-3] == "tmpfs", f"on tmpfs: {mounts}")
        for option in ("ro", "nosuid", "nodev", "noexec", "noswap"):
            check(option in options, f"mounted {option}: {mounts}")
        try:
            pod.run("touch", "/secrets/new")
        except Failure as failure:
            check("Read-only file system" in str(failure), f"the pod cannot write: {failure}")
        else:
            raise Failure("the pod wrote into its volume")


@case
def a_changed_secret_reaches_the_running_pod(bao):
    with running("watcher") as pod:
        generation = pod.run("readlink", "/secrets/..data")
        bao.put("payments/db", username="payments-app", password="second-password")
        until("the pod reads the new password", lambda: pod.read("password") == "second-password", 60)
        check(json.loads(pod.read("all.json"))["password"] == "second-password", "both files show the change")
        check(pod.run("readlink", "/secrets/..data") != generation, "as a new generation")
        restarts = node.get("pod", pod.name, "-n", pod.namespace)["status"]["containerStatuses"][0]["restartCount"]
        check(restarts == 0, "the pod was never restarted")


@case
def an_operator_lists_the_volumes_of_a_node_from_the_plugins_image(_bao):
    with running("listed") as pod:
        said = node.kubectl("exec", "-n", plugin.NAMESPACE, "daemonset/evanesce-csi", "--", "/evanesce", "volumes", "--output", "json")
        volumes = [volume for volume in json.loads(said)["volumes"] if volume["pod_uid"] == pod.uid()]
        check(len(volumes) == 1, f"the pod's volume: {said}")
        volume = volumes[0]
        check((volume["state"], volume["namespace"], volume["pod"], volume["class"], volume["generation"]) ==
              ("live", "payments", "listed", "db", 1), f"whose it is and what it shows: {volume}")
        check(volume["next_refresh_seconds"] <= 6, f"due within its period: {volume}")
        check("first-password" not in said, "no value")
