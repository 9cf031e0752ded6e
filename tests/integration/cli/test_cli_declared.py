"""The commands over a declared vendor, from its ready-made file, against the fake."""

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from anyio import to_thread
from outside import PROGRAM

from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.rest import PaddleFormat

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
PADDLE = Path(__file__).parents[3] / "reconcilers/gapless_reconcilers/declared/paddle.toml"


async def test_a_ready_made_source_is_checked_audited_and_read(tmp_path: Path) -> None:
    (tmp_path / "gapless.toml").write_text(f'include = ["{PADDLE}"]\n')
    fake, now = FakeProvider(PaddleFormat(token="pdl")), datetime.now(UTC)
    fake.backfill(450, now - timedelta(days=2), now - timedelta(minutes=5), ["transaction.paid"])
    async with fake.serve() as url:
        environ = {
            "PATH": os.environ["PATH"],
            "PADDLE_API_KEY": "pdl",
            "PADDLE_WEBHOOK_SECRET": "x",
            "GAPLESS_SOURCE__PADDLE__OPTIONS__BASE_URL": url,
            "GAPLESS_SOURCE__PADDLE__REQUESTS_PER_SECOND": "50",
        }

        async def call(*arguments: str, **more: str) -> tuple[int, str]:
            run = lambda: subprocess.run(  # noqa: E731
                [PROGRAM, *arguments], cwd=tmp_path, env=environ | more, capture_output=True, text=True, check=False
            )
            done = await to_thread.run_sync(run)
            return done.returncode, done.stdout + done.stderr

        code, output = await call("check")
        assert (code, "account could not be read" in output) == (0, False), output
        assert "the provider does not show the state of our endpoint" in output
        assert "the list can be read" in output
        code, output = await call("check", PADDLE_API_KEY="wrong")
        assert (code, "401; check that the key is live" in output) == (1, True), output
        code, output = await call("audit", "paddle", "--since", "3d")
        assert (code, "450 events are listed" in output) == (0, True), output
        before = len(fake.requests)
        code, output = await call("source", "pass", "paddle", "--since", "3d")
        assert (code, " 450 " in output) == (0, True), output
        assert len(fake.requests) - before == 4  # three pages of 200, and that of the scheduled pass
