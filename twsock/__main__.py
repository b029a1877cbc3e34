"""``python -m twsock``: the same as the console script ``twsock``."""

from twsock.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
