# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""The API server's audit log: what the plugin's service account asked of it.

Written from the node's first moment to `log/audit.log`; of others' requests nothing is kept.
"""

import json
import os

ACCOUNT = "system:serviceaccount:evanesce-system:evanesce-csi"
_POLICY = f"""\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [ResponseStarted, ResponseComplete]
rules:
  - {{level: Metadata, users: ["{ACCOUNT}"]}}
  - {{level: None}}
"""


def flags(home):
    """The API server's flags: those of the environment, and ours."""
    policy = home / "audit-policy.yaml"
    home.mkdir(parents=True, exist_ok=True)
    policy.write_text(_POLICY)
    ours = f"--audit-policy-file {policy} --audit-log-path {_log(home)}"
    return f"{os.environ.get('NODE_APISERVER_FLAGS', '')} {ours}".strip()


def requests(home):
    """Each request so far, as verb and path."""
    log = _log(home)
    events = map(json.loads, log.read_text().splitlines()) if log.exists() else ()
    return [(event["verb"], event["requestURI"]) for event in events if event["stage"] == "RequestReceived"]


def _log(home):
    return home / "log" / "audit.log"
