"""
What a message costs in processor time, wall time and memory, beside other ways to do it.

``python -m benchmarks`` lists the names, ``python -m benchmarks NAME`` measures, and ``--help`` has
the options. All of it runs from a checkout, on Linux, over loopback only, for some minutes. Every
benchmark but ``structure`` has these options: ``--rounds``; ``--servers`` and ``--cases``, of those
that the help lists; ``--references``, the servers that ratios refer to; ``--spread``, which prints
the quartiles of each ratio; ``--client-sleeps``; ``--json`` and ``--markdown``, which write the
figures to files; and ``--baseline PATH``, which runs the programs of twsock on the twsock of
another checkout as well, turn by turn in the same rounds, and prints the ratios.

What follows is the method of ``stream``. The others share the rounds, and have their methods in the
docstrings of their modules.

The cases
    Every frame is a 4-byte big-endian length and that many bytes. A: one frame of 64 bytes in
    flight. B: 64 of them on one connection. C: 16 on each of 50 connections. D: 64 frames of
    1 KiB. E: 4 frames of 64 KiB.

The servers
    Each is a process of its own and echoes whole frames, with ``TCP_NODELAY`` on;
    `benchmarks.programs` lists them. The asyncio ``Protocol`` comes in two manners: one write for
    all frames of one ``data_received``, and one write a frame, which is how
    `Int32StringReceiver` and a plain handler answer. The C server shows what the kernel costs.

    Over TLS (``stream-tls``) there are fewer, with one certificate for the run: twsock's
    ``FrameEcho`` on both reactors and ``StreamSocket``, `Int32StringReceiver`, asyncio's streams,
    and uvloop's ``Protocol`` in both manners. twsock and Twisted encrypt with the OpenSSL that
    ``cryptography`` brings, asyncio and uvloop with the one that Python's `ssl` was built on; the
    report names both.

The load
    One client, the process of the command, with plain sockets and epoll. It keeps a fixed number of
    frames in flight: as many as came back go out again, in one send. Frames differ from one
    another, and every byte that comes back is compared with the one expected, so order and content
    are both verified.
    Over TLS, what goes out in one send is encrypted as one stream of full records.

    The client never sleeps while it waits. One that sleeps has to be woken by the server's core,
    which costs more than an echo on some virtual machines, is charged to the server, and is not
    paid by a server whose clients are elsewhere. ``--client-sleeps`` shows the difference; with a
    single core there is no choice.

The figures
    Server and client are pinned to a core each. A measurement begins and ends with nothing in
    flight and the server asleep, after a warm-up of the same kind, so the processor time that the
    kernel counts for the server's tasks in between (``schedstat``, in nanoseconds) belongs to
    exactly the frames counted. Kernel work done on the client's core, such as delivering the
    client's segments to the server's socket, is not in it, for any server alike.

    A round starts every server anew and measures case by case, all servers in turn and in a new
    random order, so a slow minute of the machine hits all of them. Figures are medians over the
    rounds. A ratio is the median of the rounds' own ratios, to `Int32StringReceiver` or to the
    other checkout. It travels between machines better than microseconds do, but not all the way:
    the kernel's share, which no server can save, differs. The row of the C server is about the
    least that a ratio can be on this machine.

Case E also measures the C library's allocator: a server that asks for fresh memory of 128 KiB or
more for each read may get it from the kernel and give it back each time, and a page fault for each
4 KiB can cost more than the copy. Whether it does so depends on what else it has allocated, so E
varies most between rounds, most of all on virtual machines.

What the figures do not say: a client that is slower than the server leaves it waiting, and a
server that waits takes smaller bites, which cost more each. On a virtual machine with noisy
neighbours, raise ``--rounds``.
"""
