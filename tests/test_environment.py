"""The circumstances of a run are told, in a repository and outside one."""

import subprocess

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
    assert set(found["versions"]) == {"python", *environment.PACKAGES}
