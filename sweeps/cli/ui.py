"""`lth ui`: MLflow's UI on a study's tracking store."""

from __future__ import annotations

from typing import Annotated

import typer

ui_app = typer.Typer()


@ui_app.command()
def ui(
    study: Annotated[
        str | None, typer.Argument(help="The study whose tracking store to show.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; another one than this lets others in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 5000,
    auth: Annotated[
        bool | None,
        typer.Option(
            "--auth/--no-auth", help="Ask for a password; must be said where others are let in."
        ),
    ] = None,
) -> None:
    """Open MLflow's UI, on this machine only unless told otherwise.

    With --auth the first start takes the password of `admin` from MLFLOW_AUTH_ADMIN_PASSWORD, or
    from the file mlflow-auth/password beside the database.
    """
    from sweeps.studies.find import find_study
    from sweeps.studies.schema import Tracking
    from tracking.publish.server import serve_ui

    tracking = find_study(study, [], swept=True).tracking if study else Tracking()
    serve_ui(tracking.uri, host, port, auth)
