"""Files are written within their folder, whatever has been put into their place."""

import os
import stat

import pytest

from search_space import files


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text("mine")
    return path


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    return folder


def test_a_file_is_replaced_whole_with_the_permissions_of_any_new_one(run):
    path = run / "a.json"
    before = os.umask(0o027)
    try:
        files.write_whole(path, "one")
        files.write_whole(path, b"\x00two")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"\x00two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(run) == ["a.json", "model"] or set(os.listdir(run)) == {
        "a.json", "model",
    }  # fmt: skip


@pytest.mark.parametrize("draft", [False, True])
def test_a_link_is_replaced_and_what_it_points_at_stays(run, secret, draft):
    path = run / "a.json"
    path.symlink_to(secret)
    if draft:  # where a killed process of this number would have left its draft
        (run / f".a.json.{os.getpid()}").symlink_to(secret)
    files.write_whole(path, "new")
    assert secret.read_text() == "mine"
    assert not path.is_symlink()
    assert path.read_text() == "new"


def test_a_hard_link_is_replaced_and_the_other_name_stays(run, secret):
    path = run / "a.json"
    path.hardlink_to(secret)
    files.write_whole(path, "new")
    assert (secret.read_text(), path.read_text()) == ("mine", "new")


def test_no_folder_below_the_one_named_may_be_a_link(tmp_path, run, secret):
    (run / "model").rmdir()
    (run / "model").symlink_to(tmp_path)
    with pytest.raises(OSError, match="model/secret"):
        files.write_whole(run / "model" / "secret", "new", within=run)
    assert secret.read_text() == "mine"
    with pytest.raises(NotADirectoryError, match="must be a folder"):
        files.make_folder(run / "model")


def test_the_folder_that_is_named_may_be_a_link(tmp_path, run):
    latest = tmp_path / "latest"
    latest.symlink_to(run)
    files.write_whole(latest / "model" / "a", "new", within=latest)
    assert (run / "model" / "a").read_text() == "new"


@pytest.mark.parametrize("what", ["pipe", "folder", "device", "link to a device"])
def test_what_is_no_file_is_not_replaced(run, what):
    path = run / "a"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "device":
        path = run.parent / "null"
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("makes a device, which needs root")
    else:
        path.symlink_to("/dev/null")
    before = path.lstat()
    with pytest.raises(OSError, match="no file"):
        files.write_whole(path, "new")
    assert path.lstat().st_ino == before.st_ino
    assert path.lstat().st_mode == before.st_mode


def test_what_is_added_to_is_a_file_of_this_folder_alone(run, secret):
    linked, second, pipe = run / "linked", run / "second", run / "pipe"
    linked.symlink_to(secret)
    second.hardlink_to(secret)
    os.mkfifo(pipe)
    for path in (linked, second, pipe):
        with pytest.raises(OSError):  # noqa: PT011  (the system's words)
            files.open_in_place(path)
    assert secret.read_text() == "mine"
    with files.open_in_place(run / "new") as file:
        file.write(b"a")
    with files.open_in_place(run / "new") as file:
        file.write(b"b")
    assert (run / "new").read_bytes() == b"ab"
    with pytest.raises(FileNotFoundError):
        files.open_in_place(run / "other", create=False)


def test_what_is_neither_file_nor_folder_is_found_at_any_depth(run, secret):
    deep = run / "last" / "5" / "state"
    deep.mkdir(parents=True)
    (deep / "data").write_text("x")
    assert list(files.strange(run)) == []
    (deep / "link").symlink_to(secret)
    os.mkfifo(run / "pipe")
    (run / "dangling").symlink_to("nowhere")
    found = set(files.strange(run))
    assert found == {deep / "link", run / "pipe", run / "dangling"}
