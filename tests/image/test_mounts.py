"""Mounted folders and files do what one expects; what is not mounted is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from containers import Run, mounts_of
from harness import wait_for, write_tree

HELLO = "def handle(request):\n    return 'mine'\n"
PROGRAM = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nprogram'\n"
FILES = {"www/index.html": "page", "handlers/hello.py": HELLO, "cgi-bin/run.sh": PROGRAM}
#: What of the demo would answer if it were mixed in.
DEMO = ("/static.txt", "/notes/", "/cgi-bin/environment.sh")


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("www", {"/": (200, "page"), "/hello/": (404, None)}),
        ("handlers", {"/hello/": (200, "mine"), "/": (404, None), "/handlers/hello.py": (404, None)}),
        ("cgi-bin", {"/cgi-bin/run.sh": (200, "program"), "/": (404, None), "/hello/": (404, None)}),
    ],
)
def test_one_folder_alone(run: Run, tmp_path: Path, name: str, answers: dict[str, tuple[int, str | None]]) -> None:
    write_tree(tmp_path, {key: text for key, text in FILES.items() if key.startswith(name)})
    container = run(volumes=mounts_of(tmp_path)).wait_until_ready()
    for target, (status, text) in answers.items():
        response = container.get(target)
        assert response.status == status, target
        assert text is None or response.text == text
    for target in DEMO:
        assert container.get(target).status == 404, target
    container.run("cherokee-app", "check")


def test_all_folders(run: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, FILES)
    container = run(volumes=mounts_of(tmp_path)).wait_until_ready()
    assert container.get("/").text == "page"
    assert container.get("/hello/").text == "mine"
    assert container.get("/cgi-bin/run.sh").text == "program"


def test_an_empty_folder_is_what_was_asked_for(run: Run, tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    container = run(volumes=mounts_of(tmp_path)).wait_until_ready()
    assert container.get("/").status == 404
    (tmp_path / "www/index.html").write_text("now")
    # The core looks at what it has not found again after `cache.revalidate`.
    wait_for(lambda: container.get("/").text == "now", "the new file is served")


def test_a_new_handler_answers_after_a_reload(run: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, FILES)
    container = run(volumes=mounts_of(tmp_path)).wait_until_ready()
    assert container.get("/late/").status == 404
    write_tree(tmp_path, {"handlers/late.py": HELLO})
    container.inner.kill("SIGHUP")
    container.wait_for_log("configuration reloaded")
    assert container.get("/late/").text == "mine"


def test_a_configuration_with_sites(run: Run, tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {
            **FILES,
            "config.yaml": "sites: [{rules: [{match: {path: /run/*}, handler: {cgi: /srv/cgi-bin}}]}]\n",
        },
    )
    container = run(volumes=mounts_of(tmp_path)).wait_until_ready()
    assert container.get("/run/run.sh").text == "program"
    assert container.get("/").status == 404
    assert container.run("cherokee-app", "check") == "/etc/cherokee-app/config.yaml: valid\n"


def test_a_configuration_without_sites_goes_with_the_folders(run: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, {**FILES, "config.yaml": "limits: {body_size: 10}\nlisten: 0.0.0.0:8081\n"})
    container = run(port=8081, volumes=mounts_of(tmp_path)).wait_until_ready()
    assert container.get("/hello/").text == "mine"
    assert container.get("/hello/", "POST", b"x" * 11).status == 413
    container.run("cherokee-app", "health")


def test_a_broken_configuration_lists_its_errors_and_ends(run: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, {"config.yaml": "threads: many\nsitse: []\nlimits: {idle_timeout: 60}\n"})
    container = run(volumes=mounts_of(tmp_path))
    assert container.wait() == 1
    assert container.log(err=False) == ""
    lines = container.log().splitlines()
    assert len(lines) == 3
    assert all(line.startswith("/etc/cherokee-app/config.yaml:") for line in lines)
    assert any("did you mean 'sites'?" in line for line in lines)


def test_a_folder_that_its_user_may_not_read_is_one_line(run: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, FILES)
    (tmp_path / "handlers").chmod(0o700)
    container = run(volumes=mounts_of(tmp_path), user="12345:12345")
    assert container.wait() == 1
    (line,) = container.log().splitlines()
    assert line.startswith("cherokee-app: '/srv/handlers' may not be read by")
    assert "uid 12345" in line and line.endswith("change its mode or owner")


def test_a_broken_handler_answers_500_and_the_others_serve(run: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, {**FILES, "handlers/broken.py": "def handle(request:\n"})
    container = run(volumes=mounts_of(tmp_path)).wait_until_ready()
    assert container.get("/broken/").status == 500
    assert container.get("/hello/").text == "mine"
    assert container.get("/").text == "page"
    container.wait_for_log("SyntaxError")
