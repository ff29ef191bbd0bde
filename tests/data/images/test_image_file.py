from pathlib import Path

import pytest

from buttress.data.images.image_file import FileTable, TarMember, size_of


def test_files_of_any_name_come_back():
    files = [Path("a/b.png"), Path("dir/später \udce9.jpg"), Path("x" * 50)]
    kept = FileTable(files)
    assert [kept[row] for row in range(len(kept))] == files
    assert len(FileTable([])) == 0


def test_members_come_back():
    members = [TarMember("b.tar", "1.png", 512, 7), TarMember("a.tar", "1.png", 1536, 2**40)]
    kept = FileTable(members)
    assert [kept[row] for row in range(len(kept))] == members


def test_a_member_is_read_by_its_place(tmp_path):
    archive = tmp_path / "a.tar"
    archive.write_bytes(b"....inside..")
    member = TarMember(str(archive), "x", 4, 6)
    assert member.read_bytes() == b"inside"
    assert (size_of(member), size_of(archive)) == (6, 12)
    with pytest.raises(OSError, match="the archive ends before x"):
        TarMember(str(archive), "x", 4, 60).read_bytes()
