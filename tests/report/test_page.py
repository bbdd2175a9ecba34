"""The page and its files: whole, safe, complete by themselves, and with the simulation's own numbers."""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image
import pytest

from milepost.errors import ConfigurationError
from milepost.footprint import Footprint, PrefillCost
from milepost.report import study_trace, write_report
from milepost.report.figures import FIGURES
from milepost.report.page import Provenance, render_page
from milepost.report.palette import COLOURS, PARTS, looks
from milepost.report.study import focus_of
from milepost.simulator import Setting, nominal_footprint, simulate
from milepost.traces import open_trace

TRACE = "synthetic:documents,requests=40,seed=3"
POLICIES = ("learned", "tail+junction")
CAPACITIES = (20_000, 60_000)
HOSTILE = "<script>alert(1)</script>\"'&amp;$x$ " + "é" * 3 + "\udce9"
VOID = {"meta", "br", "wbr", "link", "img", "input", "hr"}
NAMES = ("frontier", "overlaps", "placements", "losses", "prefill")


class Page(HTMLParser):
    """Checks that every element is closed in order, and keeps what tests ask for."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data

    def words(self) -> str:
        """All text, blanks of every kind and number as one."""
        return " ".join(" ".join(self.text).split())


def settings_of(policies=POLICIES, capacities=CAPACITIES):
    return [
        Setting(policy=policy, capacity_kv_tokens=capacity, footprint=nominal_footprint(1536))
        for capacity in capacities
        for policy in policies
    ]


def a_study(trace=TRACE, *, name=None, **options):
    cost = options.pop("cost", PrefillCost.tokens())
    return study_trace(open_trace(trace), settings_of(**options), cost=cost, name=name)


def page_of(study) -> Page:
    return Page(render_page([study], ["trace"], Provenance(command="milepost report", versions=[])))


@pytest.fixture(scope="module")
def study():
    return a_study(name=HOSTILE)


@pytest.fixture(scope="module")
def written(study, tmp_path_factory):
    return write_report([study], tmp_path_factory.mktemp("report"), command=f"milepost report '{HOSTILE}'")


@pytest.fixture(scope="module")
def markup(written):
    return written[0].read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(markup):
    return Page(markup)


def test_the_page_loads_nothing_and_runs_nothing(page, markup):
    assert not {"script", "link", "iframe", "object", "img", "base"} & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action", "data", "poster"):
            address = attributes.get(name) or "#"
            assert address.startswith("#") or (tag == "a" and address.startswith("figures/"))
    assert "://" not in markup
    assert "@import" not in markup
    assert re.findall(r"url\((?!#)", markup) == []


def test_what_a_trace_is_called_is_text_and_nothing_else(page, markup):
    assert "<script" not in markup
    assert "<script>alert(1)</script>" in page.words()
    assert "\\udce9" in page.words(), "what is not text is written out"


def test_ids_are_unique_and_every_reference_finds_one(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "href"):
            target = attributes.get(name) or ""
            if name == "aria-labelledby" or target.startswith("#"):
                assert set(target.replace("#", "").split()) <= set(ids)
        for value in attributes.values():
            assert set(re.findall(r"url\(#([^)]*)\)", value or "")) <= set(ids)


def test_every_figure_is_there_in_both_shapes_with_words_for_it_and_a_table(page):
    drawings = [attributes for _, attributes in page.elements if attributes.get("role") == "img"]
    assert len(drawings) == len(FIGURES) == len(NAMES)
    assert all(len(attributes["aria-label"]) > 60 for attributes in drawings)
    shapes = [
        attributes["class"] for tag, attributes in page.elements if tag == "svg" and "class" in attributes
    ]
    assert shapes == ["wide", "narrow"] * len(FIGURES)
    assert len(page.tables) == len(FIGURES)
    assert all(len({len(row) for row in table}) == 1 and len(table) > 1 for table in page.tables)


def test_drawings_take_their_colours_from_the_page(page, markup):
    assert len({colour.light for colour in COLOURS.values()}) == len(COLOURS)
    drawn = "".join(re.findall(r"<svg class.*?</svg>", markup, flags=re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawn)) == set()
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", drawn))
    assert used <= set(COLOURS)
    assert {"ink", "reused", "policy-0", "policy-8"} <= used


def test_the_numbers_are_those_of_the_simulation(page, study):
    frontier = {(row[0], row[1]): row for row in page.tables[0][1:]}
    for policy in POLICIES:
        for capacity in CAPACITIES:
            alone = simulate(
                open_trace(TRACE), policy=policy, capacity_kv_tokens=capacity, checkpoint_kv_tokens=1536
            )
            row = frontier[policy, f"{capacity:,}"]
            assert row[2] == f"{100 * alone.reused_fraction:.2f}\xa0%"
            assert row[3] == f"{alone.reused_tokens:,}"
            assert row[5] == f"{alone.mean_checkpoints_per_request:.3f}"
            lost = [getattr(alone.lost, part) for part in ("unseen", "placement", "eviction", "alignment")]
            assert row[6:] == [f"{100 * tokens / alone.input_tokens:.2f}\xa0%" for tokens in lost]
    best = study.ranked()[0]
    words = page.words()
    assert f"{100 * best.reused_fraction:.1f} % of all prompt tokens" in words
    assert f"endless memory could {100 * best.ceiling_fraction:.1f} %" in words


def test_what_is_watched_adds_up_to_the_sums_at_the_focus(study):
    assert study.focus_kv_tokens == focus_of(CAPACITIES) == CAPACITIES[0]
    for view in study.views:
        run, total = study.at_focus(view.policy), view.losses.total()
        assert total.reused == run.reused_tokens
        assert [getattr(total, part) for part in list(PARTS)[1:]] == [
            getattr(run.lost, part) for part in list(PARTS)[1:]
        ]
        assert sum(total.share(part) for part in PARTS) == pytest.approx(1)
        mean = view.prefill.summary().mean
        assert mean * run.num_requests == pytest.approx(run.input_tokens - run.reused_tokens)
        for prompt in view.sample.prompts:
            assert 0 <= prompt.resume_position <= prompt.reached_position <= prompt.usable_position
            assert prompt.usable_position <= prompt.overlap_depth <= prompt.num_tokens
    assert study.overlaps.num_shared + study.overlaps.num_unshared == study.num_requests
    assert study.lengths.total == study.num_requests


def test_what_prompts_cost_without_a_cache_is_said_once(study):
    assert [name for name, _ in study.prefills] == ["none", *POLICIES]
    compared = a_study(policies=("learned", "none"), capacities=CAPACITIES[:1])
    assert [name for name, _ in compared.prefills] == ["learned", "none"]
    assert dict(compared.prefills)["none"].summary() == compared.cold.summary()


def test_each_figure_is_also_a_picture_and_a_drawing(written):
    names = sorted(path.name for path in written[1:])
    stem = "script-alert-1-script-amp-x"
    assert names == sorted(f"{stem}-{name}.{kind}" for name in NAMES for kind in ("svg", "png"))
    for path in written[1:]:
        if path.suffix == ".svg":
            root = ElementTree.parse(path).getroot()
            assert root.tag.endswith("svg")
            assert len(list(root.iter())) > 50
        else:
            picture = matplotlib.image.imread(path)
            assert picture.shape[1] == 1728
            assert picture.std() > 0.02


def test_the_page_says_how_to_make_it_again_and_with_what(page):
    words = page.words()
    assert "milepost report" in words
    for name in ("milepost", "matplotlib", "numpy", "python"):
        assert re.search(rf"\b{name} \S*[0-9]", words)


EDGES = {
    "one request": ("synthetic:documents,requests=1", ("learned",), (50_000,)),
    "nothing placed": ("synthetic:documents,requests=8", ("none",), (50_000, 60_000)),
    "nothing shared": ("synthetic:system-prompts,requests=2", ("tail", "none"), (50_000,)),
    "only the future": ("synthetic:chat,requests=12", ("clairvoyant",), (20_000,)),
    "a policy with a long name": (
        "synthetic:chat,requests=12",
        ("tensorrt:start=512+1024,end=64+192,every=4096", "clairvoyant", "dense:64"),
        (5_000, 6_000),
    ),
}


@pytest.mark.parametrize("edge", EDGES)
def test_edges_of_what_can_be_asked_still_make_a_whole_page(edge):
    trace, policies, capacities = EDGES[edge]
    page = page_of(a_study(trace, policies=policies, capacities=capacities))
    assert len(page.tables) == len(FIGURES)
    assert "nan" not in page.words().lower().split()


@pytest.mark.parametrize(("capacity", "said"), [(50_000, "points above it"), (200_000, "points from it")])
def test_how_far_who_knows_the_future_is_away_is_said_in_either_direction(capacity, said):
    """In memory for two prompts it is no bound: it takes one prompt and one victim at a time."""
    studied = a_study(
        "synthetic:agents,requests=300,seed=1", policies=("learned", "clairvoyant"), capacities=(capacity,)
    )
    assert said in page_of(studied).words()


def test_several_traces_share_a_page_with_an_overview(study, tmp_path, monkeypatch):
    monkeypatch.setattr("milepost.report.page.FIGURES", FIGURES[:1])
    monkeypatch.setattr("milepost.report.writing.FIGURES", FIGURES[:1])
    paths = write_report([study, study], tmp_path, command="milepost report")
    page = Page(paths[0].read_text(encoding="utf-8"))
    assert [row[0] for row in page.tables[0]] == ["trace", *[HOSTILE.replace("\udce9", "\\udce9")] * 2]
    assert len({path.name for path in paths}) == len(paths) == 5
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_memory_is_in_bytes_and_work_in_flops_where_a_model_says_so():
    cost = PrefillCost(unit="flops", linear_per_token=2e9, attention_per_pair=1e5)
    footprint = Footprint(checkpoint_bytes=30 << 20, kv_bytes_per_token=20_480, cost=cost)
    settings = [Setting(policy="learned", capacity_kv_tokens=(1 << 30) // 20_480, footprint=footprint)]
    studied = study_trace(open_trace(TRACE), settings, cost=cost, footprint=footprint)
    words = page_of(studied).words()
    assert "With 1 GiB," in words
    assert re.search(r"Half of the prefills then cost at most [0-9.]+ TFLOP", words)


def test_a_policy_has_one_colour_whoever_stands_beside_it():
    many = looks([f"dense:{step}" for step in range(64, 64 * 31, 64)] + ["learned", "clairvoyant"])
    assert len({(look.colour, look.dashes) for look in many.values()}) == len(many)
    assert many["learned"] == looks(["tail", "learned"])["learned"]
    assert looks(["vllm", "dense:64"])["dense:64"] == looks(["dense:64", "none", "sqrt"])["dense:64"]


def test_settings_that_leave_a_hole_are_refused():
    for broken in ([], settings_of()[:3]):
        with pytest.raises(ConfigurationError, match="every policy at every capacity"):
            study_trace(open_trace(TRACE), broken, cost=PrefillCost.tokens())
    with pytest.raises(ConfigurationError, match="at least one"):
        write_report([], Path("nowhere"), command="")
