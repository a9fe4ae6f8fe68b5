# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""Lets a real kubelet hand out expired tokens.

kubelet renews a token long before its end, so an expired one reaches a plugin only when clocks disagree. The machine has
one clock; so kubelet is started anew with a proxy before its API server, which moves the times in the tokens of one
service account into the past and signs them again with the cluster's own key. Everything else passes unchanged.
"""

import base64
import contextlib
import http.client
import http.server
import json
import pathlib
import socketserver
import ssl
import subprocess
import sys
import time

if __package__:
    from . import node

LISTEN = ("127.0.0.1", 16443)
BEHIND = 7200  # seconds


@contextlib.contextmanager
def kubelet_gets_expired_tokens(namespace, account):
    """While this lasts, kubelet's tokens for a service account ended before they were made."""
    pki = node.HOME / "pki"
    late = pki / "kubelet-late.conf"
    late.write_text((pki / "kubelet.conf").read_text().replace("127.0.0.1:6443", ":".join(map(str, LISTEN))))
    node.start_inside("late-clock", sys.executable, __file__, pki, f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token")
    node.node("restart", "kubelet", env={"NODE_KUBECONFIG": str(late)})
    try:
        yield
    finally:
        node.node("restart", "kubelet")
        node.stop_inside("late-clock")


def _in_the_past(token, key):
    encode = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")  # noqa: E731
    header, claims, _ = token.encode().split(b".")
    claims = json.loads(base64.urlsafe_b64decode(claims + b"=" * (-len(claims) % 4)))
    for when in ("iat", "nbf", "exp"):
        claims[when] -= BEHIND
    signed = header + b"." + encode(json.dumps(claims).encode())
    signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=signed, capture_output=True, check=True).stdout
    return (signed + b"." + encode(signature)).decode()


class _Proxy(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pki, path_of_token = pathlib.Path(), ""

    def _pass_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asks_for_token = self.path.split("?")[0] == self.path_of_token
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        if asks_for_token:
            headers = {name: value for name, value in headers.items() if name.lower() not in ("accept", "accept-encoding")}
            headers["Accept"] = "application/json"
        trust = ssl.create_default_context(cafile=self.pki / "ca.crt")
        trust.load_cert_chain(self.pki / "kubelet.crt", self.pki / "kubelet.key")
        upstream = http.client.HTTPSConnection("127.0.0.1", 6443, context=trust)
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if asks_for_token and answer.status == 201:
            made = json.loads(answer.read())
            made["status"]["token"] = _in_the_past(made["status"]["token"], self.pki / "service-account.key")
            made["status"]["expirationTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - BEHIND + 600))
            self._chunk(json.dumps(made).encode())
        else:
            while data := answer.read1(65536):  # a watch is passed on as it comes
                self._chunk(data)
        self._chunk(b"")
        upstream.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on

    def _chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


def _serve(pki, path_of_token):
    _Proxy.pki, _Proxy.path_of_token = pathlib.Path(pki), path_of_token
    server = _Server(LISTEN, _Proxy)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(_Proxy.pki / "apiserver.crt", _Proxy.pki / "apiserver.key")
    tls.load_verify_locations(_Proxy.pki / "ca.crt")
    tls.verify_mode = ssl.CERT_REQUIRED  # it acts with kubelet's certificate, so it answers nobody without one
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
