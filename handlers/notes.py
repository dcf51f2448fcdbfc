"""JSON, a form, a stream and errors: what else `handle` may return.

curl localhost:8080/notes/                        a list as JSON
curl localhost:8080/notes/ -d text=Milk           a form; answers 201
curl localhost:8080/notes/ -d text=               answers 400
curl localhost:8080/notes/slowly                  one line a second
"""

import time

# Every worker process has its own copy of this list, and a restart empties it: real notes belong into a database.
NOTES = ["Read this file", "Change it and see"]


def handle(request):
    if request.path_info == "/slowly":
        return slowly()
    if request.path_info not in ("", "/"):
        return "There is nothing here.\n", 404
    if request.method == "POST":
        return add(request.form().get("text", ""))
    return {"notes": NOTES}


def add(text):
    if not text.strip():
        return {"error": "text must not be empty"}, 400
    NOTES.append(text)
    return {"added": text}, 201, {"Cache-Control": "no-store"}


def slowly():
    """A generator is streamed: each piece goes out when it is made."""
    for note in NOTES:
        yield f"{note}\n"
        time.sleep(1)
