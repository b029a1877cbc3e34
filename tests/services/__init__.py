"""Tests of `twsock.services`."""
