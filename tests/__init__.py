"""
Tests of twsock.

They mirror its folders: `tests/wire/test_frames.py` is for `twsock/wire/frames.py`.
"""
