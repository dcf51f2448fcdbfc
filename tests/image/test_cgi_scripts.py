"""Old CGI scripts in the image, whose Python has neither `cgi` nor `cgitb` of its own."""

from __future__ import annotations

from pathlib import Path

from containers import Run, mounts_of
from harness import wait_for, write_tree

FORM = """#!/usr/bin/python3
import cgi, sys
form = cgi.FieldStorage()
command = open("/proc/self/cmdline").read()
print("Content-Type: text/plain")
print("X-Warm:", "zygote" in command)
print()
upload = form["file"]
print(sys.version_info >= (3, 13), form.getfirst("name"), upload.filename, len(upload.file.read()))
"""
BROKEN = "#!/usr/bin/python3\nimport cgitb\ncgitb.enable()\nprint(1 / 0)\n"
BODY = (
    b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nAda\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n' + bytes(300_000) + b"\r\n--b--\r\n"
)


def test_cgi_and_cgitb(run: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, {"cgi-bin/form.py": FORM, "cgi-bin/broken.py": BROKEN})
    container = run(volumes=mounts_of(tmp_path)).wait_until_ready()
    warm = set()

    def both_ways() -> bool:
        response = container.get("/cgi-bin/form.py", "POST", BODY, Content_Type="multipart/form-data; boundary=b")
        assert response.text == "True Ada a.bin 300000\n"
        warm.add(response.header("x-warm"))
        return warm == {"True", "False"}

    wait_for(both_ways, "the form in a new interpreter and in a warm one")
    page = container.get("/cgi-bin/broken.py")
    assert str(page.header("content-type")).startswith("text/html")
    assert "ZeroDivisionError" in page.text
