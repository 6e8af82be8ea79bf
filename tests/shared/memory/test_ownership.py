"""Whose a file may be, and who may read what is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from other_user import NOBODY, need_root
from tandem.shared.errors import ForeignFile, TandemError
from tandem.shared.memory import ownership
from tandem.shared.memory.ownership import ANYONE, OWN, TRUSTED, is_allowed, open_file, own_folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small file of this user's."""
    path = tmp_path / "file"
    path.write_text("text", encoding="utf-8")
    return path


def test_an_own_file_is_opened(file: Path) -> None:
    """Reading and writing as asked, and the descriptor is not inherited."""
    descriptor = open_file(str(file), os.O_RDWR)
    assert os.read(descriptor, 10) == b"text"
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_another_name_for_a_file_is_refused(file: Path, make: object) -> None:
    """A link, symbolic or hard, may lead to a file that was never meant."""
    link = file.with_name("link")
    make(file, link)  # type: ignore[operator]
    for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND | os.O_CREAT):
        with pytest.raises(ForeignFile, match="link"):
            open_file(str(link), flags, ANYONE)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """Opening a pipe that nobody writes to would wait for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for flags in (os.O_RDONLY, os.O_WRONLY):
        with pytest.raises(ForeignFile, match="no regular file"):
            open_file(str(pipe), flags, ANYONE)


def test_another_users_file_is_refused_by_path_and_owner(file: Path) -> None:
    """Root is no exception; what is only looked at may be anyone's."""
    need_root()
    os.chown(file, NOBODY, NOBODY)
    for whose in (OWN, TRUSTED):
        with pytest.raises(ForeignFile, match="nobody") as caught:
            open_file(str(file), os.O_RDWR, whose)
        assert str(file) in str(caught.value)
        assert caught.value.owner == NOBODY
        assert isinstance(caught.value, (TandemError, PermissionError))
    os.close(open_file(str(file), os.O_RDONLY, ANYONE))


def test_root_is_trusted_but_is_not_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's engine may attach to root's instance; only its owner may stop it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert [is_allowed(uid, TRUSTED) for uid in (0, 1000, 1001)] == [True, True, False]
    assert [is_allowed(uid, OWN) for uid in (0, 1000, 1001)] == [False, True, False]


def test_a_folder_is_made_and_an_own_one_is_taken(tmp_path: Path) -> None:
    """With the folders above it; a link of one's own to another disk is fine."""
    own_folder(tmp_path / "a" / "b")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    own_folder(tmp_path / "link")
    own_folder(tmp_path / "none", make=False)
    assert not (tmp_path / "none").exists()


def test_another_users_folder_or_entry_is_refused(tmp_path: Path) -> None:
    """What a stranger put there would be followed or overwritten later."""
    need_root()
    folder = tmp_path / "data"
    own_folder(folder)
    (folder / "logs").symlink_to("/etc")
    os.lchown(folder / "logs", NOBODY, NOBODY)
    with pytest.raises(ForeignFile, match=r"logs belongs to user nobody"):
        own_folder(folder)
    (folder / "logs").unlink()
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(ForeignFile, match="data_dir"):
        own_folder(folder)


PRIVATE = """
import os, sys
from tandem.shared.memory import ownership
os.umask(int(sys.argv[1], 8))
ownership.be_private(sys.argv[2])
ownership.be_private(sys.argv[2])
os.chdir(sys.argv[3])
open("plain", "w").close()
os.close(ownership.open_file("log", os.O_WRONLY | os.O_CREAT))
ownership.own_folder("folder")
os.mkdir("folder/inner")
print(oct(ownership.users_umask()))
"""


@pytest.mark.parametrize("umask", ["0", "077", "0177"])
@pytest.mark.parametrize(("mode", "file_mode", "folder_mode"), [
    ("0600", 0o600, 0o700), ("0640", 0o640, 0o750), ("0660", 0o640, 0o750), ("0644", 0o644, 0o755)
])  # fmt: skip
def test_files_are_as_private_as_segments_whatever_the_umask(
    tmp_path: Path, umask: str, mode: str, file_mode: int, folder_mode: int
) -> None:
    """Who may read the memory may read the files, nobody else; an open file or folder from before is closed."""
    (tmp_path / "log").touch(0o666)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder").chmod(0o777)
    words = [sys.executable, "-c", PRIVATE, umask, mode, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == oct(int(umask, 8))
    for name, wanted in (
        ("plain", file_mode), ("log", file_mode), ("folder", folder_mode), ("folder/inner", folder_mode),
    ):  # fmt: skip
        assert oct((tmp_path / name).stat().st_mode & 0o777) == oct(wanted), name


def test_a_library_leaves_the_umask_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a process of Tandem's own asks, new folders and files have the mode that the host's umask gives."""
    monkeypatch.setattr(ownership, "_mask", -1)
    old = os.umask(0o022)
    try:
        own_folder(tmp_path / "folder")
        os.close(open_file(str(tmp_path / "file"), os.O_WRONLY | os.O_CREAT))
    finally:
        os.umask(old)
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
