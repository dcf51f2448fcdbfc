"""Perl scripts in interpreters that have started already: everything is as in a new one, and nothing stays."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from harness import Server, wait_for
from programs import end_all, waiting
from real_programs import find_perl_module
from test_warm import fetch, is_warm, warmed, without_warmth

PERL = shutil.which("perl", path="/usr/local/bin:/usr/bin:/bin")
pytestmark = pytest.mark.skipif(PERL is None, reason="there is no perl on this machine")

#: Says by what it is run: an interpreter that was started for it has its own name in its command line.
WARM = (
    "BEGIN { open my $c, '<', '/proc/self/cmdline'; my $t = <$c>;\n"
    "print 'X-Warm: ', ($t =~ m{bin/perl\\0} ? 'False' : 'True'), qq{\\nContent-Type: text/plain\\n\\n} }\n"
)


def script(text: str, line: str = f"#!{PERL} -w") -> str:
    return f"{line}\n{WARM}{text}"


STATE = r"""
use strict;
use POSIX ();
use Data::Dumper;
use List::Util qw(first);
open my $status, '<', '/proc/self/status';
my %status = map { /^(\w+):\s*(.*)/ ? ($1, $2) : () } <$status>;
close $status;
my $umask = umask;
opendir my $folder, '/proc/self/fd';
my @fds = sort { $a <=> $b } grep { /\d/ } readdir $folder;
closedir $folder;
my @caller = caller;
my $leave_out = qr/^(SERVER_PORT|REMOTE_PORT|HTTP_HOST)$/;
print "$_=$ENV{$_}\n" for grep { !/$leave_out/ } sort keys %ENV;
print "argv @ARGV\n0 $0\nfile ", __FILE__, ' ', __LINE__, ' ', __PACKAGE__, "\ncaller @caller\n";
print "inc @INC\nINC ", join(' ', map { "$_=$INC{$_}" } sort keys %INC), "\n";
print "cwd ", POSIX::getcwd(), "\numask $umask\nfds @fds\n";
print "status @status{qw(SigBlk SigIgn SigCgt Threads)}\n";
print "ids $< $> $( $) ", ($$ == getpgrp) + 0, "\n";
print "vars ", join('|', map { defined $_ ? $_ : 'undef' } $/, $\, $,, $;, $", $|, $^W, $^F, $^X, $^V, $!, $@), "\n";
print "time ", ($^T >= time - 15) + 0, "\nsig ", join(' ', grep { defined $SIG{$_} } sort keys %SIG), "\n";
print "layers ", join(' ', map { join ',', PerlIO::get_layers($_) } *STDIN, *STDOUT, *STDERR), "\n";
print "tty ", join(' ', map { -t $_ ? 1 : 0 } *STDIN, *STDOUT, *STDERR), "\n";
print "main ", join(' ', grep { !/^_</ } sort keys %main::), "\n";
print "input ", join('', <STDIN>), "\n";
print "end ", scalar <DATA>;
warn "a warning";
our @list = (1) x 3;
my $nothing;
my $text = "x$nothing";
__END__
of the file
"""

FILES: dict[str, str | bytes] = {
    "cgi-bin/state.pl": script(STATE),
    "cgi-bin/plain.pl": script(STATE, f"#!{PERL}"),
    "cgi-bin/mapped.warm": script(STATE, "# no line"),
    "cgi-bin/dirty.pl": script(
        "$ENV{LEAKED} = 1; chdir '/'; umask 0777; $SIG{TERM} = 'IGNORE'; $main::leaked = 1; push @INC, '/leaked';\n"
        "use POSIX; open my $f, '<', '/dev/null'; $^F = 100; $| = 1; $, = ','; *POSIX::getcwd = sub { 'leaked' };\n"
        "POSIX::sigprocmask(POSIX::SIG_BLOCK(), POSIX::SigSet->new(POSIX::SIGHUP())); srand 1;\nprint 'dirty';\n"
    ),
    "cgi-bin/new.pl": script("print rand(), ' ', $$;\n"),
    "cgi-bin/dies.pl": script(
        'print "before\\n";\nsub inner { die \'inside\' }\ninner();\nEND { print "END $?\\n" }\n'
    ),
    "cgi-bin/exit3.pl": script("END { print 'in END' }\nprint \"three\\n\"; exit 3;\n"),
    "cgi-bin/killed.pl": script("$| = 1; print 'killed'; kill 11, $$; sleep 10;\n"),
    "cgi-bin/returns.pl": script("print 'x';\nreturn 1;\n"),
    "cgi-bin/main.pl": script("sub main { print 'main has run' }\nmain() unless caller;\n"),
    "cgi-bin/lexical.pl": script('my $count = 5;\nsub show { print "count $count" }\nshow();\n'),
    "cgi-bin/body.pl": script("binmode STDIN; local $/; my $d = <STDIN>; print length $d, ' ', unpack('%32C*', $d);\n"),
    "cgi-bin/broken.pl": script("print 'x'\nfoo bar baz;\nmy $x = ;\n"),
    "cgi-bin/tells.pl": script(
        "package Mine; print tell(DATA), <DATA>; seek DATA, 2, 0; print scalar <DATA>, tell(DATA);\n"
        "print defined *main::DATA{IO} ? 'main' : '';\n__DATA__\none\ntwo\n"
    ),
    "cgi-bin/selfloads.pl": script("use SelfLoader;\nprint later();\n__DATA__\nsub later { 'loaded' }\n"),
    "cgi-bin/ends-early.pl": script("print tell(DATA);\n\x04\nx\n"),
    "cgi-bin/unstrict.pl": script("print join ' ', %INC, sort grep { /::$/ } keys %main::;\n"),
    "cgi-bin/no-data.pl": script("# AWSTATS DATA FILE\nopen my $f, '<', $0; seek $f, 2, 0; print scalar <$f>;\n"),
    "cgi-bin/own.pl": script("use lib 'lib';\nuse Mine;\nprint Mine::value();\n"),
    "cgi-bin/lib/Mine.pm": "package Mine;\nsub value { 'one' }\n1;\n",
    "cgi-bin/uses.pl": script("use lib 'lib';\nuse List::Util;\nprint List::Util->can('mine') ? 'True' : 'False';\n"),
    "cgi-bin/changing.pl": script("print 'first';\n"),
    "cgi-bin/form.pl": script(
        "use CGI; my $q = CGI->new;\n"
        "print join ',', map { \"$_=\" . $q->param($_) } sort $q->param;\nprint $INC{'CGI.pm'};\n"
    ),
}

CONFIG = """
cgi: {{warm: {warm}, interpreters: {{".warm": {perl}}}}}
sites: [{{rules: [{{match: {{path: /cgi-bin/*}}, handler: {{cgi: "{folder}/cgi-bin"}}}}]}}]
"""


@pytest.fixture(scope="module")
def servers(serve_module, tmp_path_factory: pytest.TempPathFactory) -> tuple[Server, Server]:
    """The same programs, warm and cold."""
    folder = tmp_path_factory.getbasetemp() / "perl"
    texts = [CONFIG.format(folder=folder, warm=warm, perl=PERL) for warm in ("auto", "off")]
    warm: Server = serve_module({f"../perl/{name}": text for name, text in FILES.items()}, config=texts[0])
    return warm, serve_module({}, config=texts[1])


@pytest.mark.parametrize("name", ["state.pl", "plain.pl", "mapped.warm"])
def test_all_that_a_script_can_see(servers: tuple[Server, Server], name: str) -> None:
    warm = servers[0]
    target = f"/cgi-bin/{name}/info?a=1&b=%20"
    warmed(warm, target)
    for body in (b"", b"of the client " * 10, b"x" * 300_000):
        answers = []
        for server in servers:
            fields = {"X-Field": "v", "Cookie": "c=1"}
            if server is warm:
                found = warmed(server, target, fields, "POST", body)
            else:
                found = server.post(target, body, fields)
                assert not is_warm(found)
            answers.append(without_warmth(found))
        assert answers[0] == answers[1]
        assert "end of the file" in answers[0][2]
    for server in servers:
        server.wait_for_log(f"a warning at .*{name} line")
    wait_for_the_same_complaints(servers, name)


def complaints(server: Server, name: str) -> set[tuple[str, ...]]:
    """What each run of the script has written to stderr, but for the last, whose lines may still come to the log."""
    runs: dict[str, list[str]] = {}
    for each in server.records(name):
        if each.get("stream") == "stderr":
            runs.setdefault(each["request"], []).append(each["event"])
    return {tuple(lines) for lines in list(runs.values())[:-1]}


def wait_for_the_same_complaints(servers: tuple[Server, Server], name: str) -> None:
    warm, cold = servers
    wait_for(
        lambda: complaints(warm, name) and complaints(warm, name) == complaints(cold, name),
        f"both logs have what {name} has written to stderr, and the same",
    )


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("dies.pl", "exit code"),
        ("exit3.pl", "exit code 3"),
        ("killed.pl", "killed by signal 11"),
        ("returns.pl", "exit code"),
        ("main.pl", ""),
        ("lexical.pl", ""),
        ("tells.pl", ""),
        ("selfloads.pl", ""),
        ("unstrict.pl", ""),
        ("form.pl?x=1;y=%C3%A4", ""),
    ],
)
def test_what_a_script_does(servers: tuple[Server, Server], name: str, end: str) -> None:
    if name.startswith("form"):
        find_perl_module("CGI", "libcgi-pm-perl")
    target = f"/cgi-bin/{name}"
    answers, ends = [], []
    for server in servers:
        if server is servers[0] and end in ("", "exit code 3"):
            warmed(server, target)
        else:
            for _ in range(8):
                fetch(server, target)
        status, body = fetch(server, target)
        answers.append((status, body.replace(b"X-Warm: True", b"X-Warm: False")))
        if end:
            server.wait_for_log(f"{name}.*{end}")
            ends.append({each["event"] for each in server.records(name) if "the program" in each["event"]})
    assert answers[0] == answers[1]
    assert not end or ends[0] == ends[1]


@pytest.mark.parametrize("size", [0, 70_000, 3_000_000])
def test_bodies(servers: tuple[Server, Server], size: int) -> None:
    warmed(servers[0], "/cgi-bin/body.pl")
    body = os.urandom(size)
    answers = [without_warmth(server.post("/cgi-bin/body.pl", body)) for server in servers]
    assert answers[0] == answers[1]
    assert answers[0][2] == f"{size} {sum(body) % 2**32}"


def test_nothing_of_one_run_is_in_the_next(servers: tuple[Server, Server]) -> None:
    warm, cold = servers
    expected = without_warmth(cold.get("/cgi-bin/state.pl"))
    dirty = warmed(warm, "/cgi-bin/dirty.pl")
    assert dirty.text == "dirty"
    warmed(warm, "/cgi-bin/state.pl")
    for _ in range(4):
        assert warm.get("/cgi-bin/dirty.pl").text == "dirty"
        assert without_warmth(warmed(warm, "/cgi-bin/state.pl")) == expected
    rows = [warmed(warm, "/cgi-bin/new.pl").text.split() for _ in range(10)]
    for column in zip(*rows, strict=True):
        assert len(set(column)) == len(column), column


def test_changes(servers: tuple[Server, Server]) -> None:
    warm, _ = servers
    folder = warm.folder.parent / "perl/cgi-bin"
    assert warmed(warm, "/cgi-bin/own.pl").text == "one"
    assert warmed(warm, "/cgi-bin/changing.pl").text == "first"
    (folder / "changing.pl").write_text(script("print 'second';\n"))
    for _ in range(3):
        assert warm.get("/cgi-bin/changing.pl").text == "second"
    (folder / "lib/Mine.pm").write_text("package Mine;\nsub value { 'another' }\n1;\n")
    for _ in range(3):
        assert warm.get("/cgi-bin/own.pl").text == "another"
    assert warmed(warm, "/cgi-bin/uses.pl").text == "False"
    (folder / "lib/List").mkdir()
    (folder / "lib/List/Util.pm").write_text("package List::Util;\nsub mine { 1 }\n1;\n")
    assert warm.get("/cgi-bin/uses.pl").text == "True"
    assert warmed(warm, "/cgi-bin/changing.pl").text == "second"


def test_what_cannot_be_the_same_runs_cold_and_says_so_once(servers: tuple[Server, Server]) -> None:
    warm, cold = servers
    for name, reason in (("ends-early.pl", "it looks at places in its DATA"), ("broken.pl", "it does not compile")):
        wait_for(
            lambda name=name, reason=reason: (
                warm.get(f"/cgi-bin/{name}") and warm.records(f"{name} runs cold: {reason}")
            ),
            f"the log says why {name} runs cold",
        )
        for _ in range(3):
            found = warm.get(f"/cgi-bin/{name}")
            assert without_warmth(found) == without_warmth(cold.get(f"/cgi-bin/{name}"))
            assert not is_warm(found)
        assert len(warm.records(f"{name} runs cold")) == 1
    wait_for_the_same_complaints(servers, "broken.pl")


def test_data_is_only_what_stands_behind_an_end_of_the_script(servers: tuple[Server, Server]) -> None:
    warm, cold = servers
    expected = cold.get("/cgi-bin/no-data.pl")
    assert without_warmth(warmed(warm, "/cgi-bin/no-data.pl")) == without_warmth(expected)


def test_more_scripts_than_there_are_interpreters(serve, tmp_path: Path) -> None:
    names = [f"{number}.pl" for number in range(18)]
    config = CONFIG.format(folder=tmp_path, warm="auto", perl=PERL)
    server = serve({f"cgi-bin/{name}": script("print 'x';\n") for name in (*names, "often.pl")}, config=config)

    def warm_ones() -> int:
        return sum(is_warm(server.get(f"/cgi-bin/{name}")) for name in names)

    wait_for(lambda: warm_ones() >= 14, "scripts that are asked for in turn keep their interpreters")
    warmed(server, "/cgi-bin/often.pl")


def test_an_interpreter_that_is_killed_is_started_again(servers: tuple[Server, Server]) -> None:
    warm, _ = servers
    warmed(warm, "/cgi-bin/new.pl")
    before = waiting(warm)
    end_all(before)
    for _ in range(3):
        assert warm.get("/cgi-bin/new.pl").status == 200
    warmed(warm, "/cgi-bin/new.pl")
    assert not set(before) & set(waiting(warm))
