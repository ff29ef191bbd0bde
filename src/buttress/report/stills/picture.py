"""Still pictures by matplotlib: self-contained SVG files, on white, without a script and without anything to fetch.

matplotlib is imported where a picture is drawn, so that nothing else pays for it; pyplot, which keeps a global list of
figures, is not used.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from buttress.report.kinds.examples import embedded_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARK = "<!-- Drawn by buttress. -->"
INK, FAINT, LINE = "#20242b", "#5d6470", "#d9dce1"
DASHES = ("solid", (0, (5, 2.5)), (0, (1, 1.5)), "dashdot", (0, (9, 3)), (0, (9, 2, 1.5, 2)))

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "buttress",  # the same data give the same bytes
    "svg.fonttype": "none",  # text stays text, in a font that the reader has
    "text.parse_math": False,  # names may hold dollar signs
    "savefig.dpi": 144,  # of what is drawn pixel by pixel
    "image.composite_image": False,
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "legend.frameon": False,
    "legend.labelcolor": FAINT,
}


@contextmanager
def style() -> Iterator[None]:
    """The look of all pictures, whatever the user's own matplotlib settings are; for drawing and for `to_svg`."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # only widths are estimated then
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def to_svg(figure: Figure, title: str) -> str:
    """The text of an SVG file.

    Args:
        figure: drawn within `style`.
        title: what it shows, for screen readers.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_text(_printable(text.get_text()))
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type")) | {"Title": _printable(title)}
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata=metadata)
    # Without matplotlib's head, which refers to a document type elsewhere.
    return f"{MARK}\n{buffer.getvalue()[buffer.getvalue().index('<svg') :]}"


def show_image(axes: Axes, address: object) -> None:
    """Show an embedded PNG without ticks; an empty frame for anything else, so that nothing is fetched."""
    from PIL import Image

    axes.set(xticks=[], yticks=[])
    axes.set_box_aspect(1)
    image = embedded_png(address)
    if image is None:
        axes.set_facecolor("#f4f5f6")
        return
    data = base64.b64decode(image["address"].partition(",")[2])
    axes.imshow(Image.open(io.BytesIO(data)).convert("RGB"), interpolation="none", aspect="auto")
    axes.spines[:].set_visible(False)


def _printable(text: str) -> str:
    """Without what XML has no place for."""
    return "".join(letter for letter in text if letter.isprintable() or letter == "\n")
