"""Run the cells of a notebook in this process and store their outputs, without Jupyter.

    python docs/run_notebook.py docs/tour.ipynb

Cells must be plain Python. They run in a new folder: nothing is written beside the notebook.
"""

from __future__ import annotations

import ast
import base64
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

SHOWN = {"text/html": "_repr_html_", "image/png": "_repr_png_"}
"""Method of a value that gives it in each format."""


def executed(notebook: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The notebook with the outputs of its cells, run one after another in a folder."""
    names: dict[str, Any] = {"__name__": "__main__"}
    counts, cells = iter(range(1, 1000)), []
    with chdir(folder):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                number = next(counts)
                outputs = list(_outputs("".join(cell["source"]), names, number))
                cell = {**cell, "execution_count": number, "outputs": outputs}
            cells.append(cell)
    return {**notebook, "cells": cells}


def _outputs(source: str, names: dict[str, Any], number: int) -> Iterator[dict[str, Any]]:
    """Outputs of a cell: its prints, and the value of its last line."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    value = None
    with redirect_stdout(StringIO()) as printed:
        exec(compile(ast.Module(body, []), "<cell>", "exec"), names)
        if last:
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    if printed.getvalue():
        yield {"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())}
    if value is not None:
        yield {
            "output_type": "execute_result", "execution_count": number, "metadata": {},
            "data": _shown(value),
        }  # fmt: skip


def _shown(value: object) -> dict[str, Any]:
    """A value in each format that it has."""
    data: dict[str, Any] = {"text/plain": _lines(repr(value))}
    for kind, method in SHOWN.items():
        shown = getattr(value, method, lambda: None)()
        if isinstance(shown, bytes):
            data[kind] = base64.b64encode(shown).decode()
        elif shown is not None:
            data[kind] = _lines(shown)
    return data


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    """Run the notebooks that the arguments name."""
    for path in map(Path, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(json.loads(path.read_text()), Path(folder))
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + os.linesep)


if __name__ == "__main__":
    main()
