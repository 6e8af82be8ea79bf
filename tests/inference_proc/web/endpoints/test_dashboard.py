"""The dashboard's page as it is served."""

from __future__ import annotations

import re
from typing import Any


def test_the_page_is_one_file_that_loads_nothing_from_outside(server: Any) -> None:
    """It names no other host, is small, and its policy forbids the browser to load anything else."""
    response = server.get("/dashboard")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    links = re.findall(r"https?://[^\s\"'<>)]+", response.text)
    assert set(links) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=[\"'](?!data:)", response.text)
    assert len(response.content) < 60_000


def test_every_element_that_the_script_names_is_there(server: Any) -> None:
    """An id that the script looks up exists in the page."""
    text = server.get("/dashboard").text
    named = set(re.findall(r"""(?:\$|put|bars|meter|chart|dialog)\("([a-z0-9-]+)\"""", text))
    present = set(re.findall(r'id="([a-z0-9-]+)"', text))
    assert named
    assert named <= present
