"""How weights were made: the header says it all, and a folder's checksum changes with what is in it."""

import json
import shutil
import subprocess
from dataclasses import replace

import pytest

from corrlib import provenance, synthetic
from corrlib.losses import LossWeights
from corrlib.recipes import TrainConfig


def test_the_header_tells_what_it_takes_to_do_it_again(tmp_path, real_folder):
    for call in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "a"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *call], check=True)
    config = TrainConfig(real_videos=real_folder, seed=3)
    found = provenance.origin("do it", config, LossWeights(reconstruction=1.0), 17, tmp_path)
    assert all(isinstance(value, str) for value in found.values())
    assert TrainConfig(**json.loads(found["training"])) == config
    assert LossWeights(**json.loads(found["weights"])) == LossWeights(reconstruction=1.0)
    assert (found["command"], found["seed"], found["steps_done"], len(found["commit"])) == ("do it", "3", "17", 40)
    data = json.loads(found["data"])
    assert data == {"procedural": str(synthetic.VERSION), "real_videos": provenance.checksum(real_folder)}


def test_the_trainings_before_are_a_list_and_those_nested_once_are_unfolded():
    first, second = {"seed": "1"}, {"seed": "2", "started_from": json.dumps({"seed": "1"})}
    assert provenance.lineage(first) == [first]
    assert provenance.lineage(second) == [{"seed": "1"}, {"seed": "2"}]
    third = {"seed": "3", "started_from": json.dumps(second)}
    assert provenance.lineage(third) == [{"seed": "1"}, {"seed": "2"}, {"seed": "3"}]
    fourth = {"seed": "4", "started_from": json.dumps(provenance.lineage(third))}
    assert [each["seed"] for each in provenance.lineage(fourth)] == ["1", "2", "3", "4"]


def test_only_data_that_are_seen_are_named(tmp_path, real_folder):
    config = TrainConfig(real_videos="gone", texture_folder=real_folder)
    assert provenance.data(config, LossWeights()).keys() == {"procedural", "texture_folder"}
    config = TrainConfig(real_videos=real_folder)
    assert provenance.data(config, LossWeights(0.0, 0.0, 1.0)).keys() == {"real_videos"}
    (tmp_path / "FlyingChairs").mkdir()
    config = TrainConfig(labelled="flyingchairs", data_root=str(tmp_path))
    assert provenance.data(config, LossWeights()).keys() == {"flyingchairs"}
    assert provenance.data(replace(config, data_root="gone"), LossWeights()) == {"flyingchairs": "gone"}
    with pytest.raises(FileNotFoundError, match="checksum: no folder gone"):
        provenance.checksum("gone")


def test_a_checksum_is_of_what_is_there_and_not_of_where(tmp_path, real_folder):
    copy = shutil.copytree(real_folder, tmp_path / "copy")
    before = provenance.checksum(real_folder)
    assert provenance.checksum(copy) == before and len(before) == 64
    picture = copy / "a" / "0.png"
    data = picture.read_bytes()
    picture.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    changed = provenance.checksum(copy)
    picture.write_bytes(data)
    assert provenance.checksum(copy) == before
    picture.rename(copy / "a" / "9.png")
    assert len({before, changed, provenance.checksum(copy)}) == 3
