"""The scripts of the CGI scenarios: small ones, as they are found in old `cgi-bin` folders."""

from __future__ import annotations

import shutil
from pathlib import Path

SHELL = """#!/bin/sh
echo "Content-Type: text/plain"
echo
echo "Hello, $QUERY_STRING"
"""
PYTHON = """
import cgi
import json
import urllib.parse

form = cgi.FieldStorage()
print("Content-Type: application/json\\n")
print(json.dumps({"hello": form.getfirst("name", "world"), "link": urllib.parse.quote("a b")}))
"""
PERL = """
use strict;
use CGI;

my $q = CGI->new;
print $q->header('text/plain'), 'Hello, ', scalar $q->param('name'), "\\n";
"""


def write_scripts(folder: Path, python: Path) -> None:
    """`sh`, `python` (by the interpreter given, which has the module cgi) and `perl`."""
    perl = shutil.which("perl") or "/usr/bin/perl"
    texts = {"sh": SHELL, "python": f"#!{python}{PYTHON}", "perl": f"#!{perl} -w{PERL}"}
    for name, text in texts.items():
        path = folder / name
        path.write_text(text)
        path.chmod(0o755)
