# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""Which processes in a pod can read: modes and owners as the pod's security context asks."""

from rig import plugin
from rig.pod import Pod, running
from rig.wait import Failure, check

from . import case

WRITABLE = [{"name": "secrets", "csi": {"driver": plugin.DRIVER, "volumeAttributes": {"secretVolume": "db"}}}]
NOT_ROOT = {"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True}


@case
def a_pod_in_a_user_namespace_of_its_own_reads_its_files(_bao):
    with running("userns", hostUsers=False) as pod:
        mapped = pod.run("cat", "/proc/self/uid_map").split()
        check(mapped[0] == "0" and mapped[1] != "0", f"its root is not the node's: {mapped}")
        check(pod.read("password").endswith("-password"), "and reads the file")
        check(pod.run("stat", "-c", "%u", "/secrets/..data/password").strip() == "0", "which belongs to its own root")
        options = next(line.split()[3] for line in pod.run("cat", "/proc/mounts").splitlines() if " /secrets " in line).split(",")
        for option in ("ro", "nosuid", "nodev", "noexec", "noswap"):
            check(option in options, f"and the container runtime cannot take {option} away: {options}")


@case
def a_process_that_is_not_root_reads_with_an_fsgroup(_bao):
    with running("fsgroup", securityContext={**NOT_ROOT, "fsGroup": 2000}) as pod:
        check(pod.read("password").endswith("-password"), "it reads the file")
        owner = pod.run("stat", "-c", "%u:%g %a", "/secrets/..data/password").strip()
        check(owner == "0:2000 440", f"which belongs to root and the fsGroup, for reading alone: {owner}")


@case
def a_process_that_is_not_root_cannot_read_without_an_fsgroup(_bao):
    with running("nogroup", securityContext=NOT_ROOT) as pod:
        try:
            pod.read("password")
        except Failure as failure:
            check("Permission denied" in str(failure), f"refused by the file's mode: {failure}")
        else:
            raise Failure("it read the file")
        owner = pod.run("stat", "-c", "%u:%g %a", "/secrets/..data/password").strip()
        check(owner == "0:0 400", f"the file is root's alone: {owner}")


@case
def a_volume_that_is_not_read_only_is_refused_and_the_event_says_what_to_write(_bao):
    # Without it the container's own mount of our read-only one is writable.
    with Pod("writable", volumes=WRITABLE) as pod:
        pod.refused("InvalidArgument", "readOnly: true", "spec.volumes[].csi")
