# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""A credential that is made for the pod: always one that logs in, and none left behind."""

from rig import classes, node, plugin, traces
from rig.pod import running
from rig.postgres import Postgres
from rig.wait import check, until

from . import case

# Prolonged once, then replaced after 24 seconds of its 30; what is restarted has the time until the next deadline.
LEASE, LONGEST = 18, 30
LEASES = 5


@case
def a_database_user_lives_through_five_leases_a_rolling_restart_and_a_restart_of_openbao(bao):
    backend = classes.backend("lending", role="lending", secrets=["database/creds/app"])
    volume = classes.volume("lent", backend="lending", files={"db.json": ("database/creds/app", None)}, leases={"overlap": "10s"})
    with Postgres(bao.target) as postgres, classes.made(backend, volume), traces.nothing_leaks():
        postgres.lend(bao, "app", LEASE, LONGEST)
        bao.write("sys/policies/acl/lending", policy='path "database/creds/app" { capabilities = ["read"] }')
        bao.role("lending", accounts=["app"], policies=["lending"])
        with running("lent", volume="lent") as pod:
            life = pod.life()
            with postgres.client(f"/proc/{pod.process()}/root/secrets/db.json") as client:
                def after_the_next_replacement(what):
                    seen = len(set(client.logins()))
                    until("another database user took the place of the last", lambda: len(set(client.logins())) > seen, seconds=2 * LONGEST)
                    what()

                after_the_next_replacement(_roll)
                after_the_next_replacement(bao.resume)
                while len(set(client.logins())) < LEASES:
                    after_the_next_replacement(lambda: None)
                logins, failures = client.logins(), client.failures()
            check(not failures, f"{len(failures)} of {len(logins) + len(failures)} logins failed: {failures[:3]}")
            check(len(logins) > 100, f"there were {len(logins)} logins")
            check(pod.life() == life, "its container was not started again")
        until("no database user is left", lambda: postgres.roles() == 0, seconds=2 * LONGEST)


def _roll():
    node.kubectl("rollout", "restart", "daemonset/evanesce-csi", "-n", plugin.NAMESPACE)
    plugin.until_it_serves()
