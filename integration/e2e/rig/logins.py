# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""Logs in to PostgreSQL again and again with what a file holds now: FILE PSQL...; a program of its own, which the rig starts
inside the node. A line for each login: `ok ROLE`, or `failed` and why.
"""

import json
import os
import pathlib
import subprocess
import sys

file, *psql = sys.argv[1:]
while True:
    lent = json.loads(pathlib.Path(file).read_text())  # one open: user and password belong together
    done = subprocess.run([*psql, "-c", "select 1", "-U", lent["username"]], env={**os.environ, "PGPASSWORD": lent["password"]},
                          capture_output=True, text=True, check=False)
    print("failed " + done.stderr.strip().replace("\n", " ") if done.returncode else f"ok {lent['username']}", flush=True)
