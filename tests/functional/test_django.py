"""A Django project as `django-admin startproject` makes it, with its own views, static files and admin, under WSGI."""

from __future__ import annotations

import hashlib
import json
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from harness import Response, Server, wait_for

pytest.importorskip("django", reason="Django is not installed in this environment")

VIEWS = r'''
import hashlib, time
from pathlib import Path
from django import forms
from django.contrib import messages
from django.core.files.storage import default_storage
from django.http import FileResponse, HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.template import engines
from django.urls import reverse

PAGE = """{% load static %}<!doctype html><title>shop</title><link rel=stylesheet href="{% static 'shop/site.css' %}">
<form method=post enctype=multipart/form-data>{% csrf_token %}{{ form }}</form>"""

class Order(forms.Form):
    name = forms.CharField(max_length=20)
    picture = forms.FileField()

def index(request):
    form = Order(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        picture = form.cleaned_data["picture"]
        digest = hashlib.sha256()
        for chunk in picture.chunks():
            digest.update(chunk)
        return JsonResponse({"name": form.cleaned_data["name"], "file": picture.name, "size": picture.size,
                             "sha256": digest.hexdigest(), "kind": type(picture).__name__})
    return HttpResponse(engines["django"].from_string(PAGE).render({"form": form}, request))

def stream(request):
    return StreamingHttpResponse((f"line {number}\n" for number in range(1000)), content_type="text/plain")

def file(request):
    return FileResponse(open(Path(__file__).parent / "large.bin", "rb"), as_attachment=True, filename="größe.bin")

def away(request):
    return HttpResponseRedirect(reverse("index"))

def fails(request):
    raise LookupError("django fails")

def count(request):
    request.session["count"] = request.session.get("count", 0) + 1
    return JsonResponse({"count": request.session["count"], "url": request.build_absolute_uri(),
                         "script": request.META["SCRIPT_NAME"], "path": request.path_info,
                         "secure": request.is_secure()})
'''

URLS = """
from django.contrib import admin
from django.urls import path
from . import views

urlpatterns = [
    path("", views.index, name="index"),
    path("stream", views.stream),
    path("file", views.file),
    path("away", views.away),
    path("fails", views.fails),
    path("count", views.count),
    path("admin/", admin.site.urls),
]
"""

SETTINGS = """

DEBUG = False
ALLOWED_HOSTS = ["localhost", "shop.example"]
STATICFILES_DIRS = [BASE_DIR / "assets"]
STATIC_ROOT = BASE_DIR / "public" / "static"
STATIC_URL = "/static/"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"]},
}
"""

CONFIG = """
log: {access: "off"}
pools:
  shop: {python: "shop.wsgi:application", directory: ., processes: 2, threads: 4}
sites:
  - hosts: [localhost]
    rules:
      - {match: {path: /static/*}, handler: {file: public}}
      - {handler: {python: shop}}
  - hosts: [shop.example]
    rules:
      - {match: {path: /static/*}, handler: {file: public}}
      - {match: {path: /shop/*}, handler: {python: shop}}
"""

LARGE = random.Random(1).randbytes(8 << 20)


#: What a deployment does by `manage.py collectstatic`, `migrate` and `createsuperuser`, in one process.
PREPARE = """
import os
os.environ |= {"DJANGO_SETTINGS_MODULE": "shop.settings", "DJANGO_SUPERUSER_PASSWORD": "only for this test"}
import django
from django.core.management import call_command
django.setup()
call_command("collectstatic", interactive=False, verbosity=0)
call_command("migrate", interactive=False, verbosity=0)
call_command("createsuperuser", interactive=False, username="ada", email="a@example.org", verbosity=0)
"""


def run_python(folder: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def shop(serve_module: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    project = tmp_path_factory.mktemp("project") / "project"
    project.mkdir()
    run_python(project, "-m", "django", "startproject", "shop", ".")
    (project / "shop" / "views.py").write_text(VIEWS)
    (project / "shop" / "urls.py").write_text(URLS)
    (project / "shop" / "large.bin").write_bytes(LARGE)
    with (project / "shop" / "settings.py").open("a") as settings:
        settings.write(SETTINGS)
    (project / "assets" / "shop").mkdir(parents=True)
    (project / "assets" / "shop" / "site.css").write_text("body { color: teal }")
    run_python(project, "-c", PREPARE)
    files = {str(path.relative_to(project)): path.read_bytes() for path in project.rglob("*") if path.is_file()}
    yield serve_module(files, config=CONFIG)


class Browser:
    """Cookies are kept and sent back, redirections are not followed."""

    def __init__(self, server: Server, host: str = "localhost") -> None:
        self.server = server
        self.host = host
        self.cookies: dict[str, str] = {}

    def get(self, target: str) -> Response:
        return self._keep(self.server.get(target, self._headers()))

    def post(self, target: str, body: bytes, content_type: str) -> Response:
        return self._keep(self.server.post(target, body, {**self._headers(), "Content-Type": content_type}))

    def _headers(self) -> dict[str, str]:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return {"Host": self.host, **({"Cookie": cookies} if cookies else {})}

    def _keep(self, response: Response) -> Response:
        for line in response.all("set-cookie"):
            self.cookies |= {name: morsel.value for name, morsel in SimpleCookie(line).items()}
        return response


def token_of(page: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert found is not None, page
    return found[1]


def form(token: str, name: str, picture: bytes) -> tuple[bytes, str]:
    parts = "".join(
        f'--XX\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in (("csrfmiddlewaretoken", token), ("name", name))
    )
    head = f'{parts}--XX\r\nContent-Disposition: form-data; name="picture"; filename="ä.png"\r\n\r\n'
    return head.encode() + picture + b"\r\n--XX--\r\n", "multipart/form-data; boundary=XX"


def test_page_and_its_static_files(shop: Server) -> None:
    page = Browser(shop).get("/").text
    assert 'href="/static/shop/site.css"' in page
    sheet = shop.get("/static/shop/site.css")
    assert (sheet.header("content-type"), sheet.text) == ("text/css; charset=utf-8", "body { color: teal }")
    assert sheet.header("etag")
    assert shop.get("/static/admin/css/base.css").status == 200
    assert shop.get("/static/none.css").status == 404


@pytest.mark.parametrize(("size", "kind"), [(1000, "InMemoryUploadedFile"), (6 << 20, "TemporaryUploadedFile")])
def test_form_with_csrf_and_upload(shop: Server, size: int, kind: str) -> None:
    browser = Browser(shop)
    picture = random.Random(size).randbytes(size)
    body, content_type = form(token_of(browser.get("/").text), "Ada", picture)
    assert json.loads(browser.post("/", body, content_type).body) == {
        "name": "Ada",
        "file": "ä.png",
        "size": size,
        "sha256": hashlib.sha256(picture).hexdigest(),
        "kind": kind,
    }


def test_form_without_csrf_is_403(shop: Server) -> None:
    body, content_type = form("forged" * 10, "Eve", b"x")
    assert Browser(shop).post("/", body, content_type).status == 403


def test_streaming_response(shop: Server) -> None:
    response = shop.get("/stream")
    assert response.header("transfer-encoding") == "chunked"
    assert response.text == "".join(f"line {number}\n" for number in range(1000))


def read_by_workers(server: Server) -> int:
    """Bytes that the workers have read, from whatever."""
    return sum(
        int(re.search(r"rchar: (\d+)", Path(f"/proc/{pid}/io").read_text())[1])  # type: ignore[index]
        for pid in server.pids("workers/main.py")
    )


def test_file_response_is_sent_by_the_core(shop: Server) -> None:
    shop.get("/file")
    before = read_by_workers(shop)
    response = shop.get("/file")
    assert response.body == LARGE
    assert response.header("content-length") == str(len(LARGE))
    assert "filename*=utf-8''gr%C3%B6%C3%9Fe.bin" in (response.header("content-disposition") or "")
    assert read_by_workers(shop) - before < len(LARGE) // 8
    assert shop.get("/file", method="HEAD").header("content-length") == str(len(LARGE))


def test_admin(shop: Server) -> None:
    browser = Browser(shop)
    assert browser.get("/admin/").status == 302
    page = browser.get("/admin/login/?next=/admin/")
    assert page.status == 200
    fields = f"csrfmiddlewaretoken={token_of(page.text)}&username=ada&password=only+for+this+test&next=/admin/"
    done = browser.post("/admin/login/?next=/admin/", fields.encode(), "application/x-www-form-urlencoded")
    assert (done.status, done.header("location")) == (302, "/admin/")
    assert "Site administration" in browser.get("/admin/").text


def test_sessions_and_urls(shop: Server) -> None:
    browser = Browser(shop)
    found = [json.loads(browser.get("/count?a=%20b").body) for _ in range(3)]
    assert [each["count"] for each in found] == [1, 2, 3]
    assert found[0]["url"] == "http://localhost/count?a=%20b"
    assert (found[0]["script"], found[0]["path"], found[0]["secure"]) == ("", "/count", False)
    assert shop.get("/away").header("location") == "/"


def test_mounted_below_a_path(shop: Server) -> None:
    browser = Browser(shop, "shop.example")
    found = json.loads(browser.get("/shop/count").body)
    assert (found["script"], found["path"], found["url"]) == ("/shop", "/count", "http://shop.example/shop/count")
    assert browser.get("/shop/away").header("location") == "/shop/"
    assert browser.get("/count").status == 404


def test_exception_is_djangos_page_and_its_log(shop: Server) -> None:
    response = shop.get("/fails")
    assert response.status == 500
    assert "Server Error (500)" in response.text
    shop.wait_for_log("LookupError: django fails")
    assert shop.get("/").status == 200


def test_reload_takes_changed_code(shop: Server) -> None:
    views = shop.folder / "shop" / "views.py"
    before = set(shop.pids("workers/main.py"))
    views.write_text(VIEWS.replace("line {number}", "row {number}"))
    shop.kill(signal.SIGHUP)
    wait_for(lambda: shop.get("/stream").text.startswith("row 0\n"), "the changed view answers")
    wait_for(lambda: not before & set(shop.pids("workers/main.py")), "the old workers have ended")
    shop.remember_fds()
