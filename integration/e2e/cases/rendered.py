# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""The Helm chart, as the API server sees it."""

import json
import subprocess

from rig import helm, node, plugin

from . import case

ROOT = node.HERE.parents[1]
# This cluster has no Prometheus operator, and is not yet at 1.37.
NOT_HERE = "podMonitor.enabled=false,prometheusRule.enabled=false,preventPodSchedulingIfMissing=false"
# Objects of their own: the server would merge those of the release that runs here with them.
BESIDE = "fullnameOverride=judged"


@case
def the_api_server_takes_every_object_of_the_chart(_bao):
    version = json.loads(node.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
    for values in sorted((ROOT / "integration/tests/chart").glob("*.values.yaml")):
        rendered = subprocess.check_output(
            [helm.program(), "template", "evanesce", ROOT / "charts/evanesce", "--namespace", plugin.NAMESPACE,
             "--kube-version", version, "--values", values, "--set", f"{NOT_HERE},{BESIDE}"], text=True)
        node.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts",
                     "--field-manager=chart-case", "-f", "-", stdin=rendered)
