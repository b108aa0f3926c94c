"""The playground in real Chromium, as somebody uses it who wants to try a model."""

from __future__ import annotations

import base64
import json
import re
import struct
import subprocess
import threading
import urllib.request
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.real.browser import PATIENCE, Browser, Element
from tests.real.cogkit_process import start_cogkit

pytestmark = pytest.mark.one_release_is_enough

ENTER, CONTROL, TAB = "\ue007", "\ue009", "\ue004"


def png(red: int, green: int, blue: int) -> bytes:
    """A picture in one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes([red, green, blue]) * 160) * 90
    head = struct.pack(">IIBBBBB", 160, 90, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def wav() -> bytes:
    samples = bytes(range(256)) * 8
    head = b"RIFF" + struct.pack("<I", 36 + len(samples)) + b"WAVEfmt "
    return (
        head + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8) + b"data" + struct.pack("<I", len(samples)) + samples
    )


PICTURE = data_url("image/png", png(40, 110, 200))

INPUTS: dict[str, Any] = {
    "prompt": {"type": "string", "title": "Prompt", "description": "What to draw.", "x-order": 0},
    "picture": {"type": "string", "format": "uri", "title": "Picture", "nullable": True, "x-order": 1},
    "steps": {"type": "integer", "title": "Steps", "minimum": 1, "maximum": 50, "default": 20, "x-order": 2},
    "scale": {"type": "number", "title": "Scale", "minimum": 0.5, "default": 7.5, "x-order": 3},
    "size": {"allOf": [{"$ref": "#/components/schemas/size"}], "default": "small", "x-order": 4},
    "tiled": {"type": "boolean", "title": "Tiled", "default": True, "x-order": 5},
    "exact": {"type": "boolean", "title": "Exact", "nullable": True, "default": None, "x-order": 6},
    "words": {"type": "array", "items": {"type": "string"}, "title": "Words", "default": ["a"], "x-order": 7},
    "options": {"type": "object", "title": "Options", "nullable": True, "x-order": 8},
    "either": {"anyOf": [{"type": "string"}, {"type": "number"}], "title": "Either", "default": 3, "x-order": 9},
    "token": {"type": "string", "format": "password", "x-cog-secret": True, "nullable": True, "x-order": 10},
    "old": {"type": "string", "default": "", "deprecated": True, "x-order": 11},
}


class Model(ThreadingHTTPServer):
    """A server that answers as Cog's does; what it gives depends on the prompt."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ModelHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.requests: list[dict[str, Any]] = []
        self.go_on = threading.Event()
        self.canceled: dict[str, threading.Event] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def schema(self) -> dict[str, Any]:
        # In no order, as JSON objects have none.
        properties = dict(sorted(INPUTS.items()))
        schemas = {
            "Input": {"type": "object", "properties": properties, "required": ["prompt"]},
            "Output": {"type": "array", "items": {"type": "string"}, "x-cog-array-display": "concatenate"},
            "size": {"type": "string", "enum": ["small", "large"]},
        }
        return {"paths": {"/predictions": {"post": {"x-cog-streaming": True}}}, "components": {"schemas": schemas}}


class _ModelHandler(BaseHTTPRequestHandler):
    server: Model
    timeout = PATIENCE

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        known: dict[str, object] = {"/health-check": {"status": "READY"}, "/openapi.json": self.server.schema()}
        self._answer(200 if self.path in known else 404, known.get(self.path, {}))

    def do_POST(self) -> None:
        id = self.path.split("/")[2]
        waiting = self.server.canceled.get(id)
        if waiting is not None:
            waiting.set()
        self._answer(200 if waiting is not None else 404, {})

    def do_PUT(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        id = self.path.split("/")[2]
        self.server.requests.append(asked["input"])
        prompt = asked["input"].get("prompt")
        if prompt == "reject":
            loc = ["body", "input", "steps"]
            self._answer(422, {"detail": [{"loc": loc, "msg": "too many for a Monday", "type": "value_error"}]})
        elif self.headers.get("Prefer") == "respond-async":
            self._answer(202, {"id": id, "status": "starting"})
            threading.Thread(target=self._call_back, args=(id, asked), daemon=True).start()
        elif self.headers.get("Accept") == "text/event-stream":
            self._stream(id, prompt)
        else:
            self._answer(200, self._result(id, prompt, asked))

    def _result(self, id: str, prompt: str, asked: dict[str, Any]) -> dict[str, Any]:
        outputs: dict[str, object] = {
            "picture": PICTURE,
            "sound": data_url("audio/wav", wav()),
            "film": data_url("video/webm", b"not really"),
            "file": data_url("application/zip", b"PK"),
            "pictures": {"first": PICTURE, "score": 0.5},
            "object": {"label": "cat", "score": 0.97},
            "html": "<img src=x onerror=alert(1)>",
        }
        metrics = {"predict_time": 1.25, "tokens": 7}
        if prompt == "fail":
            return {"id": id, "status": "failed", "error": "no such colour", "logs": "Traceback\n", "metrics": metrics}
        ended = {"id": id, "status": "succeeded", "output": outputs.get(prompt, prompt)}
        return {**ended, "input": asked["input"], "logs": "step 1\nstep 2\n", "metrics": metrics}

    def _stream(self, id: str, prompt: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        canceled = self.server.canceled[id] = threading.Event()
        self._event("start", {"id": id, "status": "processing"})
        self._event("output", {"chunk": "Once upon", "index": 0})
        self._event("log", {"source": "stdout", "data": "a line\n"})
        if prompt == "forever":
            status = "canceled" if canceled.wait(PATIENCE) else "failed"
            self._event("completed", {"id": id, "status": status, "output": ["Once upon"], "metrics": {}})
            return
        self.server.go_on.wait(PATIENCE)
        self._event("metric", {"name": "tokens", "value": 2, "mode": "replace"})
        self._event("output", {"chunk": " a time", "index": 1})
        self._event(
            "completed",
            {"id": id, "status": "succeeded", "output": ["Once upon", " a time"], "metrics": {"predict_time": 0.5}},
        )

    def _call_back(self, id: str, asked: dict[str, Any]) -> None:
        ended = self._result(id, asked["input"]["prompt"], asked)
        for state in ({"id": id, "status": "processing", "output": "half"}, ended):
            body = json.dumps(state).encode()
            sent = urllib.request.Request(asked["webhook"], body, {"Content-Type": "application/json"})
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            opener.open(sent, timeout=PATIENCE).close()
            if state is not ended:
                self.server.go_on.wait(PATIENCE)

    def _event(self, name: str, value: object) -> None:
        self.wfile.write(f"event: {name}\ndata: {json.dumps(value)}\n\n".encode())

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    served = Model()
    yield served
    served.go_on.set()
    served.shutdown()
    served.server_close()


@pytest.fixture(scope="module")
def url(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page that ``cogkit playground`` serves for the model."""
    arguments = ("playground", model.url, "--no-open", "--webhook-host", "127.0.0.1")
    process = start_cogkit(*arguments, cwd=tmp_path_factory.mktemp("playground"), env={})
    assert process.stderr is not None and process.stdout is not None
    try:
        line = process.stderr.readline().decode()
        found = re.fullmatch(rf"Playground for {model.url} at (http://127\.0\.0\.1:\d+/)\n", line)
        assert found, line + process.stderr.read().decode()
        yield found[1]
        process.send_signal(2)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        process.stdout.close()


@pytest.fixture
def page(browser: Browser, model: Model, url: str) -> Browser:
    """The page, opened anew, with its form."""
    model.go_on.clear()
    browser.go(url)
    browser.run("sessionStorage.clear()")
    browser.go(url)
    browser.wait("the form appears", lambda: controls(browser, "prompt"))
    browser.complaints()
    return browser


def field(page: Browser, name: str) -> Element:
    """The control of an input, by what a screen reader calls it."""
    found = controls(page, name)
    assert found, f"no input is called {name}"
    return found[0]


def controls(page: Browser, name: str = "") -> list[Element]:
    everything = page.find_all("#fields input, #fields textarea, #fields select")
    return [each for each in everything if re.match(rf"{name}\b", each.label)]


def run_it(page: Browser, prompt: str, mode: str = "wait") -> None:
    page.find(f'input[name="mode"][value="{mode}"]').click()
    field(page, "prompt").clear()
    field(page, "prompt").type(prompt)
    page.find("#run").click()


def status_is(page: Browser, text: str) -> None:
    page.wait(f"the status is {text}", lambda: page.find("#status").text.startswith(text))


def test_every_input_has_a_control_with_a_name_in_the_models_order(page: Browser) -> None:
    labels = [each.label for each in page.find_all("#fields input, #fields textarea, #fields select")]
    assert all(labels)
    names = [re.split(r"\W", label)[0] for label in labels]
    assert list(dict.fromkeys(names)) == list(INPUTS)
    buttons = page.find_all("button")
    assert all(each.label for each in buttons if each.is_shown)
    assert field(page, "steps").get("value") == "20"
    assert field(page, "steps").get("type") == "number"
    assert field(page, "tiled").get("checked") is True
    assert field(page, "token").get("type") == "password"
    assert "deprecated" in field(page, "old").label
    assert page.complaints() == []


def test_what_is_entered_arrives_as_json_of_the_right_types(page: Browser, model: Model, tmp_path: Path) -> None:
    (tmp_path / "blue.png").write_bytes(png(0, 0, 255))
    field(page, "picture").type(str(tmp_path / "blue.png"))
    field(page, "steps").clear()
    field(page, "steps").type("33")
    field(page, "scale").clear()
    field(page, "scale").type("0.75")
    field(page, "size").type("large")
    field(page, "tiled").click()
    field(page, "exact").type("false")
    page.wait("a button to add a word", lambda: _button(page, "Add to words")).click()
    page.focused().type("b")
    field(page, "options").type('{"deep": [1, null]}')
    field(page, "either").clear()
    field(page, "either").type("five")
    field(page, "token").type("hunter2")
    run_it(page, "all of it")
    status_is(page, "Succeeded")
    assert model.requests[-1] == {
        "prompt": "all of it",
        "picture": data_url("image/png", png(0, 0, 255)),
        "steps": 33,
        "scale": 0.75,
        "size": "large",
        "tiled": False,
        "exact": False,
        "words": ["a", "b"],
        "options": {"deep": [1, None]},
        "either": "five",
        "token": "hunter2",
    }
    # Nothing of the secret stays.
    assert "hunter2" not in page.run("return JSON.stringify(sessionStorage) + document.body.innerHTML")


def _button(page: Browser, label: str) -> Element | None:
    return next((each for each in page.find_all("button") if each.label == label), None)


def test_a_file_can_be_dropped(page: Browser, model: Model) -> None:
    page.run("""
        const transfer = new DataTransfer();
        transfer.items.add(new File(["dropped"], "note.txt", { type: "text/plain" }));
        for (const name of ["dragenter", "dragover", "drop"]) {
          const event = new DragEvent(name, { dataTransfer: transfer, bubbles: true, cancelable: true });
          document.querySelector(".drop").dispatchEvent(event);
        }
    """)
    assert page.find(".chosen").text == "note.txt (7 bytes)"
    run_it(page, "dropped")
    status_is(page, "Succeeded")
    assert model.requests[-1]["picture"] == data_url("text/plain", b"dropped")


def test_what_cannot_be_sent_is_marked_and_gets_the_focus(page: Browser, model: Model) -> None:
    before = len(model.requests)
    field(page, "steps").clear()
    field(page, "steps").type("51")
    page.find("#run").click()
    prompt = page.focused()
    assert prompt.label.startswith("prompt") and prompt.attribute("aria-invalid") == "true"
    faults = [each.text for each in page.find_all(".fault") if each.is_shown]
    assert faults == ["This input is required.", "This must be at most 50."]
    described = (prompt.attribute("aria-describedby") or "").split()
    assert "This input is required." in [page.find(f"#{id}").text for id in described]
    assert len(model.requests) == before
    field(page, "steps").clear()
    run_it(page, "reject")
    page.wait("the model's word is shown", lambda: "too many for a Monday" in page.find("#fields").text)
    assert page.focused().label.startswith("steps")
    status_is(page, "Failed")


def test_text_is_shown_while_it_is_made(page: Browser, model: Model) -> None:
    run_it(page, "story", mode="stream")
    page.wait("the first words are shown", lambda: page.find("#output").text == "Once upon")
    assert page.find("#output").attribute("aria-busy") == "true"
    page.wait("the log is shown", lambda: page.find("#logs").get("textContent") == "a line\n")
    model.go_on.set()
    status_is(page, "Succeeded")
    assert page.find("#output").text == "Once upon a time"
    assert page.find("#output").attribute("aria-busy") == "false"
    assert page.find("#metrics").text.split() == ["tokens", "2", "predict_time", "0.500", "s"]
    assert page.complaints() == []


def test_a_prediction_can_be_canceled(page: Browser) -> None:
    run_it(page, "forever", mode="stream")
    page.wait("the first words are shown", lambda: page.find("#output").text == "Once upon")
    page.find("#cancel").click()
    status_is(page, "Canceled")
    page.wait("it can run again", lambda: page.find("#run").is_enabled)
    assert page.focused().label == "Run"


def test_a_prediction_in_the_background_reports_by_webhook(page: Browser, model: Model) -> None:
    run_it(page, "object", mode="webhook")
    page.wait("the first webhook is shown", lambda: page.find("#output").text == "half")
    status_is(page, "Running")
    model.go_on.set()
    status_is(page, "Succeeded")
    assert json.loads(page.find("#output").text) == {"label": "cat", "score": 0.97}
    assert page.complaints() == []


def test_outputs_are_shown_as_what_they_are(page: Browser) -> None:
    def shown(prompt: str, selector: str) -> Element:
        run_it(page, prompt)
        found = page.wait(f"{prompt} is shown", lambda: page.find(f"#output {selector}"))
        status_is(page, "Succeeded")
        return found

    picture = shown("picture", "img")
    page.wait("the picture is there", lambda: picture.get("naturalWidth") == 160)
    assert picture.label == "Output: output.png"
    assert shown("sound", "audio").get("controls") is True
    assert shown("film", "video").get("controls") is True
    link = shown("file", "a[download]")
    assert (link.attribute("download"), link.text) == ("output.zip", "Download output.zip (2 bytes)")
    assert shown("pictures", "dl dd img").is_shown
    assert json.loads(shown("object", "pre.json").text)["label"] == "cat"
    assert shown("html", "pre.text").text == "<img src=x onerror=alert(1)>"
    assert page.find_all("#output img") == []


def test_a_failure_says_why_and_shows_the_log(page: Browser) -> None:
    run_it(page, "fail")
    status_is(page, "Failed")
    assert page.find("#error").text == "no such colour"
    assert page.find("#logs").get("textContent") == "Traceback\n"


def test_history_stays_in_the_tab_and_fills_the_form_again(page: Browser, url: str) -> None:
    for prompt in ("first", "second"):
        run_it(page, prompt)
        page.wait(f"{prompt} is kept", lambda prompt=prompt: prompt in page.find("#history li").text)  # type: ignore[misc]
    page.go(url)
    page.wait("the form appears", lambda: page.find_all("#fields textarea"))
    page.find("#history li:nth-child(2) button").click()
    assert field(page, "prompt").get("value") == "first"
    assert page.find("#output").text == "first"
    page.find("#forget").click()
    assert page.find_all("#history li") == []


def test_the_curl_command_does_the_same(page: Browser, model: Model, tmp_path: Path) -> None:
    (tmp_path / "it's blue.png").write_bytes(png(0, 0, 255))
    page.find("#curl-box summary").click()
    page.find('input[name="mode"][value="wait"]').click()
    prompt = "it's $HOME `id` \\n"
    field(page, "prompt").type(prompt)
    page.wait("the command is whole", lambda: "\\\\n" in page.find("#curl").text)
    plain = _curled(page, tmp_path)
    field(page, "picture").type(str(tmp_path / "it's blue.png"))
    field(page, "token").type("hunter2")
    page.wait(
        "the file is in it", lambda: "base64 <" in page.find("#curl").text and "$TOKEN" in page.find("#curl").text
    )
    with_file = _curled(page, tmp_path)
    assert plain["prompt"] == with_file["prompt"] == prompt
    assert with_file["picture"] == data_url("image/png", png(0, 0, 255))
    assert with_file["token"] == "from the environment"
    assert f"{model.url}/predictions" in page.find("#curl").text


def _curled(page: Browser, folder: Path) -> dict[str, Any]:
    """The input that the shown command would send."""
    stand_in = 'curl() { for each; do case "$each" in @-) cat; return;; *\\"input\\"*) printf %s "$each"; esac; done; }'
    done = subprocess.run(
        ["sh", "-c", f"{stand_in}\n{page.find('#curl').get('textContent')}"],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "TOKEN": "from the environment"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)["input"]
    return found


def test_the_keyboard_is_enough(page: Browser, model: Model) -> None:
    page.run("document.activeElement.blur()")
    page.press(TAB)
    assert page.focused().label.startswith("prompt")
    page.focused().type("typed")
    page.press(CONTROL, ENTER)
    page.wait("it has run", lambda: page.find("#status").text in ("Running", "Succeeded"))
    model.go_on.set()
    status_is(page, "Succeeded")
    assert model.requests[-1]["prompt"] == "typed"


def test_nothing_comes_from_another_host(page: Browser, url: str) -> None:
    named = page.run("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert named and {urlsplit(name).netloc for name in named if not name.startswith("data:")} == {urlsplit(url).netloc}


def test_it_follows_the_users_taste_for_light_or_dark(page: Browser) -> None:
    colors = {}
    for scheme in ("dark", "light"):
        page.prefer(scheme)
        colors[scheme] = page.run("return getComputedStyle(document.body).backgroundColor")
    assert colors == {"light": "rgb(246, 247, 249)", "dark": "rgb(16, 20, 24)"}
