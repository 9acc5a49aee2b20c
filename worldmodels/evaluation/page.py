"""Self-contained HTML pages, from the templates beside this file."""

from __future__ import annotations

from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """A page's text. Raises jinja2's UndefinedError for a value that the template asks for and nobody gave."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('worldmodels.evaluation', ''), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template).render(**values)
