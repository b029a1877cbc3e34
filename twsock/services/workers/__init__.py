"""
Worker processes that serve the same sockets, one process for each core.

The parent opens the sockets, starts the workers, and replaces a worker that ends. A worker is the
same command line in a process of its own. Each worker accepts connections from sockets of its own,
or from a socket that all workers share.
"""

__all__: list[str] = []
