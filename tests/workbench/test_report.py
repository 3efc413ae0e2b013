"""The page of a comparison: its conclusion, its advice by what was found, and a file that needs no network."""

import base64
import gzip
import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

import dsa_analysis as dsa
from dsa_analysis import Comparison, Similarity
from workbench.report.advice import ADVICE, advice
from workbench.report.figures import PLAIN, picture
from workbench.report.findings import Findings, said_once
from workbench.report.page import Bullets, Section, Table, Text, as_csv, render
from workbench.report.sections import SECTIONS, conclusion, embedding, in_lines, pairs, sections

HOSTILE = "<script>alert('$x$')</script> & co"


def findings(
    k: int = 4, floor: float | None = 0.05, share: float = 0.95, names: tuple[str, ...] = (), **changes
) -> Findings:
    """Findings about k systems at random places, the first of a hostile name unless there are names."""
    generator = np.random.default_rng(0)
    points = generator.normal(size=(k, 2))
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    labels = names or (HOSTILE, *(f"system_{place:02d}" for place in range(1, k)))
    ones, how = np.ones((k, k)), Comparison(n_delays=2, rank=3, dt=10, horizon=50)
    recordings = {label: {"path": f"{label}.npy", "axes": "trial, time, channel"} for label in labels}
    settings = {"n_delays": 2, "recordings": recordings}
    similarity = Similarity(distances, share * distances, ones, ones > 0, labels, labels, how, settings=settings)
    table = similarity.to_dataframe()
    floors = None if floor is None else pd.Series(floor, index=list(labels))
    if floors is not None:
        table["noise_floor"] = similarity.pair_floors(floors)[np.triu_indices(k, 1)]
    held = SimpleNamespace(trials=[np.zeros((30, 2))] * 6, sampling_rate=100.0, n_channels=2)
    return replace(Findings(dict.fromkeys(labels, held), {}, similarity, table, floors), **changes)


def page_of(found: Findings) -> str:
    with rc_context(PLAIN):
        return render("Do they compute alike?", sections(found), "compute-alike compare a b", 1.0)


class Reader(HTMLParser):
    """Collects ids, links and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids, self.links, self.words = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given[name] for name in ("href", "src", "xlink:href") if name in given]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def page() -> str:
    found = findings(12, statistics={"AUROC, pairs": dsa.Interval(0.9, 0.8, 1.0, 12)})
    return page_of(replace(found, groups={label: "ab"[at % 2] for at, label in enumerate(found.similarity.labels)}))


def test_page_needs_no_network_and_names_no_element_twice(page):
    read = Reader(page)
    assert all(link.startswith(("#", "data:")) for link in read.links)
    assert not re.search(r"@import|https?://(?!www\.w3\.org)", page)
    assert len(set(read.ids)) == len(read.ids)
    assert {link[1:] for link in read.links if link.startswith("#")} <= set(read.ids)


def test_names_of_users_are_text(page):
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    assert HOSTILE in " ".join(Reader(page).words)


def test_figures_are_vectors_in_the_colours_of_the_page(page):
    drawn = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawn) == 3  # matrix, map, tree
    for svg in drawn:
        ElementTree.fromstring(svg)
        assert "#000000" not in svg
    assert "currentColor" in drawn[0]
    assert "system_01" in drawn[0]  # text, not outlines
    for rule in ("prefers-color-scheme: dark", "max-width: 480px", "viewport"):
        assert rule in page


def test_downloads_are_what_they_say(page):
    files = dict(re.findall(r'download="([^"]+)" href="([^"]+)"', page))
    assert set(files) == {
        *(f"{name}.{kind}" for name in ("distances", "map", "tree") for kind in ("png", "pdf")),
        "distances.csv", "systems.csv",
    }  # fmt: skip
    data = {name: base64.b64decode(unquote(uri).partition(",")[2]) for name, uri in files.items()}
    assert Image.open(io.BytesIO(data["map.png"])).size[0] > 500
    assert data["map.pdf"].startswith(b"%PDF")
    table = pd.read_csv(io.BytesIO(data["distances.csv"]))
    assert len(table) == 12 * 11 / 2
    np.testing.assert_allclose(table["distance"], findings(12).table["distance"], rtol=1e-6)  # seven digits are kept


def test_page_of_sixty_systems_can_be_sent():
    names = tuple(f"mouse_{k:03d}_session_2026-03-{1 + k % 28:02d}_probe_A_region_V1" for k in range(60))
    found, operators = findings(60, names=names), {name: fitted(gap=1.5) for name in names}
    found = replace(found, similarity=replace(found.similarity, operators=operators))
    page = page_of(replace(found, groups={label: f"group {at % 4}" for at, label in enumerate(operators)}))
    assert len(page.encode()) < 1.5e6
    for name in names:
        assert page.count(f"<title>{name}</title>") == 4  # row, column, point of the map, leaf: cut in the figures
    uri = re.search(r'download="distances.csv.gz" href="([^"]+)"', page)[1]
    table = pd.read_csv(io.BytesIO(gzip.decompress(base64.b64decode(unquote(uri).partition(",")[2]))))
    assert len(table) == 60 * 59 / 2


def test_singular_values_of_many_systems_are_pixels():
    """As lines they would take a sixth of the page."""
    names = [f"system {k}" for k in range(60)]
    found = findings(60, names=tuple(names))
    operators = {name: fitted(gap=1.5) for name in names}
    found = replace(
        found, similarity=replace(found.similarity, operators=operators),
        spectra={name: torch.linspace(1, 0.01, 20, dtype=torch.float64) for name in names},
    )  # fmt: skip
    section = embedding(found)
    assert section is not None
    assert len(section.parts[-1].svg) < 100_000


def test_columns_of_long_names_wrap_and_numbers_do_not():
    frame = pd.DataFrame({"system": ["a" * 40], "distance": [0.5], "certified": [True]})
    assert Table.of(frame).classes == "n2 w1"


def test_conclusion_comes_first_and_counts(page, monkeypatch):
    monkeypatch.setattr("workbench.report.sections.picture", lambda *_: None)
    found = findings(6)
    said = in_lines(found)
    near = found.nearest
    assert f"{near['system_a']} and {near['system_b']} are nearest" in said[0]
    assert any("15 of 15 pairs" in line for line in said)
    order = [section.name for section in sections(found) if section]
    assert order[:3] == ["conclusion", "next", "distances"]
    assert page.index("are nearest") < page.index("What to do next") < page.index("<svg")


def test_two_systems_have_a_page():
    page = page_of(findings(2))
    assert "apart." in page
    assert page.count("<svg") == 1


def test_certified_pairs_are_told_where_they_are_known():
    found = findings(4)
    found.table["certified"] = [True, False] * 3
    assert "certified" in [name for name, _ in pairs(found).parts[0].columns]
    assert any("3 of 6 pairs certified" in line for line in in_lines(found))
    without = findings(4)
    del without.table["certified"]  # as with metrics that have no bound
    assert "certified" not in [name for name, _ in pairs(without).parts[0].columns]
    assert not any("certified" in line for line in in_lines(without))


# ---- advice ----------------------------------------------------------------------------------------------------------


def fitted(gap: float) -> SimpleNamespace:
    """What the page reads of an operator of rank 3."""
    parameters = Comparison(n_delays=2, rank=3).embedding()
    values = torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64)
    return SimpleNamespace(
        gap=gap, gaps=torch.tensor([2.0, 2.5, gap]), matrix=torch.eye(3), parameters=parameters, rank=3,
        singular_values=values, eigenvalues=torch.tensor([0.9 + 0.1j, 0.9 - 0.1j, 0.5 + 0j]),
    )  # fmt: skip


def with_operators(found: Findings, *operators: SimpleNamespace, **how) -> Findings:
    similarity = found.similarity
    return replace(found, similarity=replace(
        similarity,
        operators=dict(zip(similarity.labels, operators, strict=True)),
        comparison=Comparison(**{"n_delays": 2, "rank": 3, **how}),
    ))  # fmt: skip


def told(found: Findings) -> str:
    return " | ".join(f"{one.finding} {one.action} {one.option}" for one in advice(found))


def test_floor_above_distances_asks_for_trials_of_the_noisiest():
    found = findings(4, floor=100.0)
    found.floor.iloc[2] = 200.0
    assert re.match(r"6 of 6 pairs are not above the noise floor. .* first of system_02, ", told(found))
    assert "noise floor" not in told(findings(4))


def test_single_trials_ask_for_several():
    held = SimpleNamespace(trials=[np.zeros((30, 2))], sampling_rate=100.0, n_channels=2)
    found = findings(4, floor=None)
    assert "no noise floor: " in told(replace(found, systems={**found.systems, "system_01": held}))


def test_cut_in_a_cluster_names_ranks_with_a_clear_step():
    found = with_operators(findings(4), fitted(gap=1.05), *[fitted(gap=1.5)] * 3)
    values = [torch.tensor(v) for v in ([9.0, 4.0, 2.0, 1.9, 1.0, 0.9], [9.0, 8.9, 6.0, 3.0, 1.0, 0.9, 0.1])]
    spectra = dict(zip(found.similarity.labels, [values[0], *[values[1]] * 3], strict=True))
    assert re.search(  # after 2 and 4 in both; after 3 and 6 in one of them
        r"rank 3 goes through a cluster of singular values in 1 of 4 systems. .* after 2 or 4 singular .* --rank [24]",
        told(replace(found, spectra=spectra)),
    )
    assert "--rank auto --estimator signal_weighted" in told(found)
    assert "cluster" not in told(with_operators(findings(4), *[fitted(gap=1.5)] * 4))
    weighted = with_operators(findings(4), *[fitted(gap=1.05)] * 4, estimator="signal_weighted")
    assert "cluster" not in told(weighted)


def test_one_sample_ahead_asks_for_a_horizon():
    four = [fitted(gap=1.5)] * 4
    assert "--sampling-rate HZ --horizon auto" in told(with_operators(findings(4), *four))
    assert "ahead. Over one sample" in told(with_operators(findings(4), *four, dt=10))
    assert "Over one sample" not in told(with_operators(findings(4), *four, dt=10, horizon=50))


def test_loose_bounds_ask_for_the_tight_certificate_unless_it_was_used():
    assert "The lower bound is 50% of the distance (median)." in told(findings(4, share=0.5))
    assert "--certificate" not in told(findings(4, share=0.95))
    loose = findings(4, share=0.5)
    tight = loose.similarity.comparison.override(certificate="tight")
    assert "--certificate" not in told(replace(loose, similarity=replace(loose.similarity, comparison=tight)))


def test_doubtful_alignments_ask_for_starts_unless_their_optimum_is_proven():
    found = findings(4)
    found.table.loc[0, "agreement"] = 0.02
    assert "In 1 of 6 pairs" in told(found)
    assert "--n-starts" in told(found)
    found.table["lower_bound"] = found.table["distance"]
    assert "--n-starts" not in told(found)


def test_groups_at_chance_ask_for_more_systems():
    unsure = {"AUROC, pairs": dsa.Interval(0.6, 0.45, 0.8, 4)}
    assert "reaches 0.5, which is chance" in told(findings(4, statistics=unsure))
    assert "chance" not in told(findings(4, statistics={"AUROC, pairs": dsa.Interval(0.9, 0.8, 1.0, 4)}))


def test_embedding_that_decides_the_order_asks_for_both():
    near = pd.DataFrame(
        {"agreement": [0.9, 0.3]}, index=pd.MultiIndex.from_tuples([(2, 4), (3, 3)], names=["n_delays", "rank"])
    )
    choice = SimpleNamespace(neighbours=near)
    assert "at n_delays = 3, rank = 3 their rank correlation with these is 0.30" in told(findings(4, choice=choice))
    assert "--intervals 100" in told(findings(4))
    assert len(advice(findings(4))) < len(ADVICE)


# ---- warnings, parts -------------------------------------------------------------------------------------------------


def test_what_is_said_of_systems_is_not_said_again_of_their_halves():
    cut = "the cut at rank = 3 goes through a cluster of singular values"
    whole = f"1 of 2 systems ('a'): {cut}; see singular_spectrum"
    halves = f"2 of 2 systems ('a (half of its trials)', 'b (half of its trials)'): {cut}; see singular_spectrum"
    assert said_once([whole, halves, whole, "another"]) == [f"1 of 2 systems ('a'): {cut}", "another"]
    assert said_once([halves]) == [halves.removesuffix("; see singular_spectrum")]


def test_halves_are_called_by_their_system_once():
    noisy = {name: np.random.default_rng(seed).normal(size=(8, 40, 4)) for seed, name in enumerate("ab")}
    with pytest.warns(UserWarning, match=r"\d of 2 systems \('a \(half of its trials\)'") as caught:
        dsa.noise_floor(noisy, n_delays=2, rank=3, n_splits=2, progress=False)
    assert not any("half 0" in str(one.message) for one in caught)


def test_a_section_is_one_function():
    def stability(found: Findings) -> Section | None:
        frame = pd.DataFrame({"horizon": [10.0, 20.0], "agreement": [0.91234567, np.nan], "kept": [True, False]})
        return Section(
            "stability", "Stability", [Text("Stable.", "lead"), Table.of(frame), Bullets(["one"], folded="x")]
        )

    page = render("t", [section(findings(3)) for section in (conclusion, stability, lambda _: None)], "c")
    assert '<a href="#stability">Stability</a>' in page
    assert "<td>10<td>0.9123<td>yes" in page
    assert "<td>20<td><td>no" in page
    assert '<table class="n1 n2">' in page
    assert conclusion in SECTIONS


def test_pictures_keep_elements_of_two_figures_apart():
    def drawn(name: str) -> str:
        figure = Figure((2, 2), layout="constrained")
        figure.subplots().plot([0, 1], label="$a$")
        return picture(figure, name, "").svg

    first, second = (set(re.findall(r'id="([^"]+)"', drawn(name))) for name in ("one", "two"))
    assert first
    assert not first & second
    assert drawn("one") == drawn("one")  # the same bytes in every run


def test_names_that_spreadsheets_would_run_are_text_in_tables():
    names = ["=1+1", "+a", "-b", "@c", "\td", "\re", "f=1", "-"]
    frame = pd.DataFrame({"name": names, "value": [-1.0, 2.0, -3.0, 4.0, 5.0, 6.0, 7.0, np.nan], "n": range(-3, 5)})
    again = pd.read_csv(io.StringIO(as_csv(frame)))
    assert again["name"].tolist() == [*(f"'{name}" for name in names[:5]), "' e", "f=1", "'-"]
    pd.testing.assert_frame_equal(again[["value", "n"]], frame[["value", "n"]])
    assert frame["name"].tolist() == names
