"""Whoever reaches the Ray dashboard or Jobs API runs code: without this installation's token nobody does."""

from __future__ import annotations

import httpx
import pytest

from tests.serve_apps.cli.installation import Installation

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(600)]

PATHS = (
    "/api/version", "/api/jobs/", "/api/v0/actors", "/api/v0/tasks", "/api/v0/logs?node_id=x", "/nodes?view=summary",
    "/logical/actors", "/api/cluster_status", "/api/serve/applications/", "/metrics", "/timezone",
)  # fmt: skip
REFUSED = (401, 403)


def test_no_token_no_dashboard_no_jobs(installed: Installation) -> None:
    up = installed.run("up")
    proof = installed.state_dir / "code-was-run"
    job = {"entrypoint": f"touch {proof}", "submission_id": "uninvited"}
    token = (installed.state_dir / "ray.token").read_text().strip()
    given = [
        {}, {"authorization": "Bearer nonsense"}, {"authorization": "Bearer"}, {"authorization": f"Basic {token}"},
        {"authorization": f"Bearer {token[:-1]}"}, {"cookie": "ray-authentication-token=nonsense"},
        {"x-forwarded-for": "127.0.0.1"},
    ]  # fmt: skip
    with httpx.Client(base_url=up["dashboard"], trust_env=False, timeout=30.0) as client:
        for headers in given:
            for path in PATHS:
                assert client.get(path, headers=headers).status_code in REFUSED, (path, headers)
            assert client.post("/api/jobs/", json=job, headers=headers).status_code in REFUSED
            assert client.put("/api/serve/applications/", json={}, headers=headers).status_code in REFUSED
            assert client.delete("/api/serve/applications/", headers=headers).status_code in REFUSED
        allowed = client.get("/api/jobs/", headers={"authorization": f"Bearer {token}"})
        assert allowed.status_code == 200
        assert "uninvited" not in {one["submission_id"] for one in allowed.json()}
        shell = client.get("/")  # the page is the same for everybody: what it shows, it asks for
        assert token not in shell.text
        assert "shard-writer" not in shell.text
    assert not proof.exists()
