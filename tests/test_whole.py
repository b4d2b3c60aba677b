"""Files and folders are there whole or not at all."""

import os
import shutil
import subprocess
import sys

import pytest

from corrlib.whole import new_folder, whole


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
    (tmp_path / ".masks.4194305.partial").mkdir()  # Linux numbers no process so high
    with whole(path) as partial:
        partial.mkdir()
        (partial / "new.png").touch()
        assert (path / "old.png").exists()
    assert [p.name for p in path.iterdir()] == ["new.png"] and list(tmp_path.iterdir()) == [path]


def test_a_file_never_takes_the_place_of_a_folder(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "precious.txt").touch()
    with pytest.raises(IsADirectoryError, match="results is a folder"), whole(tmp_path / "results") as partial:
        partial.write_text("weights")
    assert [p.name for p in tmp_path.rglob("*")] == ["results", "precious.txt"]


def test_a_kill_while_a_folder_is_replaced_loses_neither(tmp_path, monkeypatch):
    def killed(path):
        raise KeyboardInterrupt

    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "old.png").touch()
    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt), whole(tmp_path / "masks") as partial:
        partial.mkdir()
        (partial / "new.png").touch()
    assert sorted(p.name for p in tmp_path.rglob("*.png")) == ["new.png", "old.png"]
    assert [p.name for p in (tmp_path / "masks").iterdir()] == ["new.png"]


def test_another_process_that_writes_the_same_is_left_alone(tmp_path):
    theirs = tmp_path / ".a.txt.1.partial"  # the first process is always there
    theirs.write_text("half")
    with whole(tmp_path / "a.txt") as partial:
        partial.write_text("mine")
        assert str(os.getpid()) in partial.name
    assert theirs.read_text() == "half" and (tmp_path / "a.txt").read_text() == "mine"


def test_a_folder_is_its_makers_until_that_ends(tmp_path):
    code = "import sys; from pathlib import Path; from corrlib.whole import new_folder; new_folder(Path(sys.argv[1]));"
    call = [sys.executable, "-c", code + "(Path(sys.argv[1]) / 'theirs').touch(); print(flush=True); input()"]
    with subprocess.Popen([*call, tmp_path / "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ValueError, match="another process is writing"):
            new_folder(tmp_path / "run")
        assert (tmp_path / "run" / "theirs").exists()
        other.kill()
    for _ in range(2):  # one's own may be made again
        new_folder(tmp_path / "run")
        assert not list((tmp_path / "run").iterdir())
        (tmp_path / "run" / "mine").touch()
