"""A session runs on the provider that was asked for, with every node there, or says what is wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from embedmill.base.errors import DeviceError
from embedmill.engine.catalogue import PROVIDERS
from embedmill.engine.catalogue.entry import Fault, Plugin, Provider
from embedmill.engine.sessions import session as session_module
from embedmill.engine.sessions.session import Session, runtime_failure
from tests.support.fake_devices import device_of, runtime_device
from tests.support.fake_runtime import MOON, STRICT, Crowd, Runtime, runtime
from tests.support.plans import batch_of, plan_of
from tests.support.works import provider_of, tokens_of, with_graph

__all__ = ["runtime"]

GRAPH = Path("nowhere/fused.onnx")
STRAYS = {(MOON, "MatMul"): 5, ("CPUExecutionProvider", "Erf"): 2, ("CPUExecutionProvider", "Cast"): 1}


def open_session(provider: Provider, *, strict: bool = False, **options: Any) -> Session:
    plan = plan_of(GRAPH, strict=strict, session={STRICT: "1"} if strict else {})
    return Session(plan, provider, pad_id=0, **options)


def together(*calls: Callable[[], Any]) -> None:
    """Run calls at the same time, and wait for them."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)


def test_every_node_on_the_device_is_counted(runtime: Runtime) -> None:
    session = open_session(provider_of(), strict=True)
    assert (session.nodes, session.nodes_placed) == (5, 5)


@pytest.mark.parametrize("strict", [True, False], ids=["by the runtime", "by us"])
def test_nodes_on_the_cpu_are_refused_by_the_names_of_their_operators(runtime: Runtime, strict: bool) -> None:
    runtime.nodes = STRAYS
    with pytest.raises(DeviceError) as refused:
        open_session(provider_of(), strict=strict)
    assert str(refused.value) == (
        f"moon cannot run {GRAPH}: it leaves operators to the CPU (1 x Cast, 2 x Erf);"
        " it runs the fused graph of a model: export this one without them, or choose another --provider"
    )


def test_a_strict_session_that_fails_for_another_reason_tells_that_one(runtime: Runtime) -> None:
    def refuse(graph: Path, options: ort.SessionOptions) -> None:
        raise RuntimeError("no memory left")

    runtime.refuse = refuse
    with pytest.raises(DeviceError, match=r"moon cannot run .*: no memory left$"):
        open_session(provider_of(), strict=True)


def test_operators_that_the_entry_leaves_to_the_cpu_are_no_strays(runtime: Runtime) -> None:
    runtime.nodes = STRAYS
    session = open_session(provider_of(on_cpu=frozenset({"Erf", "Cast"})))
    assert (session.nodes, session.nodes_placed) == (8, 5)
    with pytest.raises(DeviceError, match=r"\(2 x Erf\)"):
        open_session(provider_of(on_cpu=frozenset({"Cast"})))


def test_a_provider_that_takes_no_node_is_refused(runtime: Runtime) -> None:
    runtime.nodes = {("CPUExecutionProvider", "MatMul"): 5, ("CPUExecutionProvider", "Erf"): 2}
    with pytest.raises(DeviceError, match=r"moon cannot run .*: it took none of the 7 nodes$"):
        open_session(provider_of(on_cpu=frozenset({"MatMul", "Erf"})))


def test_a_session_without_the_provider_is_refused(runtime: Runtime) -> None:
    runtime.providers = ["CPUExecutionProvider"]
    with pytest.raises(DeviceError, match="moon was asked for, and ONNX Runtime opened the session without it"):
        open_session(provider_of())


def test_a_runtime_that_cannot_tell_counts_no_node(runtime: Runtime) -> None:
    runtime.tells = False
    session = open_session(provider_of(), strict=True)
    assert (session.nodes, session.nodes_placed) == (0, 0)


def test_the_runtime_may_not_fall_back_by_itself(runtime: Runtime) -> None:
    open_session(provider_of(), strict=True)
    [(graph, _, arguments)] = runtime.opened
    assert graph == GRAPH
    assert arguments == {"enable_fallback": 0, "providers": [(MOON, {})]}
    assert runtime.entries(STRICT, "session.record_ep_graph_assignment_info") == [("1", "1")]


def test_a_provider_of_two_precisions_names_both_of_its_graphs(runtime: Runtime) -> None:
    runtime.nodes = STRAYS
    half = with_graph(provider_of(), "fused-fp16", precision="fp16").precisions
    with pytest.raises(DeviceError, match="it runs the fused or fused-fp16 graph of a model"):
        open_session(provider_of(precisions=provider_of().precisions | half))


@pytest.mark.parametrize("preload", [True, False])
def test_libraries_in_python_packages_are_loaded_where_the_provider_needs_them(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, preload: bool
) -> None:
    loaded: list[bool] = []
    monkeypatch.setattr(ort, "preload_dlls", lambda: loaded.append(True))
    open_session(provider_of(preload=preload))
    assert loaded == [True] * preload


class TestPlugin:
    PROVIDER = provider_of(plugin=Plugin(module="lunar"), note="it needs a telescope")

    def devices(self, monkeypatch: pytest.MonkeyPatch, *found: Any) -> list[Any]:
        """The devices that were given to a session."""
        given: list[Any] = []

        def give(options: ort.SessionOptions, chosen: list[Any], settings: dict[str, str]) -> None:
            given.append((chosen, settings))

        monkeypatch.setattr(session_module, "runtime_devices", lambda _: list(found))
        monkeypatch.setattr(ort.SessionOptions, "add_provider_for_devices", give)
        return given

    def test_it_is_given_the_device_that_was_chosen(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        near, far = runtime_device(Description="near"), runtime_device(Description="far")
        given = self.devices(monkeypatch, near, far)
        plan = plan_of(GRAPH, options={"tide": "high"})
        Session(plan, self.PROVIDER, pad_id=0, device=device_of(1))
        assert given == [([far], {"tide": "high"})]
        assert runtime.opened[0][2] == {"enable_fallback": 0}

    def test_without_a_device_it_is_refused_with_what_it_needs(
        self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.devices(monkeypatch)
        with pytest.raises(DeviceError, match="moon finds no device on this machine; it needs a telescope"):
            open_session(self.PROVIDER)

    def test_an_option_that_it_refuses_is_a_device_error(
        self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise RuntimeError("unknown option 'tide'\nmore")

        monkeypatch.setattr(session_module, "runtime_devices", lambda _: [runtime_device()])
        monkeypatch.setattr(ort.SessionOptions, "add_provider_for_devices", refuse)
        with pytest.raises(DeviceError, match=r"moon cannot run .*: unknown option 'tide'$"):
            open_session(self.PROVIDER)

    def test_a_device_that_went_away_meanwhile_is_a_device_error(
        self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.devices(monkeypatch, runtime_device())
        with pytest.raises(DeviceError, match="moon"):
            open_session(self.PROVIDER, device=device_of(1))


class TestTurns:
    """Who may compute at the same time."""

    def crowd(self, runtime: Runtime) -> Crowd:
        crowd = Crowd()
        runtime.before_run = runtime.on_open = crowd.visit
        return crowd

    def use(self, *sessions: Session) -> None:
        tokens, batch = tokens_of([[2, 3]]), batch_of(0, sequence=2)
        together(*[lambda one=one: one.run(tokens, batch) for one in sessions for _ in range(3)])

    def test_side_by_side_a_session_runs_many_batches(self, runtime: Runtime) -> None:
        crowd, session = self.crowd(runtime), open_session(provider_of(runs="cores"))
        self.use(session)
        assert crowd.most > 1

    def test_one_at_a_time_holds_for_each_session(self, runtime: Runtime) -> None:
        crowd, session = self.crowd(runtime), open_session(provider_of(runs="one"))
        self.use(session)
        assert crowd.most == 1
        self.use(session, open_session(provider_of(runs="one")))
        assert crowd.most == 2

    def test_an_adapter_serves_one_session_at_a_time_opening_included(self, runtime: Runtime) -> None:
        crowd, provider = self.crowd(runtime), provider_of(runs="adapter")
        one, two = open_session(provider), open_session(provider)
        together(lambda: self.use(one, two), lambda: open_session(provider), lambda: open_session(provider))
        assert len(runtime.opened) == 4
        assert crowd.most == 1


MEANINGS = {"out of memory": "lower engine.budget_tokens", "device lost": "run again", "driver too old": "update it"}


def failure(provider: Provider, said: str) -> str:
    return str(runtime_failure(provider, RuntimeError(said), "failed"))


class TestFaults:
    @pytest.mark.parametrize(
        ("code", "remedy"),
        [("8007000E", "lower engine.budget_tokens"), ("887A0005", "run again"), ("887A0004", "update it")],
    )
    def test_a_code_is_known_in_any_language(self, code: str, remedy: str) -> None:
        [directml] = [provider for provider in PROVIDERS if provider.name == "directml"]
        said = f"Fehler {code}: Die GPU-Geräteinstanz wurde angehalten. 显存不足\nmehr"
        message = failure(directml, said)
        assert message.startswith(
            f"directml failed: Fehler {code}: Die GPU-Geräteinstanz wurde angehalten. 显存不足 (the d"
        )
        assert remedy in message

    def test_a_code_in_a_later_line_counts(self) -> None:
        provider = provider_of(faults=(Fault(pattern="887A0005", meaning="device lost"),))
        assert "the device was lost" in failure(provider, "it failed\n  code 887A0005")

    def test_words_without_a_code_have_no_remedy(self) -> None:
        provider = provider_of(faults=(Fault(pattern="8007000E", meaning="out of memory"),))
        assert failure(provider, "out of memory, device lost") == "moon failed: out of memory, device lost"

    @pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
    @pytest.mark.parametrize(
        "said", ["bfc_arena.cc:360 Failed to allocate memory for requested buffer of size 37748736", "std::bad_alloc"]
    )
    def test_what_the_runtime_itself_cannot_allocate_is_known_with_every_provider(
        self, provider: Provider, said: str
    ) -> None:
        assert "out of memory" in failure(provider, said)

    def test_every_meaning_has_its_remedy(self) -> None:
        for meaning, remedy in MEANINGS.items():
            provider = provider_of(faults=(Fault(pattern="X1", meaning=meaning),))  # type: ignore[arg-type]
            assert remedy in failure(provider, "X1")

    def test_a_failing_batch_tells_the_remedy(self, runtime: Runtime) -> None:
        def fail() -> None:
            raise RuntimeError("Возникла ошибка 887A0006")

        runtime.before_run = fail
        provider = provider_of(faults=(Fault(pattern="887A0006", meaning="device lost"),))
        with pytest.raises(DeviceError) as failed:
            open_session(provider).run(tokens_of([[2, 3]]), batch_of(0, sequence=2, size=4))
        assert str(failed.value) == (
            "moon failed on a batch of 4 x 2 tokens: Возникла ошибка 887A0006 (the device was lost (its driver reset"
            " it); run again, and update its driver if it happens again); the run can be resumed"
        )


def test_rows_that_fill_up_a_fixed_shape_are_cut_off_again(runtime: Runtime) -> None:
    session = open_session(provider_of())
    vectors = session.run(tokens_of([[2, 3], [2, 4, 3]]), batch_of(1, 0, sequence=8, size=16))
    np.testing.assert_array_equal(vectors, np.ones((2, 2), np.float32))
