"""The tools that can be chosen, as templates."""

from dataclasses import dataclass

from portico_gateway.errors import BadRequest
from portico_gateway.studios.values import Template


@dataclass(frozen=True, slots=True)
class Offer:
    """A template and what the gateway has to know of its tool."""

    template: Template
    probe_path: str
    """Answers without sign-in as soon as the tool can be used."""


OFFERS = (
    Offer(
        Template(
            repository="portico/jupyterlab:4.6",
            tool="jupyter",
            name="JupyterLab",
            icon="jupyter",
            status="recommended",
            description="Notebooks, terminals and a text editor; several people at once in the same documents.",
        ),
        probe_path="/api",
    ),
)


def offer(repository: str) -> Offer:
    """Raises BadRequest that lists what there is."""
    for each in OFFERS:
        if each.template.repository == repository:
            return each
    known = ", ".join(each.template.repository for each in OFFERS)
    raise BadRequest(f"there is no template '{repository[:100]}'; there are: {known}")


def known_template(repository: str) -> Template:
    """The template a studio was made from, also when it is offered no more."""
    for each in OFFERS:
        if each.template.repository == repository:
            return each.template
    return Template(repository, "custom", repository, "custom", "deprecated", "This template is not offered any more.")


def probe_path(repository: str) -> str:
    """Where the tool answers as soon as it can be used."""
    return next((each.probe_path for each in OFFERS if each.template.repository == repository), "/")
