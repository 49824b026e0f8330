"""What a study file can name, with a sentence on each: for `lth list`."""

from __future__ import annotations

from collections.abc import Mapping

from lth_core.data import SOURCES
from lth_core.jobs.branches import BRANCHES
from lth_core.jobs.methods import WHEN
from lth_core.models import MODELS
from lth_core.prune import SCHEDULES, SCOPES, SCORES, STRUCTURES
from lth_core.train.masking.registry import GROW, LEARN
from sweeps.studies.reader import spec_fields
from sweeps.studies.schema import study_schema


def catalogue() -> dict[str, dict[str, str]]:
    """Kind -> name -> what it is."""
    return {
        "datasets": {
            **_first_paragraphs({n: s for n, s in SOURCES.items() if n != "folder"}),
            "folder:PATH": "images in PATH/train/CLASS/* and PATH/test/CLASS/*",
            "package.module:factory": "your own: a function from DataSpec to lth_core.data.Dataset",
        },
        "models": {
            **{name: about for name, (_, about) in MODELS.items()},
            "package.module:factory": "your own: a function of (ModelSpec, shape, classes)",
        },
        "when": _first_paragraphs(WHEN),
        "scores": {
            **_first_paragraphs({**SCORES, **LEARN}),
            "package.module:function": "your own: a function from lth_core.prune.Candidate to "
            "a tensor of scores by parameter name",
        },
        "scopes": SCOPES,
        "structures": STRUCTURES,
        "grow": _first_paragraphs(GROW),
        "schedules": _first_paragraphs(SCHEDULES),
        "branches": _first_paragraphs(BRANCHES),
        "fields": {field: _about_field(field) for field in spec_fields()},
    }


def _first_paragraphs(named: Mapping[str, object]) -> dict[str, str]:
    said = {name: (made.__doc__ or "").strip().partition("\n\n")[0] for name, made in named.items()}
    return {name: " ".join(about.split()) for name, about in said.items()}


def _about_field(field: str) -> str:
    definitions = study_schema()["$defs"]
    places = [definitions["TicketSpec"]]
    *parents, last = field.split(".")
    for parent in parents:
        inner = places[0]["properties"][parent]
        names = [each["$ref"].rpartition("/")[2] for each in inner.get("anyOf", [inner])]
        places = [definitions[name] for name in names]
    found = [place["properties"][last] for place in places if last in place["properties"]]
    return " ".join(str(found[0].get("description", "")).split())
