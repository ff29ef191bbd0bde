"""What tests of still pictures share."""

from xml.etree import ElementTree

import pytest

from buttress.report.stills.picture import MARK, style

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"


@pytest.fixture
def figure():
    """An empty figure in the style of all pictures."""
    from matplotlib.figure import Figure

    with style():
        yield Figure(layout="constrained")


@pytest.fixture
def parse():
    """Reads a picture, and checks that it is valid and self-contained."""

    def parsed(text):
        assert text.startswith(MARK)
        assert "<!DOCTYPE" not in text
        root = ElementTree.fromstring(text)
        assert root.tag == f"{SVG}svg"
        for element in root.iter():
            assert element.tag != f"{SVG}script"
            assert not any(name.startswith("on") for name in element.attrib)
            assert element.attrib.get(LINK, "#").startswith(("#", "data:image/png;base64,"))
            assert "url(http" not in element.attrib.get("style", "")
        return root

    return parsed


@pytest.fixture
def texts():
    """The texts of a parsed picture."""
    return lambda root: [element.text for element in root.iter(f"{SVG}text")]
