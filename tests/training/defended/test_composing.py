"""Defenses by name, settings and composition: what they are called, and what is refused before anything starts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pplr_audit import scenario
from pplr_audit.errors import InputError
from pplr_audit.scenario import plugins
from pplr_audit.scenario.loading import dump, from_text, load
from pplr_audit.threat_model.channels import Channel
from pplr_audit.training.defending import UNDEFENDED, compose
from tests.toys import install_toys

FEDAVG = scenario.Training(strategy="fedavg")


@pytest.fixture(autouse=True)
def toys(install: Callable[..., Path]) -> None:
    install_toys(install)


def test_no_defense_is_no_defense() -> None:
    assert compose("none", FEDAVG) == compose(["none"], FEDAVG) == UNDEFENDED
    assert (UNDEFENDED.name, UNDEFENDED.at_cut, UNDEFENDED.removes, UNDEFENDED.acting("wire")) == (
        "none", False, frozenset(), (),
    )  # fmt: skip


def test_a_composition_has_one_name_and_says_what_it_is() -> None:
    entry = [{"clip": {"norm": 8.0, "noise": 0.5}}, "noise", "sums"]
    composed = compose(entry, FEDAVG)
    assert composed.name == "clip(noise=0.5,norm=8)+noise+sums"
    assert [type(each).__name__ for each in composed.defenses] == ["Clip", "Noise", "Sums"]
    assert (composed.defenses[0].norm, composed.defenses[1].scale) == (8.0, 0.01)  # type: ignore[attr-defined]
    assert composed.removes == {Channel.CLIENT_UPDATE}
    assert composed.holds_against == {"aggregator"}
    assert composed.at_cut
    assert [composed.acting(act) for act in ("sampler", "samples", "wire", "sum")] == [(0,), (0,), (1,), (2,)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("entry", "at_cut"), [("scale", False), ("clip", False), ("sums", False), ("noise", True), ("code", True)]
)
def test_only_what_acts_at_the_cut_needs_a_training_for_each_cut(entry: str, at_cut: bool) -> None:
    assert compose(entry, FEDAVG).at_cut is at_cut


MORE = '''"""More of them."""
from pplr_audit.threat_model import Channel, Defense


class Sums2(Defense):
    acts = frozenset({"sum"})
    removes = frozenset({Channel.CLIENT_UPDATE})
    def sum(self, updates, turn): ...


class Clip2(Defense):
    acts = frozenset({"samples"})
    def combine(self, gradients, heard, turn): ...


class Sampler(Defense):
    acts = frozenset({"sampler"})
    def batches(self, lengths, size, generator): ...


class Central(Defense):
    acts = frozenset({"updates"})
    def updates(self, updates, turn): ...


class Packs(Defense):
    acts, channels = frozenset({"wire"}), frozenset({Channel.CLIENT_UPDATE})
    def encode(self, crossing, turn): ...
    def decode(self, crossing, turn): ...


class Blurs(Packs):
    encode = Defense.encode
    def apply(self, crossing, turn): ...
'''


@pytest.mark.parametrize(
    ("entry", "training", "message"),
    [
        (["none", "noise"], {}, "none+noise: none is no defense and cannot be composed with others"),
        (["noise", {"noise": {"scale": 2}}], {}, "noise stands twice in one composition"),
        ("nois", {}, "unknown name 'nois'; did you mean 'noise'?"),
        ({"noise": {"sale": 2}}, {}, "noise: unknown setting 'sale'; did you mean 'scale'? (accepted: scale)"),
        (["clip", "clip2"], {}, "clip and clip2 both make the gradient of those of single samples: only one can"),
        (["clip", "sampler"], {}, "clip and sampler both draw the batches: only one can"),
        (["sums", "sums2"], {}, "sums and sums2 both sum the updates: only one can"),
        (["central", "sums"], {}, "central acts on each update at the server, to which sums leaves only the sum"),
        (["packs", "sums"], {}, "packs has a code of its own for each client_update, which sums takes away"),
        ("sums", {"averaging": "product"}, "training.averaging product needs each factor"),
        ("sums", {"strategy": "pplr"},
         "sums: sums leaves only the sum of the updates, and the strategy pplr needs each of them (strategies that need"
         " the sum only: ditto, fedavg, fedprox)"),
        ("sums", {"strategy": "local"}, "the strategy local needs each of them"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(
    install: Callable[..., Path], entry: object, training: dict[str, object], message: str
) -> None:
    kinds = ("Sums2", "Clip2", "Sampler", "Central", "Packs", "Blurs")
    points = "".join(f"{kind.lower()} = more_toys:{kind}\n" for kind in kinds)
    install("more-defenses", "0.1", f"[pplr_audit.defenses]\n{points}", more_toys=MORE)
    with pytest.raises(InputError) as refused:
        compose(entry, FEDAVG.model_copy(update=training))  # type: ignore[arg-type]
    assert str(refused.value).startswith("defenses: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    # The same goes through where nothing contradicts it.
    assert compose(["central", "blurs", "packs"], FEDAVG).name == "central+blurs+packs"
    assert compose(["blurs", "sums"], FEDAVG).removes == {Channel.CLIENT_UPDATE}
    assert compose("sums", scenario.Training(ablate=("balance",))).removes


BROKEN = {
    "lacks combine": ('acts = frozenset({"samples"})', "broken acts at 'samples' and lacks the hook combine"),
    "lacks decode": (
        'acts, channels = frozenset({"wire"}), frozenset({"status"})\n    def encode(self, crossing, turn): ...',
        "broken acts at 'wire' and lacks the hook decode",
    ),
    "lacks both": (
        'acts, channels = frozenset({"wire"}), frozenset({"status"})',
        "broken acts at 'wire' and lacks the hook apply",
    ),
    "no such place": ('acts = frozenset({"gradient"})', "acts: 'gradient'; did you mean 'gradients'?"),
    "no such channel": ('channels = frozenset({"statu"})', "channels: 'statu'; did you mean 'status'?"),
    "removes what cannot go": ('removes = frozenset({"status"})', "removes: 'status' (accepted: client_update)"),
    "no such unit": ('unit = "person"', "unit: 'person' (accepted: sample, user, client, vector)"),
    "no such adversary": ('holds_against = frozenset({"sever"})', "holds_against: 'sever'; did you mean 'server'?"),
    "no such neighbors": ('neighbors = "replaced"', "neighbors: 'replaced'; did you mean 'replace'?"),
    "no channels": (
        'acts = frozenset({"wire"})\n    def apply(self, crossing, turn): ...',
        "broken acts at 'wire' and names no channels",
    ),
    "removes without a sum": ('removes = frozenset({"client_update"})', "has removes and does not act at 'sum'"),
    "no set of places": ("acts = None", "broken: acts is None (accepted: a set of names)"),
    "a place without a set": ('acts = "gradients"', "broken: acts is 'gradients' (accepted: a set of names)"),
    "several units": ('unit = ["sample"]', "broken: unit is ['sample'] (accepted: a name or None)"),
    "is none": (None, "broken is a Broken and no pplr_audit.threat_model.Defense"),
}


@pytest.mark.parametrize("why", BROKEN)
def test_a_plugin_that_lacks_what_it_says_it_has_is_named(install: Callable[..., Path], why: str) -> None:
    body, message = BROKEN[why]
    base = "" if body is None else "(Defense)"
    code = f'"""Broken."""\nfrom pplr_audit.threat_model import Defense\n\n\nclass Broken{base}:\n    {body}\n'
    name = "broken_" + "".join(letter for letter in why if letter.isalpha())
    install("broken-defense", "0.2", f"[pplr_audit.defenses]\nbroken = {name}:Broken\n", **{name: code})
    with pytest.raises(InputError) as refused:
        compose("broken", FEDAVG)
    assert message in str(refused.value)
    assert str(refused.value).startswith("defenses: broken")


def test_a_scenario_takes_names_settings_and_compositions_and_keeps_them() -> None:
    text = "defenses: [none, noise, {noise: {scale: 0.5}}, [clip, {noise: {scale: 0.5}}]]\n"
    read = from_text(text)
    assert read.defenses == ("none", "noise", {"noise": {"scale": 0.5}}, ("clip", {"noise": {"scale": 0.5}}))
    assert from_text(dump(read)) == read
    assert "noise" in plugins.describe("defenses")


@pytest.mark.parametrize(
    ("defenses", "message"),
    [
        ("[none, nois]", "line 1: defenses[1]: unknown name 'nois'; did you mean 'noise'?"),
        ("[[clip, nois]]", "line 1: defenses[0][1]: unknown name 'nois'; did you mean 'noise'?"),
        ("[[none, noise]]", "line 1: defenses[0]: none is no defense and cannot be composed with others"),
        ("[[noise, {noise: {scale: 1}}]]", "line 1: defenses[0]: noise stands twice in one composition"),
        ("[noise, [noise]]", "line 1: defenses[1]: noise stands there twice"),
        ("[{none: {a: 1}}]", "line 1: defenses[0]: none takes no settings"),
        ("[[]]", "line 1: defenses[0]: [] is not accepted"),
        ("[3]", "line 1: defenses[0]: 3 is not accepted (accepted: a name, or a name with its settings"),
    ],
)
def test_a_scenario_with_defenses_that_cannot_be_is_refused_with_the_line(
    tmp_path: Path, defenses: str, message: str
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(f"defenses: {defenses}\n")
    with pytest.raises(InputError) as refused:
        load(str(file))
    assert message in str(refused.value)
