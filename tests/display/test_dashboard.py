"""The dashboard, over real sockets: who sees it, what it shows, what it never reads, how it follows a run and ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from pages import Visitor, events_within
from run_factory import make_run_folder
from summary_factory import make_summary
from waiting import LIMIT_S

from traceml_core.core.atomic_files import write_atomic
from traceml_core.dashboard.runs_folder import RunsFolder
from traceml_core.dashboard.server import DashboardServer, address_of, new_token
from traceml_core.dashboard.shown_runs import ShownRuns
from traceml_core.reporting.html.page import templates
from traceml_core.reporting.html.view import page_view
from traceml_core.reporting.stored_summary import load_summary
from traceml_core.reporting.summary import encode_summary
from traceml_core.transport.listener import open_listener

HOSTILE = "</script><script>alert(1)</script>"
FOLLOWS_WITHIN_S = 3.0


@pytest.fixture
def root(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def run(root):
    folder = make_run_folder(root, steps=60)
    load_summary(folder)
    return folder


@pytest.fixture
def visitor(root):
    root.mkdir(exist_ok=True)
    listener, token = open_listener(), new_token()
    address = address_of(listener, token)
    server = DashboardServer(root, listener, token)
    server.start()
    yield Visitor(address)
    server.end()
    assert server.wait(LIMIT_S)


def test_the_list_shows_every_run_with_its_verdict(run, root, visitor):
    make_run_folder(root, steps=20, name="killed", status=None)
    page = visitor.get("/")

    assert page.status == 200
    assert load_summary(run).primary_diagnosis.label in page.text
    assert f'href="/runs/{run.name}"' in page.text
    assert page.text.index("killed") < page.text.index("train-digits")
    assert "interrupted" in page.text


def test_a_run_is_shown_with_the_content_of_the_html_report(run, visitor):
    page = visitor.get(f"/runs/{run.name}")
    content = templates().get_template("content.html").render(view=page_view(load_summary(run)))

    assert content.strip() in page.text


def test_the_token_in_the_address_becomes_a_cookie_and_leaves_the_address(run, visitor):
    entered = visitor.get(f"/runs/{run.name}?token={visitor.token}", cookie="")

    assert entered.status == 303
    assert entered.headers["location"] == f"/runs/{run.name}"
    assert entered.headers["set-cookie"].startswith(visitor.cookie)
    assert "HttpOnly" in entered.headers["set-cookie"]
    assert visitor.get(f"//elsewhere?token={visitor.token}").headers["location"] == "/elsewhere"


@pytest.mark.parametrize("path", ["/", "/events", "/runs/x", "/assets/plotly.js", "/nothing"])
def test_without_the_token_nobody_sees_anything(visitor, path):
    cookies = ["", f"traceml_{visitor.port}=wrong", f"traceml_{visitor.port}=öß", f"traceml_1={visitor.token}"]
    answers = [visitor.get(path, cookie=cookie) for cookie in cookies]
    answers += [visitor.get(f"{path}?token={bad}", cookie="") for bad in ("", "wrong", visitor.token[:-1], "%ff")]

    assert {answer.status for answer in answers} == {403}
    assert {answer.text for answer in answers} == {
        "Open the address that TraceML printed: it carries the key to this page.\n"
    }


def test_it_answers_to_no_name_but_its_own(visitor):
    for host in ("evil.example", "127.0.0.1.evil.example:80", " ", "127.0.0.2", "localhost.evil.example"):
        assert visitor.get("/", host=host).status == 421


def test_it_answers_to_the_name_it_was_given_in_any_case(root):
    listener, token = open_listener(), new_token()
    server = DashboardServer(root, listener, token, hosts=["Node1.Example", "fe80::1"])
    visitor = Visitor(address_of(listener, token))
    server.start()

    for host in ("node1.example:80", "NODE1.EXAMPLE", "[fe80::1]:80"):
        assert visitor.get("/", host=host).status == 200
    server.end()
    assert server.wait(LIMIT_S)


def test_a_folder_of_any_name_is_followed(run, root, visitor):
    run.rename(root / "100%41")
    page = visitor.get("/runs/100%2541")

    assert page.status == 200
    assert re.search(r'data-events="([^"?]+)', page.text)[1] == "/runs/100%2541/events"


def test_the_list_may_be_asked_for_by_many_at_once(root):
    for number in range(30):
        (root / f"run{number}").mkdir(parents=True)
        (root / f"run{number}" / "final_summary.json").write_bytes(encode_summary(make_summary()))
    runs = ShownRuns(RunsFolder(root))
    with ThreadPoolExecutor(8) as pool:
        lists = [pool.submit(runs.all) for _ in range(40)]

    assert {len(listed.result()) for listed in lists} == {30}


def test_a_forwarded_port_is_fine(visitor):
    assert visitor.get("/", host="localhost:9999").status == 200


def test_it_can_only_be_read(run, visitor):
    assert {visitor.get("/", method=method).status for method in ("POST", "PUT", "DELETE", "OPTIONS")} == {405}


@pytest.fixture
def secret(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("final_summary.json", "live_summary.json"):
        (outside / name).write_bytes(encode_summary(make_summary(name="a-secret")))
    (outside / "manifest.json").write_text("{}")
    return outside


OUTSIDE = (
    "/runs/../outside",
    "/runs/..%2foutside",
    "/runs/%2e%2e%2foutside",
    "/runs/..",
    "/runs/.",
    "/runs/%00",
    "/runs/..%5coutside",
    "/../outside/final_summary.json",
    "/assets/..%2fpage.py",
    "/assets/../templates/run.html",
    "/runs/{outside}",
    "/runs/%2e%2e%2foutside/events",
)


def test_no_path_leads_out_of_the_runs_folder(run, secret, visitor):
    for path in OUTSIDE:
        answer = visitor.get(path.replace("{outside}", str(secret).replace("/", "%2f")))

        assert answer.status == 404, path
        assert "a-secret" not in answer.text


def test_links_are_not_followed(run, root, secret, visitor):
    (root / "linked").symlink_to(secret)
    inner = root / "inner"
    inner.mkdir()
    (inner / "manifest.json").write_bytes((run / "manifest.json").read_bytes())
    (inner / "final_summary.json").symlink_to(secret / "final_summary.json")

    assert visitor.get("/runs/linked").status == 404
    assert "a-secret" not in visitor.get("/runs/inner").text
    assert "a-secret" not in visitor.get("/").text
    assert "linked" not in visitor.get("/").text


def test_a_pipe_in_place_of_a_summary_does_not_keep_anybody_waiting(run, root, visitor):
    odd = root / "odd"
    odd.mkdir()
    os.mkfifo(odd / "final_summary.json")
    (odd / "manifest.json").write_bytes((run / "manifest.json").read_bytes())

    assert visitor.get("/runs/odd").status == 200
    assert visitor.get("/").status == 200


def test_names_and_errors_are_text(root, visitor):
    folder = root / "hostile <b>"
    folder.mkdir(parents=True)
    error = {"type": HOSTILE, "message": HOSTILE, "step": 1, "global_step": 1}
    summary = make_summary(name=HOSTILE, status="failed", error=error)
    (folder / "final_summary.json").write_bytes(encode_summary(summary))

    for page in (visitor.get("/"), visitor.get("/runs/hostile%20%3Cb%3E")):
        assert page.status == 200
        assert "alert(1)" in page.text
        assert "<script>alert" not in page.text
        assert "hostile <b>" not in page.text


def test_a_damaged_summary_is_a_sentence_with_its_remedy(run, visitor):
    for content in (b"", b"{", b"[" * 100_000, b'{"schema_version": "2.0"}', b"\xff"):
        (run / "final_summary.json").write_bytes(content)
        page = visitor.get(f"/runs/{run.name}")

        assert page.status == 200
        assert "traceml report --rebuild" in page.text
        assert (run / "final_summary.json").read_bytes() == content
        assert visitor.get("/").status == 200


def test_of_a_run_that_was_killed_the_last_that_was_seen_is_shown(root, visitor):
    folder = make_run_folder(root, steps=20, status=None)
    (folder / "live_summary.json").write_bytes(encode_summary(make_summary(status="running")))
    page = visitor.get(f"/runs/{folder.name}")

    assert "It ended without a report." in page.text
    assert "status-interrupted" in page.text
    assert not (folder / "final_summary.json").exists()


def test_every_answer_carries_the_policy_and_no_page_needs_more(run, visitor):
    for path in ("/", f"/runs/{run.name}", "/assets/report.css", "/nothing"):
        answer = visitor.get(path)
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == "'self'"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<[^>]+\s(style|on\w+)=", answer.text) or path.startswith("/assets")
        assert not re.search(r'(src|href)="(https?:)?//', answer.text)


def test_an_open_page_follows_its_live_run_within_three_seconds(root, visitor):
    folder = make_run_folder(root, steps=20, status=None, owner_lives=True)
    live = folder / "live_summary.json"
    live.write_bytes(encode_summary(make_summary(status="running", steps=1)))
    page = visitor.get(f"/runs/{folder.name}").text
    events = visitor.events(re.search(r'data-events="([^"]+)"', page)[1])

    live_summary = make_summary(status="running", steps=4321)
    write_atomic(live, encode_summary(live_summary))
    name, content = events_within(events, FOLLOWS_WITHIN_S)
    assert name == "page"
    assert "Still running, after 4,321 steps." in content

    write_atomic(folder / "final_summary.json", encode_summary(make_summary(steps=5432)))
    live.unlink()
    name, content = events_within(events, FOLLOWS_WITHIN_S)
    assert "5,432 steps" in content
    assert "Still running" not in content


def test_the_list_gets_a_new_run_by_itself(root, run, visitor):
    events = visitor.events(re.search(r'data-events="([^"]+)"', visitor.get("/").text)[1])
    make_run_folder(root, steps=5, name="another", status=None)

    assert "another" in events_within(events, FOLLOWS_WITHIN_S)[1]


def dashboard(*arguments, **popen):
    command = [sys.executable, "-m", "traceml_core", "dashboard", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_and_open_pages_are_told(run, root, number):
    process = dashboard(run, "--runs-dir", root)
    told = "".join(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
    visitor = Visitor(re.search(r"http\S+", told)[0])
    assert visitor.path == f"/runs/{run.name}"
    events = visitor.events(f"/runs/{run.name}/events")
    assert next(events)[0] == "page"

    process.send_signal(number)
    assert next(events)[0] == "end"
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert errors == ""
    with pytest.raises(OSError):
        visitor.get("/")


def test_what_it_cannot_do_is_one_line(run, root, tmp_path):
    taken = socket.create_server(("127.0.0.1", 0))
    cases = [
        ("--runs-dir", root, "--port", taken.getsockname()[1]),
        ("--runs-dir", tmp_path / "none"),
        ("no-such-run", "--runs-dir", root),
        *(("--runs-dir", root, "--host", host) for host in ("0.0.0.0", "", "::", "0", "\u00e9..x")),
    ]
    processes = [dashboard(*arguments) for arguments in cases]
    for process in processes:
        output, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 2
        assert output == ""
        assert errors.startswith("traceml: ")
        assert errors.count("\n") == 1
    taken.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere loopback is one address")
def test_the_address_that_is_printed_opens_however_it_was_spelled(run, root):
    process = dashboard("--runs-dir", root, "--host", "127.2")
    told = "".join(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
    visitor = Visitor(re.search(r"http\S+", told)[0])

    assert visitor.host == "127.0.0.2"
    assert visitor.get("/").status == 200
    process.terminate()
    process.communicate(timeout=LIMIT_S)


def test_a_run_that_was_killed_is_shown_without_a_report_being_built(root):
    folder = make_run_folder(root, steps=20, status=None)
    before = sorted(path.name for path in folder.iterdir())
    process = dashboard(folder)
    told = "".join(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
    page = Visitor(re.search(r"http\S+", told)[0]).get(f"/runs/{folder.name}")
    process.terminate()
    process.communicate(timeout=LIMIT_S)

    assert "`traceml report` with its folder builds it" in page.text
    assert sorted(path.name for path in folder.iterdir()) == before
