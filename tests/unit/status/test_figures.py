"""Each figure is declared once, and JSON and the page take it from there."""

from dataclasses import replace

import pytest
from reports import DESTINATION, LOSS, NOW, SOURCE, listed, report

from gapless.console.gate import ANYBODY
from gapless.console.pages.overview import overview_values, source_state, source_values
from gapless.console.pages.rendering import frame, render
from gapless.domain import Mode
from gapless.status.figures import DESTINATION_FIGURES, SOURCE_FIGURES, SOURCE_INFO
from gapless.status.report import SourceReport, StatusReport
from gapless.status.troubles import troubles
from gapless.status.values import of_report


def overview(whole: StatusReport) -> str:
    return render(
        "overview.html",
        whole.at,
        **frame(whole, version="1", principal=ANYBODY),
        active="overview",
        **overview_values(whole, {}),
    )


ALL = (SOURCE_INFO, *SOURCE_FIGURES, *DESTINATION_FIGURES)


def test_no_name_is_declared_twice_and_each_says_what_it_is() -> None:
    assert len({figure.name for figure in ALL}) == len(ALL)
    assert all(figure.help and figure.absent for figure in ALL)


def test_json_has_every_figure_and_null_for_unknown() -> None:
    unknown = listed(SOURCE, grant=None, learned=None, history_headroom=None)
    gap = dict.fromkeys(SOURCE.gaps)
    values = of_report(report(replace(unknown, gaps=gap), DESTINATION))
    (source,), (destination,) = values["sources"], values["destinations"]  # type: ignore[misc]
    assert list(source["figures"]) == [figure.name for figure in SOURCE_FIGURES]
    assert list(destination["figures"]) == [figure.name for figure in DESTINATION_FIGURES]
    assert source["figures"]["gap_rate"] == {"1h": None, "24h": None, "7d": None}
    assert source["figures"]["events_total"]["webhook"] == 10
    assert source["figures"]["missing_open"] == 0
    assert source["figures"]["provider_grant_used_ratio"] is None
    assert source["figures"]["grant_short"] is None
    assert source["figures"]["planned_recovery_seconds"] is None
    assert (source["list"]["learned"], source["list"]["grant"], source["list"]["reading"]) == (None, None, [])
    assert source["figures"]["poll_interval_seconds"] == 300
    assert source["figures"]["watermark_timestamp_seconds"] == source["list"]["watermark"]


def test_what_does_not_apply_is_null() -> None:
    push = replace(SOURCE, mode=Mode.WEBHOOK, losses=None, listed=None)
    (source,) = of_report(report(push))["sources"]  # type: ignore[misc]
    assert (source["figures"]["missed_total"], source["figures"]["missing_open"]) == (None, None)


def test_json_and_page_show_the_same_troubles() -> None:
    whole = report(replace(SOURCE, unrecoverable=(replace(LOSS, reason="event_lost"),)), DESTINATION)
    (found,) = troubles(whole)
    values = of_report(whole)
    page = overview(whole)
    assert (values["verdict"], values["summary"]) == ("trouble", "1 is wrong")
    (value,) = values["troubles"]  # type: ignore[misc]
    assert (value["kind"], value["source"], value["text"], value["next"]) == (
        "events_lost",
        "acme",
        found.text,
        found.next,
    )
    assert "<title>1 is wrong: Overview · Gapless</title>" in page
    assert found.text in page


def test_the_page_of_a_source_has_every_figure() -> None:
    whole = report(SOURCE, DESTINATION)
    shown = source_values(whole, whole.sources[0], None)
    page = render("source.html", NOW, **frame(whole, version="1", principal=ANYBODY), active="", **shown)
    for figure in SOURCE_FIGURES:
        assert page.count(f'title="{figure.help}"'.replace("'", "&#39;")) == 1, figure.name


@pytest.mark.parametrize(
    ("source", "state", "word"),
    [
        (SOURCE, "good", "complete"),
        (replace(SOURCE, unrecoverable=(LOSS,)), "trouble", "unrecoverable"),
        (replace(SOURCE, silent=True), "trouble", "silent"),
        (listed(SOURCE, missing_open=1, missing_since=NOW), "hand", "events missing"),
        (replace(SOURCE, losses=None, listed=None), "blind", "blind"),
        (replace(SOURCE, losses=None, listed=None, silent=True), "trouble", "silent"),
    ],
)
def test_a_tile_is_green_only_if_nothing_is_wrong(source: SourceReport, state: str, word: str) -> None:
    whole = report(source)
    assert source_state(troubles(whole), whole.sources[0]) == (state, word)
    page = overview(whole)
    assert f'<article class="tile {state}"' in page
    assert ("complete</span>" in page) == (state == "good")
