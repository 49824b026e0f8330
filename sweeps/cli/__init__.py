"""The command line, `lth`."""


def run() -> None:
    """Entry point of `lth`."""
    from sweeps.cli.main import run

    run()
