"""Tests of `twsock.tls`."""
