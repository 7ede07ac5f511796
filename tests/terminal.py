"""A pretend terminal: what a program has shown on it."""

import os


def read_all(controller: int) -> str:
    """What was written to the terminal, once its other end is closed; closes this one. One `os.read` is not enough:
    the kernel hands bytes over as it comes to it."""
    shown = b""
    try:
        while piece := os.read(controller, 65536):
            shown += piece
    except OSError:  # Linux tells the end so
        pass
    os.close(controller)
    return shown.decode()
