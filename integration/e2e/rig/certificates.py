# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""The certificates of a server beside the cluster, by an authority of its own."""

import subprocess

# Of what OpenSSL's tools can do, only `ca` makes a certificate that has ended.
_AUTHORITY = """\
[ca]
default_ca = ours
[ours]
database = issued
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
"""


def authority(directory):
    """`ca.crt` and its key."""
    (directory / "ca.cnf").write_text(_AUTHORITY)
    (directory / "issued").touch()
    _key(directory, "ca")
    _openssl(directory, "req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=evanesce-e2e-ca", "-days", "2", "-out", "ca.crt")


def server(directory, *names, ended=False):
    """`server.crt` and its key for names (`IP:…`, `DNS:…`): good for two days, or ended years ago."""
    _key(directory, "server")
    _openssl(directory, "req", "-new", "-key", "server.key", "-subj", "/CN=server", "-out", "server.csr")
    (directory / "san").write_text(f"subjectAltName={','.join(names)}\n")
    validity = ("-startdate", "20200101000000Z", "-enddate", "20200102000000Z") if ended else ("-days", "2")
    _openssl(directory, "ca", "-config", "ca.cnf", "-batch", "-notext", "-rand_serial", "-cert", "ca.crt", "-keyfile", "ca.key",
             "-in", "server.csr", "-extfile", "san", *validity, "-out", "server.crt")


def _key(directory, name):
    _openssl(directory, "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", f"{name}.key")


def _openssl(directory, *args):
    subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=directory)
