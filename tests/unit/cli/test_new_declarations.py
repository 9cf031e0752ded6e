"""`gapless providers new` and `gapless providers try`: from nothing to a declaration that keeps the contract."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gapless.cli import samples
from gapless.cli.main import main
from gapless.errors import UserError
from gapless_reconcilers.testing import suite
from gapless_reconcilers.testing.suite.scenario import load_scenario


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, ["providers", *arguments], env=environ)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = run("new", "acme-pay", "--into", str(tmp_path))
    assert made.exit_code == 0, made.output
    assert str(tmp_path / "acme-pay.toml") in made.output
    return tmp_path


def samples_of(folder: Path) -> tuple[str, str, str]:
    fixtures = folder / "fixtures/rest_list/acme-pay"
    return str(folder / "acme-pay.toml"), f"--webhook={fixtures / 'sample.http'}", f"--page={fixtures / 'pages/1.json'}"


@pytest.mark.parametrize("option", [(), ("--push-only",)], ids=["list", "push only"])
def test_what_is_made_keeps_the_contract_as_it_stands(tmp_path: Path, option: tuple[str, ...]) -> None:
    assert run("new", "acme", "--into", str(tmp_path), *option).exit_code == 0
    scenario = load_scenario(tmp_path / "fixtures/rest_list/acme")
    assert scenario.lists is not bool(option)
    for rule in suite.rules_for(scenario).values():
        rule(scenario)


def test_its_test_runs_where_it_was_made(folder: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]
    done = subprocess.run(
        [*command, "test_acme_pay.py"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_nothing_is_overwritten_and_no_odd_name_is_taken(folder: Path) -> None:
    again = run("new", "acme-pay", "--into", str(folder))
    assert (again.exit_code, "is there already" in again.output) == (2, True)
    for name in ("Acme", "a_b", "../x", "a" * 41):
        assert run("new", name, "--into", str(folder)).exit_code == 2


def test_samples_are_shown_as_events_with_one_identity(folder: Path) -> None:
    tried = run("try", *samples_of(folder), ACME_PAY_WEBHOOK_SECRET="a made-up secret")
    assert tried.exit_code == 0, tried.output
    for line in (
        "signature: it fits",
        "webhook: key ev_2, type order.paid, occurred 2026-11-20 12:10:00Z, object o_7",
        "page: 2 events; the list ends here",
        "identity: ev_2 is the same in webhook and page",
    ):
        assert line in tried.output


def test_without_the_secret_the_events_are_shown_and_the_signature_is_not_judged(folder: Path) -> None:
    tried = run("try", *samples_of(folder))
    assert tried.exit_code == 0
    assert "it is not checked: set ACME_PAY_WEBHOOK_SECRET" in tried.output
    assert "webhook: key ev_2" in tried.output


def test_what_is_missing_is_said(folder: Path) -> None:
    declaration = folder / "acme-pay.toml"
    declaration.write_text(declaration.read_text().replace('key = "id" ', 'key = "uid"'))
    tried = run("try", *samples_of(folder), ACME_PAY_WEBHOOK_SECRET="other")
    assert tried.exit_code == 1
    assert "problem  signature: the signature is that of no secret we know" in tried.output
    assert "uid is missing; wanted a value" in tried.output
    assert "a row is no event: data[0].uid is missing" in tried.output
    alone = run("try", str(declaration))
    assert "there is no sample; give one with --webhook" in alone.output
    assert "there is no sample of the list; give one with --page" in alone.output


def test_two_identities_of_one_event_are_found(folder: Path) -> None:
    page = folder / "fixtures/rest_list/acme-pay/pages/1.json"
    rows = json.loads(page.read_text())
    rows["data"][0] |= {"type": "order.other", "id": "ev_2"}
    page.write_text(json.dumps(rows))
    tried = run("try", *samples_of(folder), ACME_PAY_WEBHOOK_SECRET="a made-up secret")
    assert tried.exit_code == 1
    assert "ev_2 has another type on each way: order.paid in the webhook, order.other in the page" in tried.output
    rows["data"][0]["id"] = "ev_9"
    page.write_text(json.dumps(rows))
    assert "ev_2 of the webhook is not in the page, which has ev_9, ev_1" in run("try", *samples_of(folder)).output


def test_a_handshake_is_shown_with_its_answer(tmp_path: Path) -> None:
    sample = tmp_path / "challenge.http"
    sample.write_bytes(b"GET /webhooks/dropbox?challenge=abc HTTP/1.1\r\nHost: x\r\n\r\n")
    tried = run("try", "declared:dropbox", f"--webhook={sample}")
    assert "it is taken and records nothing; the answer is 200 'abc'" in tried.output


def test_a_sample_is_read_byte_for_byte() -> None:
    request = samples.read_http(b"POST /in?a=1 HTTP/1.1\nX-One:  1 \nx-two: 2\n\n{}\n\n")
    assert (request.method, request.query, request.body) == ("POST", b"a=1", b"{}\n\n")
    assert request.headers == ((b"x-one", b"1"), (b"x-two", b"2"))
    assert samples.read_http(b"X: 1\r\n\r\n\r\n").body == b"\r\n"
    with pytest.raises(UserError, match="line 1 of the headers is"):
        samples.read_http(b'{"id": 1}')
