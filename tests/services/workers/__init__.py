"""Tests of `twsock.services.workers`."""
