"""The report as one self-contained HTML file: no script, nothing loaded from any address."""

import base64
from collections.abc import Callable
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from influcoder_lib.report import pictures, wording
from influcoder_lib.report.model import BehaviorReport, Report
from influcoder_lib.report.pictures import DARK, LIGHT, Theme


@dataclass(frozen=True)
class EmbeddedPicture:
    """A picture for both appearances, as data addresses."""

    light: Markup
    dark: Markup


def render_html(report: Report) -> str:
    """The whole report as text of an HTML file.

    Everything that comes from data is escaped. Texts of samples and queries stand inside closed
    <details> elements, so nobody reads an unwanted text without asking for it.
    """
    template = _environment().get_template("report.html.j2")
    return template.render(
        report=report,
        wording=wording,
        label_key=pictures.label_key,
        funnel=_embed(lambda theme: pictures.funnel(report.by_shard, theme)),
        behaviors=[
            (behavior, _histogram(behavior), _curve(behavior)) for behavior in report.behaviors
        ],
    )


def data_address(png: bytes) -> str:
    """A PNG as a data: address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("influcoder_lib.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=wording.count,
        percent=wording.percent,
        score=wording.score,
        label=wording.label,
    )
    return environment


def _histogram(behavior: BehaviorReport) -> EmbeddedPicture:
    return _embed(lambda theme: pictures.score_histogram(behavior, theme))


def _curve(behavior: BehaviorReport) -> EmbeddedPicture:
    return _embed(lambda theme: pictures.threshold_curve(behavior, theme))


def _embed(draw: Callable[[Theme], bytes]) -> EmbeddedPicture:
    return EmbeddedPicture(
        light=Markup(data_address(draw(LIGHT))), dark=Markup(data_address(draw(DARK)))
    )
