"""`lth ui`: MLflow's UI on a study's tracking store."""

from __future__ import annotations

from typing import Annotated

import typer

from sweeps.cli.console import complete_study
from sweeps.cli.lazy import lazy_imports

with lazy_imports():
    from sweeps.studies import find, schema
    from tracking.publish import server

ui_app = typer.Typer()


@ui_app.command()
def ui(
    study: Annotated[
        str | None,
        typer.Argument(
            help="The study whose tracking store to show.", autocompletion=complete_study
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on; any other than the default is open to other machines."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 5000,
    auth: Annotated[
        bool | None,
        typer.Option(
            "--auth/--no-auth",
            help="Require a password; needed where the address is open to other machines.",
        ),
    ] = None,
) -> None:
    """Open MLflow's UI, by default for this machine only.

    With --auth the first start takes the password of `admin` from MLFLOW_AUTH_ADMIN_PASSWORD, or
    from the file mlflow-auth/password beside the database.
    """
    tracking = find.find_study(study, [], swept=True).tracking if study else schema.Tracking()
    server.serve_ui(tracking.uri, host, port, auth)
