"""How a server ends: in order when asked to, at once when asked twice."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from diffcache import Client, Generation, GenerationError, Progress, Result
from tests.system.serverprocess import ServerProcess, Zygote, draw_small, is_gone, read_ledger, serving_config, wait_for

LONG, SHORT = 1000, 10  # steps


def in_flight(client: Client, prompt: str, steps: int) -> Future[Generation]:
    """A request whose first step is done."""
    answer: Future[Generation] = Future()
    running = threading.Event()

    def draw() -> None:
        try:
            for event in client.stream(prompt, seed=7, steps=steps):
                running.set()
                if not isinstance(event, Progress):
                    answer.set_result(event)
        except GenerationError as error:
            answer.set_exception(error)
            running.set()

    threading.Thread(target=draw, daemon=True).start()
    assert running.wait(60)
    return answer


def test_what_is_too_long_for_the_grace_is_unavailable_and_the_cache_is_kept(zygote: Zygote, tmp_path: Path) -> None:
    config = serving_config(tmp_path / "data", index="Lite", drain_seconds=0.5)
    with ServerProcess.forked(zygote, config, tmp_path) as server, server.wait_ready().client() as client:
        first = draw_small(client, "red apple, noto style", seed=1)
        child = server.milvus_child()
        assert child is not None
        with server.watched_health() as health:
            answer = in_flight(client, "grinning cat", LONG)
            server.terminate()
            error = answer.exception(60)
            wait_for("the health's last word", lambda: health[-1] == "NOT_SERVING")
        assert isinstance(error, GenerationError)
        assert (error.code, error.retry_seconds) == ("UNAVAILABLE", 5.0)
        assert health == ["SERVING", "NOT_SERVING"]
        assert server.wait() == 0
        assert is_gone(child)
        assert server.events("stopped")
        assert "Traceback" not in server.stderr()

    again = config.model_copy(update={"listen": serving_config(tmp_path).listen})
    with ServerProcess.forked(zygote, again, tmp_path) as server, server.wait_ready().client() as client:
        (ready,) = server.events("ready")
        assert (ready["entries"], ready["states_missing"], ready["files_swept"]) == (1, 0, 0)
        same = draw_small(client, "red apple, noto style", seed=1)
        assert (same.result, same.data) == (Result.EXACT, first.data)
        near = draw_small(client, "a red apple, noto style", seed=2)
        assert (near.result, near.parent_entry_id) == (Result.APPROXIMATE, first.entry_id)


def test_what_ends_within_the_grace_is_answered_and_kept(zygote: Zygote, tmp_path: Path) -> None:
    config = serving_config(tmp_path / "data", drain_seconds=60.0)
    with ServerProcess.forked(zygote, config, tmp_path) as server, server.wait_ready().client() as client:
        answer = in_flight(client, "grinning cat", SHORT)
        server.terminate()
        generation = answer.result(60)
        assert (generation.result, generation.steps) == (Result.MISS, SHORT)
        assert server.wait() == 0
    assert read_ledger(config.data_dir, tmp_path / "copy", "SELECT id FROM entries") == [(generation.entry_id,)]


def test_new_requests_are_refused_while_others_drain(zygote: Zygote, tmp_path: Path) -> None:
    config = serving_config(tmp_path / "data", drain_seconds=60.0, index="Lite")
    with ServerProcess.forked(zygote, config, tmp_path) as server, server.wait_ready().client() as client:
        child = server.milvus_child()
        assert child is not None
        with server.watched_health() as health:
            answer = in_flight(client, "grinning cat", LONG)
            server.terminate()
            wait_for("NOT_SERVING", lambda: health[-1] == "NOT_SERVING")
        with pytest.raises(GenerationError) as refused:
            draw_small(client, "red apple", seed=1)
        assert (refused.value.code, refused.value.retry_seconds) == ("UNAVAILABLE", 5.0)
        assert not answer.done()

        server.terminate()  # the second signal
        assert server.wait() == 128 + 15
        error_of_first = answer.exception(60)
        assert isinstance(error_of_first, GenerationError)
        assert error_of_first.code == "UNAVAILABLE"
        wait_for("the Milvus Lite child to end with its parent", lambda: is_gone(child))
