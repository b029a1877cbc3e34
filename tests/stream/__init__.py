"""Tests of `twsock.stream`."""
