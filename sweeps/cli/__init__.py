"""The command line, `lth`."""


def run() -> None:
    """Run `lth`; its entry point."""
    from sweeps.cli.main import run

    run()
