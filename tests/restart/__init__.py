"""Tests of `twsock.restart`."""
