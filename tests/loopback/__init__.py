"""Tests that only a kernel can decide, over loopback and on every reactor."""
