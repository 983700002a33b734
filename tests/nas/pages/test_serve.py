"""Tests for `nas.report --serve`: a real server, and a real browser where there is one.

The page's numbers are compared with those put into the journal.
"""

import contextlib
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from nas import report
from nas.options import definition
from nas.options.definition import Definition
from nas.runs import run_folder
from search_space import codec, spaces
from tests.nas import trials

SPACE = spaces.load("mbconv")
FIRST = (0,) * len(SPACE.num_choices)
PROGRAM = """
import sys
from nas import report
from nas.pages import serve
serve._PATIENCE_SECONDS = float(sys.argv[1])
sys.exit(report.main(sys.argv[2:]))
"""
WHOLE_PAGE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
SAFETY = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
EVIL = "<img src=x onerror='window.hacked=1'>"


def child(index, reward, *, infeasible=None, metrics=(), **changes):
    """A measured child, or with `infeasible` one that was not."""
    facts = changes | {
        "tokens": (*FIRST[:-1], index % SPACE.num_choices[-1]),
        "finished": 1.7e9 + 60 * index,
    }
    macs = {"num_macs": 300_000_000 + index}
    if infeasible is not None:
        return trials.infeasible(index, infeasible, **facts)
    measured = {"accuracy": reward / 2} | macs | dict(metrics)
    return trials.completed(index, reward=reward, metrics=measured, **facts)


class Run:
    """A run's folder that grows."""

    def __init__(self, path, *, dataset="digits", controller="ppo", reward=None):
        path.mkdir()
        self.folder = run_folder.RunFolder(path)
        options = Definition(
            search=definition.SearchOptions(controller=controller),
            reward=reward or definition.RewardOptions(),
        )
        trials.write(self.folder, [], options=options, dataset=dataset)

    def add(self, *children):
        trials.add(self.folder, children)


class Server:
    """`nas.report --serve` in a process of its own."""

    def __init__(self, *folders, patience=30):
        names = [str(run.folder.path) for run in folders]
        self.process = subprocess.Popen(
            [
                sys.executable, "-c", PROGRAM, str(patience),
                *names, "--serve", "--port", "0",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        line = self.process.stdout.readline()
        self.url = line.split()[0]
        self.port = int(re.search(r"127\.0\.0\.1:(\d+)/", line)[1])

    def get(self, path, host="localhost"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(timeout=30)
        self.process.stdout.close()
        self.errors = self.process.stderr.read()
        self.process.stderr.close()
        return status

    def connect(self, request=b"", room=None):
        """Returns a socket that has sent `request`; `room` bytes are held for it."""
        stream = socket.socket()
        if room is not None:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        stream.settimeout(30)
        stream.connect(("127.0.0.1", self.port))
        stream.sendall(request)
        return stream

    def num_connections(self):
        held = psutil.Process(self.process.pid).net_connections()
        return sum(one.status == psutil.CONN_ESTABLISHED for one in held)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


@pytest.fixture
def serve():
    servers = []

    def start(*runs, **how):
        servers.append(Server(*runs, **how))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.stop()


def test_a_run_is_served_to_this_machine_alone(run, serve):
    run.add(child(0, 0.5))
    server = serve(run)
    addresses = {
        connection.laddr.ip
        for connection in psutil.Process(server.process.pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}
    for host in ("localhost", "127.0.0.1", f"localhost:{server.port}", "LOCALHOST"):
        assert server.get("/", host)[0] == 200
    for host in ("evil.example", f"evil.example:{server.port}", "localhost.evil", ""):
        status, text, _ = server.get("/view.json", host)
        assert status == 400
        assert "reward" not in text
    _, _, headers = server.get("/")
    assert headers["X-Frame-Options"] == "DENY"
    assert "Access-Control-Allow-Origin" not in headers
    assert server.get("/../../etc/passwd")[0] == 404

    _, text, _ = server.get("/view.json")
    version = json.loads(text)["version"]
    assert server.get(f"/view.json?seen={version}")[0] == 204
    run.add(child(1, 0.75))
    status, text, _ = server.get(f"/view.json?seen={version}")
    rewards = [one["reward"] for one in json.loads(text)["networks"]["children"]]
    assert (status, rewards) == (200, [0.5, 0.75])

    whole = run.folder.journal.read_bytes()
    run.folder.journal.write_bytes(whole + b"damage\n")
    status, text, _ = server.get("/view.json?seen=0")
    assert (status, text.count("\n")) == (503, 0)
    assert "journal.jsonl, line 4" in text
    run.folder.journal.write_bytes(whole)
    assert server.get("/view.json")[0] == 200
    assert server.stop() == 0


def test_every_answer_carries_the_headers_that_keep_others_out(run, serve):
    run.add(child(0, 0.5))
    server = serve(run)
    version = json.loads(server.get("/view.json")[1])["version"]
    answers = {
        200: server.get("/"),
        204: server.get(f"/view.json?seen={version}"),
        404: server.get("/family.html"),
        400: server.get("/", host="evil.example"),
    }
    run.folder.journal.write_bytes(b"damage\n")
    answers[503] = server.get("/")
    for status, (found, _, headers) in answers.items():
        assert found == status
        assert {name: headers[name] for name in SAFETY} == SAFETY
        assert headers.get_all("X-Frame-Options") == ["DENY"]
    with server.connect(b"no request at all\r\n\r\n") as stream:
        answer = http.client.HTTPResponse(stream)
        answer.begin()
        assert answer.status == 400
        assert {name: answer.headers[name] for name in SAFETY} == SAFETY


def test_ctrl_c_does_not_wait_for_a_reader_that_stalls(run, serve):
    run.add(child(0, 0.5))
    server = serve(run)
    with server.connect(WHOLE_PAGE, room=4096) as stalled, server.connect():
        assert stalled.recv(10) == b"HTTP/1.1 2"
        pressed = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - pressed < 10
    assert server.errors == ""


def test_readers_that_stall_hold_little_and_are_let_go(run, serve):
    """The page has more than 4 MB, of which each would hold what it has not read."""
    run.add(child(0, 0.5))
    server = serve(run, patience=4)
    assert len(server.get("/")[1]) > 4e6
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stalled = stack.enter_context(server.connect(WHOLE_PAGE, room=4096))
            assert stalled.recv(10) == b"HTTP/1.1 2"
        assert process.memory_info().rss - before < 25e6
        assert server.num_connections() == 10
        until(lambda: server.num_connections() == 0)
    assert server.get("/")[0] == 200


def test_connections_that_ask_for_nothing_are_limited(run, serve):
    run.add(child(0, 0.5))
    server = serve(run, patience=120)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(server.connect()) for _ in range(100)]
        until(lambda: server.num_connections() <= 32)
        asking = next(one for one in idle if is_open(one))
        asking.sendall(WHOLE_PAGE)
        with contextlib.closing(http.client.HTTPResponse(asking)) as answer:
            answer.begin()
            assert answer.status == 503  # more are open than a browser needs
            assert answer.headers["X-Frame-Options"] == "DENY"


def test_connections_that_ask_for_nothing_are_let_go(run, serve):
    run.add(child(0, 0.5))
    server = serve(run, patience=1)
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(server.connect())
        until(lambda: server.num_connections() == 0)
    assert server.get("/")[0] == 200


def is_open(stream):
    stream.settimeout(0)
    try:
        return stream.recv(1) != b""
    except BlockingIOError:
        stream.settimeout(30)
        return True
    except ConnectionResetError:
        return False


def test_a_journal_that_takes_anothers_place_is_noticed(tmp_path, serve):
    one, other = Run(tmp_path / "one"), Run(tmp_path / "other", controller="random")
    one.add(child(0, 0.5))
    other.add(child(0, 0.25), child(1, 0.125), child(2, 0.75))
    server = serve(one, other)
    columns = "<td>1</td><td>0</td><td>0.5000</td>"
    assert columns in json.loads(server.get("/view.json")[1])["sections"][0]["html"]
    version = json.loads(server.get("/view.json")[1])["version"]

    same_size = one.folder.journal.read_bytes().replace(b"0.5,", b"0.7,")
    one.folder.journal.write_bytes(same_size)
    status, text, _ = server.get(f"/view.json?seen={version}")
    assert status == 200
    assert "<td>0.7000</td>" in json.loads(text)["sections"][0]["html"]

    larger = other.folder.journal.read_bytes()
    one.folder.journal.write_bytes(larger)
    status, text, _ = server.get("/view.json")
    assert status == 200
    assert json.loads(text)["sections"][0]["html"].count("<td>0.7500</td>") == 2

    (tmp_path / "secret").write_text("not for others")
    one.folder.journal.unlink()
    one.folder.journal.symlink_to(tmp_path / "secret")
    status, text, _ = server.get("/view.json")
    assert status == 503
    assert "must hold no symbolic links" in text
    assert "not for others" not in text


def test_the_page_of_one_search_does_not_show_another(tmp_path, serve):
    one, other = Run(tmp_path / "one"), Run(tmp_path / "other", controller="random")
    one.add(child(0, 0.5))
    other.add(child(0, 0.25), child(1, 0.125))
    server = serve(one)
    one.folder.journal.write_bytes(other.folder.journal.read_bytes())
    status, text, _ = server.get("/view.json")
    assert status == 503
    assert "now holds another search" in text


def test_what_cannot_be_served_ends_in_one_line(run, serve, capsys):
    run.add(child(0, 0.5))
    server = serve(run)
    for port in (str(server.port), "-1", "65536", "99999999999999999999"):
        path = str(run.folder.path)
        assert report.main([path, "--serve", "--port", port]) == 2
        error = capsys.readouterr().err
        assert error.startswith("nas.report: --port must be")
        assert error.count("\n") == 1


def test_runs_are_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    one, two = Run(tmp_path / "a"), Run(tmp_path / "b<b>", controller="random")
    one.add(child(0, 0.5), child(1, 0.25), child(2, 0.75))
    two.add(child(0, 0.625), child(1, 0.5, infeasible="no"))
    assert report.main(["a", "b<b>"]) == 0
    assert capsys.readouterr().out == "comparison.html\n"
    text = Path("comparison.html").read_text()
    assert "<td>b&lt;b&gt;</td><td>random, seed 0</td><td>mbconv</td><td>2</td>" in text
    data = re.search(r'id="data">(.*?)</script>', text)[1]
    sections = {section["id"]: section for section in json.loads(data)["sections"]}
    best, other = sections["best-so-far"]["figure"]["data"]
    assert (best["name"], best["y"]) == ("a", [0.5, 0.5, 0.75])
    assert (other["name"], other["y"]) == ("b&lt;b&gt;", [0.625])
    fronts = sections["fronts"]["figure"]
    assert fronts["data"][0]["customdata"] == [0, 2]
    assert fronts["layout"]["yaxis"]["title"]["text"] == "validation accuracy"
    assert "The runs differ in" not in text
    assert report.main(["a", "a"]) == 2

    other = Run(tmp_path / "c", dataset="cifar10")
    other.add(child(0, 0.5))
    assert report.main(["a", "c", "--output", "x.html"]) == 0
    assert "The runs differ in data set" in Path("x.html").read_text()


def test_fronts_are_compared_over_what_all_runs_weigh(tmp_path, monkeypatch):
    """Latencies where both weigh those; else multiply-adds, which both count."""
    monkeypatch.chdir(tmp_path)
    latency = definition.RewardOptions(target_latency=20.0, latency_table="t.json")
    for name, reward in (("a", latency), ("b", latency), ("c", None), ("d", None)):
        run = Run(tmp_path / name, reward=reward)
        run.add(child(0, 0.5, metrics={"latency_ms": 12.5} if reward else {}))
    sections = {}
    for one, other in (("a", "b"), ("a", "c"), ("c", "d")):
        assert report.main([one, other]) == 0
        text = Path("comparison.html").read_text()
        data = re.search(r'id="data">(.*?)</script>', text)[1]
        found = {section["id"]: section for section in json.loads(data)["sections"]}
        sections[one + other] = found
        is_mixed = one + other == "ac"
        assert ("The runs differ in" in text) == is_mixed
        if is_mixed:
            assert "reward and objectives" in text
    for pair, title, value in (
        ("ab", "latency_ms [ms]", 12.5),
        ("ac", "multiply-adds", 300_000_000),
        ("cd", "multiply-adds", 300_000_000),
    ):  # fmt: skip
        figure = sections[pair]["fronts"]["figure"]
        assert figure["layout"]["xaxis"]["title"]["text"] == title
        assert [line["x"] for line in figure["data"]] == [[value]] * 2
    shown = sections["ac"]["table"]["html"]
    assert "<td>accuracy 25.00%, latency_ms 12.5 ms</td>" in shown
    assert "<td>accuracy 25.00%, 300M multiply-adds</td>" in shown


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless chromium; Debian: chromium, chromium-driver."""
    paths = [shutil.which("chromium"), shutil.which("chromedriver")]
    if None in paths:
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for flag in ("headless=new", "no-sandbox", "disable-gpu"):
        options.add_argument(f"--{flag}")
    options.add_argument("--disable-background-networking")
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option(
        "prefs", {"download.default_directory": str(downloads)}
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(paths[1]))
    driver.downloads = downloads
    driver.set_window_size(1280, 900)
    yield driver
    driver.quit()


def rows(browser):
    return browser.execute_script(
        "return [...document.querySelectorAll('#children tbody tr')].map("
        "row => [...row.cells].slice(0, 3).map(cell => cell.textContent))"
    )


def text_of(browser, selector):
    return browser.execute_script(
        "return document.querySelector(arguments[0])?.textContent", selector
    )


def until(condition):
    """Waits for what a browser or a disk does in its own time."""
    end = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found


def test_the_file_in_a_browser(browser, tmp_path):
    run = Run(tmp_path / "run", dataset=EVIL)
    run.add(child(0, 0.5), child(1, 0.75), child(2, 0, infeasible=EVIL), child(3, 0.25))
    assert report.main([str(run.folder.path)]) == 0
    browser.get(run.folder.report.as_uri())
    assert rows(browser) == [
        ["1", "0.7500", "37.50%"], ["0", "0.5000", "25.00%"], ["3", "0.2500", "12.50%"]
    ]  # fmt: skip
    assert text_of(browser, "#picked h2") == "Child 1, the best"
    assert EVIL in text_of(browser, "#failures")
    assert EVIL in text_of(browser, "#details")
    assert browser.execute_script("return window.hacked") is None

    browser.execute_script("document.querySelector('#children th button').click()")
    assert [row[0] for row in rows(browser)] == ["0", "1", "3"]
    browser.execute_script("document.querySelector('#children th button').click()")
    assert [row[0] for row in rows(browser)] == ["3", "1", "0"]

    # The lowest point of the plot is child 3's: the cursor goes there.
    from selenium.webdriver import ActionChains

    points = browser.find_elements("css selector", "#tradeoff .points path")
    assert len(points) == 3
    ActionChains(browser).move_to_element(points[2]).perform()
    until(lambda: text_of(browser, "#picked h2") == "Child 3")
    third = SPACE.decode(child(3, 0).tokens)
    assert text_of(browser, "#picked li").startswith("MBConv")

    browser.execute_script("document.querySelector('#picked button').click()")
    file = browser.downloads / f"{third.name}.json"
    until(lambda: file.exists() and file.stat().st_size)
    assert codec.load_file(file) == third
    assert json.loads(file.read_text())["found"]["tokens"] == list(child(3, 0).tokens)
    assert browser.get_log("browser") == []


def test_the_live_page_follows_a_search(browser, run, serve):
    server = serve(run)
    browser.get(server.url)
    assert "0 of 10" in text_of(browser, "#summary")
    run.add(child(0, 0.5))
    until(lambda: rows(browser) == [["0", "0.5000", "25.00%"]])
    run.add(child(1, 0.75), child(2, 0, infeasible="diverged at step 7"))
    until(lambda: "3 of 10" in text_of(browser, "#summary"))
    assert [row[0] for row in rows(browser)] == ["1", "0"]
    assert text_of(browser, "#picked h2") == "Child 0"  # what was looked at stays
    assert "diverged at step 7" in text_of(browser, "#failures")
    assert browser.get_log("browser") == []
    server.stop()
    until(lambda: "no longer answers" in text_of(browser, "#notice"))


def test_the_page_fits_a_phone(browser, run):
    run.add(*(child(index, 0.5 + index / 100) for index in range(5)))
    assert report.main([str(run.folder.path)]) == 0
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        browser.get(run.folder.report.as_uri())
        width = "return document.documentElement.scrollWidth"
        assert browser.execute_script(width) == 390
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
