"""Figures of matplotlib as SVG text: for light and dark pages, with names in words, the same text for the same data."""

from __future__ import annotations

import html
import importlib.util
import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sait_deploy.errors import InvalidArgument, MissingDependency, first_line
from sait_deploy.reports import palette
from sait_deploy.reports.escape import plain
from sait_deploy.reports.table import Note
from sait_deploy.system.loggers import errors_only

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PACKAGE: Final = "matplotlib"
_EXTRA: Final = "report"

NO_PLOTS: Final = Note(f"plots are missing, as {_PACKAGE} is not installed: pip install 'sait-deploy[{_EXTRA}]'")
"""What a report says that would have plots where matplotlib is installed."""

_FONT: Final = "DejaVu Sans"
"""Comes with matplotlib, which lays texts out by its widths; pages show their own font, which is hardly wider."""

_UNITS: Final = 72
"""Units of the SVG's coordinates in matplotlib's inch."""

_SETTINGS: Final = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": [_FONT],
    "font.size": 13,
    "text.parse_math": False,
    "text.color": palette.INK.light,
    "path.simplify": False,
    "axes.edgecolor": palette.RULE.light,
    "axes.labelcolor": palette.MUTED.light,
    "xtick.color": palette.MUTED.light,
    "ytick.color": palette.MUTED.light,
    "grid.color": palette.RULE.light,
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True)
class Names:
    """How a drawing names itself to those who do not see it.

    Attributes:
        ident: prefix of its element ids, unique on a page.
        title: its name.
        desc: what it shows, in words.
    """

    ident: str
    title: str
    desc: str


def has_matplotlib() -> bool:
    """Returns whether plots can be drawn; imports nothing."""
    return importlib.util.find_spec(_PACKAGE) is not None


def require_matplotlib() -> None:
    """Makes sure that plots can be drawn; imports nothing.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    if not has_matplotlib():
        raise MissingDependency(_PACKAGE, "drawing plots", _EXTRA)


def draw(names: Names, width: float, height: float, fill: Callable[[Figure], None]) -> str:
    """Returns what a function draws on an empty figure as an SVG element.

    Args:
        names: its accessible names.
        width: of the figure, in units of the SVG, which are pixels where it is not scaled.
        height: likewise.
        fill: draws on the figure, whose texts are shown as they are, ``$`` included.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidArgument: the environment names a backend that matplotlib has not.
    """
    require_matplotlib()
    with errors_only(_PACKAGE), warnings.catch_warnings():  # it says where it keeps fonts, and which letters they lack
        warnings.simplefilter("ignore")
        return _named(_drawn(names, width, height, fill), names, width, height)


def _drawn(names: Names, width: float, height: float, fill: Callable[[Figure], None]) -> str:
    try:
        import matplotlib
    except ValueError as error:
        raise InvalidArgument(f"matplotlib does not start: {first_line(error)}", "unset MPLBACKEND") from None
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    out = io.StringIO()
    # Of a file matplotlibrc, which may lie in the working folder, nothing stays: it could have LaTeX run.
    defaults = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
    with matplotlib.rc_context(defaults | _SETTINGS | {"svg.hashsalt": names.ident}):
        figure = Figure(figsize=(width / _UNITS, height / _UNITS), layout="constrained")
        figure.set_facecolor(palette.PAPER.light)
        fill(figure)
        unsaid: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(out, metadata=unsaid)
    return out.getvalue()


def below_each_other(drawings: Sequence[str]) -> str:
    """Returns drawings made by :func:`draw` as one SVG element."""
    sizes = [re.search(r'width="([0-9.]+)" height="([0-9.]+)"', drawing) for drawing in drawings]
    wide = [(float(size[1]), float(size[2])) for size in sizes if size is not None]
    width, height, top, parts = max(w for w, _ in wide), sum(h for _, h in wide), 0.0, []
    for drawing, (_, own) in zip(drawings, wide, strict=True):
        parts.append(drawing.replace("<svg ", f'<svg y="{top:g}" ', 1))
        top += own
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{"".join(parts)}</svg>\n'


def bare(axes: Axes) -> None:
    """Leaves of the axes' frame the lines across at the ticks of y."""
    axes.spines[:].set_visible(False)
    axes.grid(axis="y", linewidth=1)
    axes.set_axisbelow(True)
    axes.set_facecolor("none")
    axes.tick_params(length=0)


def heading(axes: Axes, words: str) -> None:
    """Writes what the y axis shows above it."""
    axes.set_title(printable(words), loc="left", fontsize=13, color=palette.MUTED.light, x=0)


def printable(words: str) -> str:
    """Returns text as it may stand in a drawing."""
    return plain(words) or " "


def _named(svg: str, names: Names, width: float, height: float) -> str:
    """Returns the SVG element alone, with names and colours for dark pages, and without ids that other plots have."""
    body = svg[svg.index("</defs>") + len("</defs>") :]  # behind matplotlib's own style
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = body.replace(f"font-family: '{_FONT}', sans-serif", "font-family: system-ui, sans-serif")
    ident, title, desc = (html.escape(plain(text)) for text in (names.ident, names.title, names.desc))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="plot" '
        f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-labelledby="{ident}-title {ident}-desc">'
        f'<title id="{ident}-title">{title}</title><desc id="{ident}-desc">{desc}</desc>'
        f"<style>{_style()}</style>{body.rstrip()}\n"
    )


def _style() -> str:
    """Returns rules that give dark pages other colours; viewers that know no such rules show the light ones."""
    colours = (palette.PAPER, palette.INK, palette.MUTED, palette.RULE, *palette.SERIES)
    rules = "".join(
        f'.plot [style*="{kind}: {colour.light}"]{{{kind}:{colour.dark}!important}}'
        for colour in colours
        for kind in ("fill", "stroke")
    )
    return f"svg.plot{{color-scheme:light dark}}@media (prefers-color-scheme:dark){{{rules}}}"
