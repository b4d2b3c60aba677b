"""The circumstances of a run are told, in a repository and outside one."""

import math
import os
import platform
import subprocess
import sys

import pytest
import torch

from corrlib import environment


def test_commit_tells_changes_and_is_empty_outside_git(tmp_path):
    assert environment.commit(tmp_path) == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "a").write_text("1")
    for words in (["init", "-q"], ["add", "a"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    clean = environment.commit(tmp_path)
    assert len(clean) == 40
    (tmp_path / "a").write_text("2")
    assert environment.commit(tmp_path) == clean + "+changes"


def test_describe_is_plain(tmp_path):
    found = environment.describe(tmp_path)
    assert found["threads"] == 1 and found["peak_memory_mib"]["process"] > 10
    assert found["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert set(found["versions"]) == {"python", *environment.PACKAGES}


def test_measure_counts_the_call_alone():
    """Forty megabytes that were there before, and those given back before it ends, do and do not count."""
    before = torch.ones(10_000_000)
    answer, seconds, held = environment.measure(lambda: float(torch.ones(5_000_000).sum()))
    assert answer == 5e6 and 0 < seconds < 10 and len(before)
    assert math.isnan(held) or 19e6 < held < 30e6
    nothing = environment.measure(lambda: None)[2]
    assert math.isnan(nothing) or nothing < 2e6


def test_a_command_is_told_without_the_paths_of_this_machine(monkeypatch):
    given = ["corrlib", "train", "mine.safetensors", "--state", "/somewhere/a.state", "--set", "real_videos=/b/c"]
    monkeypatch.setattr(environment.sys, "argv", given)
    told = "python -m corrlib train mine.safetensors --state PATH --set real_videos=PATH"
    assert environment.called() == told


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_freed_memory_is_kept_at_hand():
    """Three arrays made and freed, again and again: the system is asked for their pages the first time alone."""
    code = """if True:
        import resource, sys, numpy as np
        from corrlib import environment
        if sys.argv[1] == "kept":
            environment.keep_freed_memory()
        def work():
            arrays = [np.ones(3 * 2**20, np.float32) for _ in range(3)]
        work()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            work()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    faults = {}
    for way in ("kept", "given back"):
        said = subprocess.run([sys.executable, "-c", code, way], capture_output=True, text=True, check=True, env=plain)
        faults[way] = int(said.stdout)
    assert faults["kept"] < 1000 < faults["given back"]


def test_what_is_told_lies_beside_its_file_whatever_dots_are_in_the_name(tmp_path):
    for given, expected in (("a.json", "a"), ("lr0.001.safetensors", "lr0.001"), ("lr0.001", "lr0.001")):
        assert environment.beside(tmp_path / given, ".history.jsonl") == tmp_path / f"{expected}.history.jsonl"


def test_a_package_that_is_not_installed_has_no_version(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("torch", "no-such-package"))
    assert environment.describe(tmp_path)["versions"]["no-such-package"] == ""
