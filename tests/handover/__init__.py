"""Tests of twsock.handover."""
