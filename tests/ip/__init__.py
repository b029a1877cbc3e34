"""Tests of `twsock.ip`."""
