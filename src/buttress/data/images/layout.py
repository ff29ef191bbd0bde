"""Which images of a folder are for training, validation and the test, and the name of each one's class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from buttress.data.images.decode import broken_files, named
from buttress.data.images.files import files_under, folders_in, images_under, is_image, loose_images
from buttress.data.images.image_file import ImageFile
from buttress.data.images.label_table import read_label_table
from buttress.data.images.split_names import split_of, splits_of
from buttress.errors import UserError

Labelled = list[tuple[ImageFile, str]]
WHOLE = "whole"  # in place of splits: one collection of images


@dataclass(frozen=True)
class Layout:
    """What was found.

    Attributes:
        parts: images with the names of their classes; by split (train, val, test), or of the ``WHOLE``.
        places: what each part was found under.
        notes: sentences on what was found beside them.
    """

    parts: dict[str, Labelled]
    places: dict[str, str]
    notes: list[str] = field(default_factory=list)

    def without_broken(self) -> Layout:
        """The same but for files that cannot be decoded, which a sentence names."""
        broken = set(broken_files(path for rows in self.parts.values() for path, _ in rows))
        if not broken:
            return self
        parts = {part: [row for row in rows if row[0] not in broken] for part, rows in self.parts.items()}
        note = f"passed over, as they cannot be decoded: {named(sorted(broken))}"
        return Layout(parts, self.places, [*self.notes, note])


def read_layout(root: Path, labels: Path | None = None, classes: Sequence[str] = ()) -> Layout:
    """The images of ``PATH/train/<class>/*`` and other splits, or of ``PATH/<class>/*``, or those of a table.

    Args:
        root: the folder.
        labels: a table of labels; see `read_label_table`.
        classes: those that were given, of which the folders' names may be some.

    Raises:
        UserError: naming the folder, where it cannot be told what is what.
    """
    if labels is not None:
        return _of_table(root, labels)
    folders = folders_in(root)
    splits = splits_of((folder.name for folder in folders), str(root))
    nested = {folder.name for folder in folders if folder.name in splits and _has_classes(folder)}
    others = [folder for folder in folders if folder.name not in splits]
    if nested:
        return _of_splits(root, folders, splits, nested)
    if splits and not any(_has_images(folder) for folder in others):
        raise UserError(f"{root / next(iter(splits))}: expected one folder for each class, got none{_or_table(root)}")
    _check_classes(root, folders, classes)
    parts, notes = class_folders(root)
    if splits:
        notes.append(f"{', '.join(splits)} in {root} is a class beside the others, no split")
    return Layout({WHOLE: parts}, {WHOLE: root.name or str(root)}, notes)


def class_folders(root: Path, *, empty: bool = False) -> tuple[Labelled, list[str]]:
    """The images of ``root/<class>/*`` at any depth, class by class, and sentences on what is passed over.

    Args:
        root: the folder.
        empty: whether a class may have no image.

    Raises:
        UserError: for a class without images.
    """
    found: Labelled = []
    passed: list[Path] = []
    deep: list[str] = []
    for folder in folders_in(root):
        images, others = images_under(folder)
        if not images and not empty:
            got = f"only {named(others)}" if others else "an empty folder"
            raise UserError(f"{folder}: expected at least one image of the class, got {got}; remove the folder")
        found += [(path, folder.name) for path in images]
        passed += others
        deep += [folder.name] if any(path.parent != folder for path in images) else []
    notes = [f"passed over, as they are no images: {named(passed)}"] if passed else []
    if deep:
        notes.append(f"images in folders inside of {', '.join(deep[:4])} belong to the outer folder's class")
    if loose := loose_images(root):
        notes.append(f"not used, as they lie in no class's folder: {named(loose)}")
    return found, notes


def _of_splits(root: Path, folders: Sequence[Path], splits: dict[str, str], nested: set[str]) -> Layout:
    beside = [folder.name for folder in folders if folder.name not in splits and _has_images(folder)]
    if len(nested) == 1 and any(_has_classes(root / name) for name in beside):
        name = next(iter(nested))
        raise UserError(
            f"{root}: expected splits such as train and test, or classes, got {name} beside {', '.join(beside[:3])}, "
            f"which may be either; rename {name}, or ask for folder:{root / name}"
        )
    layout = Layout({}, {})
    for folder in folders:
        if (part := splits.get(folder.name)) is None:
            continue
        if folder.name in nested:
            found, notes = class_folders(folder, empty=part != "train")
            layout.parts[part], layout.places[part] = found, folder.name
            layout.notes.extend(notes)
        elif images := images_under(folder)[0]:
            layout.notes.append(f"not used, as they have no folders of classes (see --labels): {named(images)}")
        else:
            layout.notes.append(f"{folder} holds no images")
    if beside:
        layout.notes.append(f"not used, beside the splits in {root}: {', '.join(beside)}")
    return layout


def _of_table(root: Path, labels: Path) -> Layout:
    if not root.is_dir():
        raise UserError(f"{root}: expected a folder of images, but there is none")
    table = read_label_table(labels, root)
    words: dict[Path, str] = {image: word for image, _, word in table.rows if word is not None}
    if not words:  # as their folders are called
        tops = {image: _top(image, root) for image, _, _ in table.rows}
        words = {image: top for image, top in tops.items() if split_of(top) is not None}
        words = words if len(words) == len(table.rows) else {}
    splits = splits_of(set(words.values()), str(labels))
    layout = Layout({}, {}, [table.note])
    for image, name, _ in table.rows:
        part = splits[words[image]] if words else WHOLE
        layout.parts.setdefault(part, []).append((image, name))
        layout.places[part] = words.get(image, root.name or str(root))
    listed = {image.resolve() for image, _, _ in table.rows}
    unlisted = [path for path in images_under(root)[0] if path.resolve() not in listed]
    if unlisted:
        layout.notes.append(f"not used, as they have no label: {named(unlisted)}")
    return layout


def _check_classes(root: Path, folders: Sequence[Path], classes: Sequence[str]) -> None:
    """Refuse what is no folder of classes, saying what it looks like."""
    if len(folders) == 1 and _roles(folders[0]):
        raise UserError(
            f"{root}: expected splits or classes, got one folder that has them; ask for folder:{folders[0]}"
        )
    if not folders:
        got = f"{len(loose_images(root))} images" if loose_images(root) else "0"
        raise UserError(f"{root}: expected at least 2 folders, one for each class, got {got}{_or_table(root)}")
    for folder in folders:
        if len(roles := _roles(folder)) > 1:
            raise UserError(
                f"{folder}: expected images of one class, got the splits {' and '.join(roles)}; the splits come first, "
                f"as in {root}/{roles[0]}/{folder.name}"
            )
    _check_alike(root, folders, classes)


def _check_alike(root: Path, folders: Sequence[Path], classes: Sequence[str]) -> None:
    """Refuse folders with the same folders in each, as splits with names of their own have the same classes."""
    names = [folder.name for folder in folders]
    inside = [{inner.name for inner in folders_in(folder) if _has_images(inner)} for folder in folders]
    alike = len(folders) > 1 and len(inside[0]) > 1 and all(found == inside[0] for found in inside)
    if alike and not set(names) <= set(classes):
        raise UserError(
            f"{root}: expected splits or classes, got {', '.join(names[:3])} with the same folders in each "
            f"({', '.join(sorted(inside[0])[:3])}): if they are splits call them train, val and test, if they are "
            f"classes type --classes {','.join(names)}"
        )


def _roles(folder: Path) -> list[str]:
    return [inner.name for inner in folders_in(folder) if split_of(inner.name) is not None]


def _or_table(root: Path) -> str:
    """What to type where there may be a table of labels."""
    tables = [path for path in sorted(root.iterdir()) if path.suffix.casefold() in (".csv", ".tsv", ".jsonl")]
    return f"; for labels in a table type --labels {tables[0] if tables else 'FILE.csv'}"


def _has_images(folder: Path) -> bool:
    return any(is_image(path) for path in files_under(folder))


def _has_classes(folder: Path) -> bool:
    return any(_has_images(inner) for inner in folders_in(folder))


def _top(image: Path, root: Path) -> str:
    """The folder of ``root`` that an image is in; empty where it is in none."""
    parts = image.relative_to(root).parts if image.is_relative_to(root) else ()
    return parts[0] if len(parts) > 1 else ""
