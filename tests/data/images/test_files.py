import io

import pytest
from PIL import Image

from buttress.data.images.duplicates import repeated
from buttress.data.images.files import files_under, folders_in, images_under
from buttress.errors import UserError

HIDDEN = (".DS_Store", "._a.png", "Thumbs.db", "THUMBS.DB", "desktop.ini", "__MACOSX/a.png", ".ipynb_checkpoints/a.png")


def png():
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG")
    return file.getvalue()


def write(path, content=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png() if content is None else content)
    return path


def test_hidden_things_are_passed_over_at_any_depth(tmp_path):
    for name in HIDDEN:
        write(tmp_path / name)
        write(tmp_path / "inside" / name)
    shown = [write(tmp_path / "a.png"), write(tmp_path / "inside" / "deep" / "b.png")]
    assert sorted(files_under(tmp_path)) == shown
    assert [folder.name for folder in folders_in(tmp_path)] == ["inside"]


def test_images_are_known_by_suffixes_of_any_case_or_by_their_first_bytes(tmp_path):
    images = [write(tmp_path / name) for name in ("a.PNG", "b.Jpg", "c", "d.001", "e.webp", "f.tif")]
    others = [write(tmp_path / name, b"x") for name in ("g", "h.txt", "i.csv", "j.npy", "k.py")]
    assert images_under(tmp_path) == (images, others)


@pytest.mark.parametrize("suffix", [".heic", ".HEIF", ".svg"])
def test_photographs_that_cannot_be_read_are_not_lost_without_a_word(tmp_path, suffix):
    write(tmp_path / f"a{suffix}", b"x")
    with pytest.raises(UserError, match="convert it to PNG or JPEG"):
        images_under(tmp_path)


def test_links_are_followed_and_those_that_lead_nowhere_or_round_are_named(tmp_path):
    target = write(tmp_path / "elsewhere" / "a.png").parent
    root = tmp_path / "root"
    root.mkdir()
    (root / "cat").symlink_to(target)
    assert images_under(root) == ([root / "cat" / "a.png"], [])
    (root / "round").symlink_to(root)
    with pytest.raises(UserError, match="round: expected images, got a link to a folder that it is in"):
        images_under(root)
    (root / "round").unlink()
    (root / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match=r"gone.png: expected a file, got a link to .*nowhere.png, which is not there"):
        images_under(root)


def test_files_of_equal_bytes_are_found_whatever_they_are_called(tmp_path):
    test = [write(tmp_path / "test" / f"{i}", bytes([i, 7])) for i in range(5)]
    train = [write(tmp_path / "train" / name, content) for name, content in (("a", b"\x01\x07"), ("b", b"\x03\x07"))]
    train += [write(tmp_path / "train" / "c", b"\x02\x08"), write(tmp_path / "train" / "d", b"\x04\x07\x00")]
    assert repeated(test, train) == [test[1], test[3]]
    assert repeated(test, []) == []
