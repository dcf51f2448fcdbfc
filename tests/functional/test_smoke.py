def test_static(serve):
    server = serve(
        {
            "www/index.html": "<h1>hi</h1>",
            "handlers/hello.py": "def handle(request):\n    return 'hello ' + request.path_info\n",
            "cgi-bin/a.sh": "#!/bin/sh\necho Content-Type: text/plain\necho\necho cgi\n",
        }
    )
    assert server.get("/").text == "<h1>hi</h1>"
    assert server.get("/hello/x").text == "hello /x"
    assert server.get("/cgi-bin/a.sh").text == "cgi\n"
    assert server.get("/nope").status == 404
