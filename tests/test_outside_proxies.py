"""
WebSockets through HTTP proxies of other projects that are reached with TLS.

Each test is skipped where its program is not installed, and in the daily profile.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tests.autobahn import find_free_port, wait_until_it_listens
from tests.outside_programs import OUR_CLIENT, Folder, echo, needs
from tests.tls.peer import AUTHORITY, SERVER

_TINYPROXY: Final = """
Port PLAIN
Listen 127.0.0.1
Allow 127.0.0.1
"""

_HAPROXY: Final = """
defaults
  mode tcp
  timeout connect 10s
  timeout client 60s
  timeout server 60s
listen proxy
  bind 127.0.0.1:PORT ssl crt FOLDER/server.pem
  server tinyproxy 127.0.0.1:PLAIN
"""

_MODULES: Final = Path("/usr/lib/apache2/modules")
_APACHE: Final = """
ServerRoot FOLDER
PidFile FOLDER/pid
ErrorLog FOLDER/errors
ServerName localhost
Listen 127.0.0.1:PORT
LoadModule mpm_event_module MODULES/mod_mpm_event.so
LoadModule authz_core_module MODULES/mod_authz_core.so
LoadModule proxy_module MODULES/mod_proxy.so
LoadModule proxy_connect_module MODULES/mod_proxy_connect.so
LoadModule ssl_module MODULES/mod_ssl.so
SSLEngine on
SSLCertificateFile FOLDER/server.pem
ProxyRequests On
AllowCONNECT 0-65535
""".replace("MODULES", str(_MODULES))

needs_apache = needs("apache2", why="" if _MODULES.is_dir() else "apache2-bin")


class SecureProxyTests(Folder):
    """Both kinds of URIs, through proxies with ``https``."""

    def setUp(self) -> None:
        super().setUp()
        self.port, self.plain = find_free_port(), find_free_port()
        self.certificate = str(self.folder / "server.pem")
        SERVER.private_key_and_cert_chain_pem.write_to_path(self.certificate)
        AUTHORITY.cert_pem.write_to_path(str(self.folder / "authority.pem"))

    def fill(self, name: str, text: str) -> str:
        """Write the settings of a proxy; return their path."""
        for word, value in (("PORT", self.port), ("PLAIN", self.plain), ("FOLDER", self.folder)):
            text = text.replace(word, str(value))
        return self.write(name, text)

    def check(self) -> None:
        """Converse through the proxy, with and without TLS inside its TLS."""
        wait_until_it_listens(self.port)
        words = (f"https://localhost:{self.port}", str(self.folder / "authority.pem"))
        for scheme, options in (("ws", ()), ("wss", ("--tls", "--certificate", self.certificate))):
            with echo("--compression", *options) as server:
                uri = f"{scheme}://localhost:{server}/"
                printed = self.run_program(sys.executable, "-c", OUR_CLIENT, uri, *words)
            self.assertEqual(printed.split(), ["plain", "compressed", "compressed"], scheme)

    @needs("haproxy", "tinyproxy")
    def test_tinyproxy_behind_haproxy(self) -> None:
        """HAProxy has the TLS."""
        with (
            self.running("tinyproxy", "-d", "-c", self.fill("tinyproxy.conf", _TINYPROXY)),
            self.running("haproxy", "-db", "-f", self.fill("haproxy.cfg", _HAPROXY)),
        ):
            wait_until_it_listens(self.plain)
            self.check()

    @needs_apache
    def test_apache(self) -> None:
        """``mod_proxy_connect`` with ``mod_ssl``."""
        settings = self.fill("apache.conf", _APACHE)
        with self.running("apache2", "-DFOREGROUND", "-f", settings):
            self.check()
