# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""The cluster: `cluster/node` and kubectl inside it."""

import json
import os
import pathlib
import subprocess

from . import audit
from .wait import Failure

HERE = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = HERE / "cluster" / "node"
HOME = pathlib.Path(os.environ.get("NODE_HOME") or pathlib.Path(os.environ.get("TMPDIR", "/tmp")) / "evanesce-node")
ADDRESS = "10.30.0.1"


def _environment(more=None):
    return {**os.environ, "NODE_HOME": str(HOME), **(more or {})}


def node(*args, env=None):
    """Runs a verb of `cluster/node`; its output goes to ours."""
    subprocess.run([PROGRAM, *map(str, args)], check=True,
                   env=_environment({"NODE_APISERVER_FLAGS": audit.flags(HOME), **(env or {})}))


def is_up():
    """Whether a node runs, of this run or kept by an earlier one."""
    try:
        return pathlib.Path("/proc", (HOME / "pid").read_text().strip(), "ns").exists()
    except OSError:
        return False


def inside(*command, stdin=None, env=None):
    """What `command` prints inside the node's namespaces; `Failure` with its errors if it fails."""
    done = subprocess.run(
        [PROGRAM, "run", *map(str, command)],
        env=_environment(env), input=stdin, text=True, capture_output=True,
    )
    if done.returncode:
        raise Failure(f"{' '.join(map(str, command))}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def start_inside(name, *command, env=None):
    """Starts a program of the node, which ends with the node at the latest; its output goes to the node's log folder."""
    with open(HOME / "log" / f"{name}.log", "ab") as log:
        subprocess.Popen(  # its id in here is only its wrapper's
            [PROGRAM, "run", "bash", "-c", 'echo $$ >"$0"; exec "$@"', HOME / "run" / f"{name}.pid", *map(str, command)],
            env=_environment(env), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )


def stop_inside(name):
    """Ends such a program by its process id, if it runs."""
    pid = HOME / "run" / f"{name}.pid"
    if pid.exists():
        inside("bash", "-c", 'kill -KILL "$0" 2>/dev/null || true; while [ -d "/proc/$0" ]; do sleep 0.05; done', pid.read_text().strip())
        pid.unlink()


def kubectl(*args, stdin=None):
    """What kubectl prints."""
    return inside("kubectl", *args, stdin=stdin)


def get(*args):
    """What `kubectl get` knows, as an object."""
    return json.loads(kubectl("get", *args, "-o", "json"))


def apply(*objects):
    """Creates or changes objects."""
    kubectl("apply", "-f", "-", stdin=text({"apiVersion": "v1", "kind": "List", "items": objects}))


def text(objects):
    """Objects as kubectl reads them."""
    return json.dumps(objects)


def image(name, directory, entry_point):
    """Makes a container image of a directory."""
    node("image", name, directory, json.dumps(entry_point))


def import_archive(path):
    """Imports an archive of container images, each by the name that is written in it."""
    node("import", path)
