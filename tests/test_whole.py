"""Files and folders are there whole or not at all."""

import pytest

from corrlib.whole import whole


def test_a_file_takes_its_name_when_all_of_it_is_there(tmp_path):
    path = tmp_path / "a" / "b.txt"
    with whole(path) as partial:
        partial.write_text("one")
        assert not path.exists() and partial.parent == path.parent
    assert path.read_text() == "one" and list(path.parent.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "b.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), whole(path) as partial:
        partial.write_text("half")
        1 / 0  # noqa: B018
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_a_folder_and_what_a_kill_left(tmp_path):
    path = tmp_path / "masks"
    path.mkdir()
    (path / "old.png").touch()
    (tmp_path / ".masks.partial").mkdir()
    with whole(path) as partial:
        partial.mkdir()
        (partial / "new.png").touch()
        assert (path / "old.png").exists()
    assert [p.name for p in path.iterdir()] == ["new.png"] and list(tmp_path.iterdir()) == [path]
