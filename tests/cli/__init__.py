"""Tests of `twsock.cli`."""
