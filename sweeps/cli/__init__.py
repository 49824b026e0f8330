"""The command line, `lth`."""


def run() -> None:
    """The entry point of `lth`."""
    from sweeps.cli.main import run

    run()
