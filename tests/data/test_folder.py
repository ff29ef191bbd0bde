import numpy as np
import pytest
from PIL import Image

from buttress import data
from buttress.errors import UserError


def picture(seed, shape=(6, 8, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(root, classes, n, shape=(6, 8, 3), first=0):
    """PNG files root/<class>/<i>.png; returns them by path, in sorted order."""
    made = {}
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(n):
            path = root / name / f"{i:03}.png"
            made[path] = picture(first + 1000 * k + i, shape)
            Image.fromarray(made[path]).save(path)
    return made


def load(root, **options):
    return data.load(f"folder:{root}", **options)


def test_train_and_test_folders_come_back_bit_by_bit(tmp_path):
    train = list(write(tmp_path / "train", ("cat", "dog"), 10).values())
    test = list(write(tmp_path / "test", ("cat", "dog"), 3, first=5000).values())
    made = load(tmp_path, val=4)
    assert made.classes == ("cat", "dog")
    assert (len(made.train), len(made.val), made.shape) == (16, 4, (3, 6, 8))
    for split in (made.train, made.val):
        for x, y, i in zip(split.x, split.y, split.ids.tolist(), strict=True):
            assert np.array_equal(x.permute(1, 2, 0).numpy(), train[i])
            assert int(y) == i // 10
    assert [x.permute(1, 2, 0).numpy().tolist() for x in made.test.x] == [x.tolist() for x in test]
    assert made.test.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert made.name == tmp_path.name


@pytest.mark.parametrize("sub", [".", "train"])
def test_without_a_test_folder_the_test_is_split_off_and_no_seed_changes_it(tmp_path, sub):
    write(tmp_path / sub, ("a", "b", "c"), 20, (5, 5))
    one, two = load(tmp_path, seed=1), load(tmp_path, seed=2)
    assert [len(part) for part in one.splits.values()] == [49, 5, 6]
    assert one.test.y.bincount().tolist() == [2, 2, 2]
    assert one.test.x.equal(two.test.x)
    assert not one.val.x.equal(two.val.x)
    rows = {tuple(x.flatten().tolist()) for part in one.splits.values() for x in part.x}
    assert len(rows) == 60  # every image in exactly one split
    assert len(load(tmp_path, test=12).test) == 12


def test_grey_images_have_one_channel_and_one_coloured_image_makes_three(tmp_path):
    files = write(tmp_path, ("a", "b"), 10, (5, 4))
    assert load(tmp_path).shape == (1, 5, 4)
    Image.fromarray(picture(1, (5, 4, 3))).save(next(iter(files)))
    assert load(tmp_path).shape == (3, 5, 4)


def test_other_modes_and_formats_and_deeper_folders_and_hidden_files(tmp_path):
    write(tmp_path, ("a", "b"), 10, (5, 4, 3))
    (tmp_path / "a" / "deep").mkdir()
    flat = np.full((5, 4, 3), 204, dtype=np.uint8)  # a colour of the palette that Pillow converts to
    Image.fromarray(flat).convert("P").save(tmp_path / "a" / "deep" / "palette.png")
    Image.fromarray(flat).convert("RGBA").save(tmp_path / "a" / "alpha.png")
    Image.fromarray(flat).save(tmp_path / "b" / "photo.jpg")
    (tmp_path / "b" / ".DS_Store").write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    made = load(tmp_path)
    assert sum(map(len, made.splits.values())) == 23
    plain = [x for part in made.splits.values() for x in part.x if x.min() == x.max() == 204]
    assert len(plain) == 3


def test_size_brings_mixed_sizes_together(tmp_path):
    write(tmp_path, ("a", "b"), 10)
    Image.new("RGB", (20, 30), (10, 20, 30)).save(tmp_path / "a" / "large.png")
    with pytest.raises(
        UserError, match=r"large.png: expected size \(6, 8\) as of .*000.png, got \(30, 20\); give size="
    ):
        load(tmp_path)
    made = load(tmp_path, size=(7, 9))
    assert made.shape == (3, 7, 9)
    assert load(tmp_path, size=4).shape == (3, 4, 4)
    flat = [x for part in made.splits.values() for x in part.x if x[0].min() == x[0].max()]
    assert [x[:, 0, 0].tolist() for x in flat] == [[10, 20, 30]]


def test_an_unreadable_image_is_named(tmp_path):
    files = list(write(tmp_path, ("a", "b"), 10, (40, 40, 3)))
    whole = files[3].read_bytes()
    for raw in (b"", b"not an image", whole[: len(whole) // 2]):
        files[3].write_bytes(raw)
        with pytest.raises(UserError, match=r"003.png: expected an image") as caught:
            load(tmp_path)
        assert "\n" not in str(caught.value)


def test_deep_images_are_refused_and_not_clipped(tmp_path):
    files = list(write(tmp_path, ("a", "b"), 5, (4, 4)))
    Image.fromarray(np.full((4, 4), 3000, dtype=np.uint16)).save(files[2])
    with pytest.raises(UserError, match=r"002.png: expected an image of 8 bits a channel, got mode 'I;16'"):
        load(tmp_path)


def test_folders_that_are_not_a_data_set_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere: expected a folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="expected at least 2 folders, one for each class, got 0"):
        load(tmp_path)
    write(tmp_path / "train", ("a", "b"), 5)
    (tmp_path / "train" / "c").mkdir()
    with pytest.raises(UserError, match="train/c: expected at least one image of the class"):
        load(tmp_path)
    (tmp_path / "train" / "c").rmdir()
    write(tmp_path / "test", ("a", "z"), 5)
    with pytest.raises(UserError, match=r"test: expected the classes of train \(a, b\)"):
        load(tmp_path)


def test_arguments_that_contradict_are_refused(tmp_path):
    write(tmp_path / "train", ("a", "b"), 5)
    write(tmp_path / "test", ("a", "b"), 5)
    with pytest.raises(UserError, match="no size for the test, got test=3"):
        load(tmp_path, test=3)
    with pytest.raises(UserError, match="expected no data_dir"):
        load(tmp_path, data_dir=tmp_path)
    with pytest.raises(UserError, match="ask for folder:PATH"):
        data.load("folder")
    with pytest.raises(UserError, match="at least 1 pixel, got 0"):
        load(tmp_path, size=0)
    assert len(data.load("folder", data_dir=tmp_path).test) == 10


def test_folders_that_hold_the_same_folders_are_asked_about(tmp_path):
    """Splits with names of their own would be two classes: another figure without a word."""
    for split, first in (("entrenamiento", 0), ("prueba", 5000)):
        write(tmp_path / split, ("cat", "dog"), 4, first=first)
    with pytest.raises(UserError, match=r"with the same folders in each \(cat, dog\): if they are splits call them"):
        load(tmp_path, test_only=True)
    asked = load(tmp_path, test_only=True, classes=["entrenamiento", "prueba"])
    assert asked.test.y.tolist() == [0] * 8 + [1] * 8
