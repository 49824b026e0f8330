"""`lth ui`: a study's page in MLflow's UI."""

from __future__ import annotations

from typing import Annotated

import typer

from sweeps.cli.console import complete_study
from sweeps.cli.lazy import lazy_imports

with lazy_imports():
    from sweeps.studies import find, schema
    from tracking.publish.ui import server

ui_app = typer.Typer()


@ui_app.command()
def ui(
    study: Annotated[
        str | None,
        typer.Argument(
            help="The study to show; without it, the list of all.", autocompletion=complete_study
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
    browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = True,
) -> None:
    """Open the study's page in MLflow's UI, by default for this machine only.

    The page is printed too, once the server answers. A study on a tracking server is shown there.

    With --auth the first start takes the password of `admin` from MLFLOW_AUTH_ADMIN_PASSWORD, or
    from the file mlflow-auth/password beside the database.
    """
    if study is None:
        server.serve_ui(schema.Tracking().uri, host, port, auth, browser=browser)
        return
    known = find.find_study(study, [], swept=True)
    uri, name = known.tracking.uri, known.name
    if uri and not uri.startswith("sqlite:"):
        server.show_study(uri, name, browser=browser)
    else:
        server.serve_ui(uri, host, port, auth, study=name, browser=browser)
