"""What computed a run stands in its result, its manifest and its summary; fixed shapes change no vector."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from embedmill.base.config import EngineTable
from embedmill.base.errors import DeviceError
from embedmill.base.results import EngineFacts
from embedmill.engine.catalogue.entry import GraphChoice, Provider
from embedmill.jobs.embed import Embedder
from embedmill.jobs.job import Job
from embedmill.jobs.plan import plan_run
from embedmill.jobs.run import run
from embedmill.report.run import run_summary
from embedmill.sink.folder import read_manifest
from embedmill.sink.verify import verify
from tests.support.jobs import (
    assert_close,
    embedded,
    make_config,
    make_rows,
    parts_of,
    texts_of,
    tiny_bundle,
    vectors_of,
    write_jsonl,
)
from tests.support.works import CPU, ladder_of, with_graph

FIXED = structs.replace(CPU, shapes=ladder_of(8, 16, budget_tokens=64, most_rows=8), runs="one")
ASKED = {"provider": "cpu"}


def instead_of_the_cpu(monkeypatch: pytest.MonkeyPatch, provider: Provider) -> None:
    """The job's `cpu` is this provider."""
    monkeypatch.setattr("embedmill.tune.provider.find_provider", lambda *_: provider)


class TestFacts:
    def test_the_engine_of_a_run_stands_in_result_manifest_and_summary(self, tmp_path: Path, tiny_model: Path) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", make_rows(20))
        config = make_config(tiny_model, path, tmp_path / "out", engine={"streams": 2, "threads": 1, **ASKED})
        result = run(config, quiet=True)
        manifest = read_manifest(tmp_path / "out")
        assert manifest is not None
        assert isinstance(manifest.engine, EngineFacts)
        assert manifest.engine == result.engine
        facts = manifest.engine
        assert (facts.provider, facts.precision, facts.streams, facts.threads) == ("cpu", "fp32", 2, 1)
        assert facts.chosen == "asked for"
        [session] = facts.sessions
        assert (session.rows, session.sequence) == (0, 0)
        assert session.nodes_placed == session.nodes > 10
        assert session.canary_cosine == pytest.approx(1, abs=1e-6)
        assert "tiny, cpu fp32" in run_summary(result)

    def test_a_run_that_embeds_nothing_has_none(self, tmp_path: Path, tiny_model: Path) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", make_rows(5))
        config = make_config(tiny_model, path, tmp_path / "out")
        run(config, quiet=True)
        again = run(config, quiet=True)
        assert again.engine is None
        assert "nothing to do" in run_summary(again)

    def test_an_input_without_rows_needs_no_engine(self, tmp_path: Path, tiny_model: Path) -> None:
        (tmp_path / "a.jsonl").touch()
        result = run(make_config(tiny_model, tmp_path / "a.jsonl", tmp_path / "out"), quiet=True)
        manifest = read_manifest(tmp_path / "out")
        assert manifest is not None
        assert (result.engine, manifest.engine) == (None, None)


class TestFixedShapes:
    def test_they_give_the_same_vectors(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = make_rows(50)
        expected = embedded(tiny_model, texts_of(rows))
        instead_of_the_cpu(monkeypatch, FIXED)
        path = write_jsonl(tmp_path / "a.jsonl", rows)
        result = run(make_config(tiny_model, path, tmp_path / "out", shard={"rows": 20}, engine=ASKED), quiet=True)
        assert_close(vectors_of(tmp_path / "out"), expected)
        assert verify(tmp_path / "out").problems == []
        assert result.engine is not None
        shapes = [(session.rows, session.sequence) for session in result.engine.sessions]
        assert len(set(shapes)) == len(shapes)
        assert set(shapes) <= {(8, 8), (4, 16), (2, 32)}
        padded = result.totals.padded_tokens
        assert padded >= result.totals.tokens
        assert padded % 64 == 0

    def test_a_run_goes_on_in_other_shapes(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", make_rows(30))
        config = make_config(tiny_model, path, tmp_path / "out", shard={"rows": 10}, engine=ASKED)
        run(config, quiet=True)
        before = parts_of(tmp_path / "out")
        instead_of_the_cpu(monkeypatch, FIXED)
        assert run(config, quiet=True).rows_before == 30
        assert parts_of(tmp_path / "out") == before

    def test_a_plan_is_made_with_them(self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", make_rows(50))
        config = make_config(tiny_model, path, tmp_path / "out", engine={"budget_tokens": 64, **ASKED})
        any_shape = plan_run(config)
        instead_of_the_cpu(monkeypatch, FIXED)
        found = plan_run(config)
        assert found.speed_tokens_s > 0
        assert found.padding_share > any_shape.padding_share

    def test_texts_at_hand_are_embedded_with_them(self, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        texts = texts_of(make_rows(21))
        expected = embedded(tiny_model, texts)
        instead_of_the_cpu(monkeypatch, FIXED)
        with Embedder(str(tiny_bundle(tiny_model)), engine=EngineTable(provider="cpu")) as embedder:
            assert_close(embedder.embed(texts), expected)
            shapes = {(session.rows, session.sequence) for session in embedder._engine.facts().sessions}
        assert shapes
        assert shapes <= {(8, 8), (4, 16), (2, 32)}


class TestWrong:
    def test_a_provider_that_computes_wrongly_commits_nothing(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Half precision does not hold the floor of single precision."""
        instead_of_the_cpu(monkeypatch, with_graph(CPU, "unfused-fp16", floor=0.9999999))
        path = write_jsonl(tmp_path / "a.jsonl", make_rows(5))
        with pytest.raises(DeviceError, match=r"cpu fp32.* computes this model wrongly: .* is 0\.99"):
            run(make_config(tiny_model, path, tmp_path / "out", engine=ASKED), quiet=True)
        assert list((tmp_path / "out").glob("*.parquet")) == []

    def test_half_precision_holds_its_own_floor(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        half = GraphChoice(graph="fused-fp16", floor=0.999)
        instead_of_the_cpu(monkeypatch, structs.replace(FIXED, precisions={"fp16": half}))
        path = write_jsonl(tmp_path / "a.jsonl", make_rows(5))
        result = run(make_config(tiny_model, path, tmp_path / "out", engine=ASKED), quiet=True)
        assert result.engine is not None
        assert result.engine.precision == "fp16"
        assert all(0.999 <= session.canary_cosine < 1 for session in result.engine.sessions)


class TestSample:
    @pytest.mark.parametrize(("count", "lengths"), [(5, [3, 5, 7]), (2, [3, 4]), (1, [3]), (0, [])])
    def test_it_is_out_of_the_first_the_middle_and_the_last_shard(
        self, tmp_path: Path, tiny_model: Path, count: int, lengths: list[int]
    ) -> None:
        rows = [{"id": str(number), "text": " ".join(["river"] * (number // 10 + 1))} for number in range(50)]
        path = write_jsonl(tmp_path / "a.jsonl", rows)
        config = make_config(tiny_model, path, tmp_path / "out", shard={"rows": 10})
        job = Job(config)
        found = job.sample(job.plan()[:count])
        assert found.tokens.lengths.tolist() == lengths
        assert found.rows == 10 * len(lengths)
