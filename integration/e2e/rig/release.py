# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""The chart in the cluster: one release of it, installed by the real helm, with the image that was built."""

import os
import pathlib
import subprocess
import sys
import time

from . import helm as helms
from . import node, openbao, plugin
from .wait import check

REPOSITORY = node.HERE.parent.parent
CHART = REPOSITORY / "charts" / "evanesce"
NAME = "evanesce"
VALUES = ("--values", node.HERE / "manifests" / "values.yaml")
_CHECK = "job/evanesce-csi-uninstall-check"


def archive(target):
    """The image's archive: EVANESCE_IMAGE, or a build."""
    if named := os.environ.get("EVANESCE_IMAGE"):
        check(pathlib.Path(named).is_file(), f"EVANESCE_IMAGE={named} is no file")
        return named
    subprocess.run([REPOSITORY / "image" / "build"], check=True, stdout=sys.stderr)
    return target / "image" / "evanesce.tar"


def install(*more):
    """Installs the chart, or upgrades it; waits until the plugin is ready and known to kubelet, and has the cases' classes."""
    credentials = node.kubectl("create", "configmap", "evanesce-credentials", "-n", plugin.NAMESPACE, f"--from-file=openbao-ca.crt={openbao.CA}",
                               "--dry-run=client", "-o", "json")
    node.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": plugin.NAMESPACE}})
    node.kubectl("apply", "-f", "-", stdin=credentials)
    # An image of an earlier run has the same name and another content: so the plugin starts anew at each.
    helm("upgrade", "--install", NAME, CHART, "-n", plugin.NAMESPACE, *VALUES, "--set-string", f"podAnnotations.installed={time.time()}", *more)
    plugin.until_it_serves()
    node.kubectl("apply", "-f", node.HERE / "manifests" / "classes.yaml")


def rollback():
    """Back to the release before."""
    helm("rollback", NAME, "-n", plugin.NAMESPACE)
    plugin.until_it_serves()


def uninstall():
    """Takes it away; `Failure` if it refuses."""
    helm("uninstall", NAME, "-n", plugin.NAMESPACE, "--wait", "--timeout", "120s")


def uninstall_check_says():
    """The log of the check that refused."""
    return node.kubectl("logs", "-n", plugin.NAMESPACE, _CHECK)


def helm(*args):
    """What helm prints."""
    homes = {f"HELM_{kind}_HOME": str(node.HOME / "helm") for kind in ("CACHE", "CONFIG", "DATA")}
    return node.inside(helms.program(), *args, env=homes)
