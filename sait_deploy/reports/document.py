"""A whole report, before it is written in any format: what it is about, notes, sections of plots and tables, lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sait_deploy.reports.table import Note, Table


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing; formats that cannot hold one leave it out.

    Attributes:
        heading: what stands above it.
        svg: an SVG element's text, made by ``sait_deploy.reports.plots``: it is not escaped.
        caption: what stands below it.
    """

    heading: str
    svg: str
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """Facts, name to value."""

    heading: str
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Section:
    """Plots and tables under one heading.

    Attributes:
        heading: what stands above them; empty where a document has one section only.
        plots: side by side where there is room.
        tables: each under its title.
        lines: a list of sentences below the tables.
    """

    heading: str = ""
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A report.

    Attributes:
        title: what it is of.
        about: paragraphs below the title.
        notes: what a reader must know; warnings are shown first.
        sections: in the order they are shown.
        listings: behind them; those without facts are left out.
        headline: what was found, in a sentence right below the title; empty for none.
    """

    title: str
    about: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    sections: tuple[Section, ...] = ()
    listings: tuple[Listing, ...] = ()
    headline: str = ""
