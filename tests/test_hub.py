"""A mistyped folder is refused at once, and the hub is asked no more than once."""

import socket
import time

import pytest

from milepost.engines.transformers.loading import load_config, load_model
from milepost.errors import ModelLoadError
from milepost.hub import refuse_missing_path, uses_only_local_files

# Long enough for a slow machine, short for the client of the hub, which goes on asking for 23 seconds.
AT_ONCE_SECONDS = 10.0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "models" / "qwen").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def silent_hub(monkeypatch):
    """Where no hub answers: a port that nobody listens at, and count who knocks."""
    from huggingface_hub import constants

    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/{revision}/{filename}"
        )
        yield address


@pytest.mark.parametrize(
    "name",
    [
        "./no-such",
        "../no-such",
        "/no/such",
        "~nobody/model",
        "models/qwen/deeper/still",
        "models/qwen/config.json",
        "qwen.json",
        "models/",
        "mödels/qwen",
        r"C:\models\qwen",
        "two words",
        "long" * 2000,
        "nul\0",
    ],
)
def test_what_can_only_be_a_path_is_refused_without_asking_anybody(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("asked"))
    for open_it in (refuse_missing_path, uses_only_local_files, load_config, load_model):
        with pytest.raises(ModelLoadError, match="there is no folder or file"):
            open_it(name)


@pytest.mark.parametrize("name", ["model.gguf", "./models/MODEL.GGUF"])
def test_of_a_gguf_file_that_is_not_there_a_gguf_file_is_asked_for(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelLoadError, match=r"no folder or file .*; give the path of a GGUF file"):
        refuse_missing_path(name)
    with pytest.raises(ModelLoadError, match="give the folder of a transformers tokenizer"):
        refuse_missing_path("./model.gguf", kind="tokenizer")


def test_an_empty_name_is_not_the_folder_one_is_in():
    with pytest.raises(ModelLoadError, match="there is no folder or file ''"):
        refuse_missing_path("")


@pytest.mark.parametrize("name", ["gpt2", "Qwen/Qwen3.5-0.8B", "org_1/name.v2-x"])
def test_what_can_be_a_hub_id_is_left_to_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuse_missing_path(name)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("modles/qwen", "models/qwen"), ("models/qwne", "models/qwen"), ("./models/qwn", "models/qwen")],
)
def test_the_folder_that_was_meant_is_named(folder, silent_hub, given, meant):
    with pytest.raises(ModelLoadError, match=f"did you mean {meant}"):
        uses_only_local_files(given)


def test_nothing_is_suggested_where_nothing_comes_close(folder, silent_hub):
    with pytest.raises(ModelLoadError) as caught:
        uses_only_local_files("something/else")
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("open_it", [load_config, load_model])
def test_a_silent_hub_is_asked_once(folder, silent_hub, open_it):
    began = time.monotonic()
    with pytest.raises(ModelLoadError) as caught:
        open_it("modles/qwen")
    assert time.monotonic() - began < AT_ONCE_SECONDS
    assert "there is no folder 'modles/qwen'" in str(caught.value)
    assert f"cannot be looked up ({silent_hub}" in str(caught.value)


def test_offline_mode_is_named(folder, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelLoadError, match="HF_HUB_OFFLINE is set"):
        load_config("some/model")


def test_what_was_downloaded_before_opens_while_the_hub_is_silent(folder, silent_hub, monkeypatch):
    from huggingface_hub import constants
    from transformers import LlamaConfig

    repository = folder / "cache" / "models--some--model"
    LlamaConfig(hidden_size=64).save_pretrained(repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    assert uses_only_local_files("some/model")
    assert load_config("some/model").hidden_size == 64


def test_a_folder_is_there(folder):
    assert uses_only_local_files("models/qwen")
    assert uses_only_local_files(folder / "models")
