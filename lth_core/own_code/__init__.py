"""Digests of a user's code: of modules with all that they import, or of functions of a script."""

from lth_core.own_code.modules import module_digest
from lth_core.own_code.sources import user_sources
from lth_core.own_code.values import changed_since, factory_digest, function_digest

__all__ = ["changed_since", "factory_digest", "function_digest", "module_digest", "user_sources"]
