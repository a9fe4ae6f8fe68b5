# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""How many and how long: one table, with a column for every change and a column for the long run (EVANESCE_FULL=1)."""

import os

FULL = os.environ.get("EVANESCE_FULL") == "1"


def _count(ci, full):
    return full if FULL else ci


#                                                      CI  full
# Seconds that OpenBao, or the API server, is gone …
OUTAGE_SECONDS = _count(                               60,  300)
# … after which kubelet may wait two more minutes before it tries a new pod's volume again.
RETRY_SECONDS = 200
# Pods with ten secrets each that start together, twice.
MANY_PODS = _count(                                   100,  230)
# Pods with one secret that start at once.
BURST_PODS = _count(                                   60,   60)
# Volumes in the steady state, …
STEADY_VOLUMES = _count(                              100,  250)
# … how long the API server's audit log is watched …
STEADY_SECONDS = _count(                               30,  300)
# … and how often each volume is refreshed meanwhile, at least.
STEADY_ROUNDS = _count(                                 2,   20)
