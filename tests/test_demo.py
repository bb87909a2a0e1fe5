"""The page on this machine: what it says, and whom it does not answer."""

import base64
import contextlib
import dataclasses
import http.client
import io
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import numpy as np
import pytest
from PIL import Image

from bit_tf import classifier as classifier_lib
from bit_tf import demo_server
from bit_tf import demonstration
from bit_tf import image_file
from bit_tf import neighbours
from bit_tf import prediction
from bit_tf import resnet_v2
from bit_tf import weights
from tests import programs
from tests.conftest import save_image

NASTY = "<img src=x onerror=alert(1)>\"'&"
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def weights_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "some.npz"
    model = resnet_v2.build("R26x0.5", 7, seed=0)
    head = model.get_layer("head").conv.kernel
    head.assign(np.random.default_rng(0).normal(size=head.shape) * 0.1)
    weights.save(path, model)
    return path


@pytest.fixture(scope="module")
def model(weights_path):
    return dataclasses.replace(
        classifier_lib.load(weights_path, image_size=32),
        class_names=("a", "b", "c", "d", "e", "f", NASTY),
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for number, value in enumerate((30, 70, 110, 150, 190, 230)):
        ending = ("png", "webp")[number % 2]
        save_image(root / "train" / f"<b>{number}.{ending}", value=value)
    return root


@pytest.fixture(scope="module")
def stored(model, images):
    """The features of the images, and one that is no longer there."""
    files = [str(f) for f in sorted((images / "train").iterdir())]
    rows = [
        {"file": p.name, "features": p.features.tolist()}
        for p in prediction.predict(model, files, features=True)
    ]
    rows[1:1] = [{"file": "broken.jpg", "error": "empty file"}]
    rows.append({"file": "gone/x.png", "features": rows[0]["features"][::-1]})
    path = images / "features.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return neighbours.read_features(path, num_features=model.num_features)


def demo_of(model, **kwargs):
    reading = image_file.Reading(max_pixels=10**6, on_bad="skip")
    kwargs = {"max_upload_mb": 1, "reading": reading, **kwargs}
    return demonstration.Demo(model, **kwargs)


@contextlib.contextmanager
def serving(demo):
    with demo_server.Server(0) as server:
        thread = threading.Thread(target=server.serve, args=(demo,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server(model, stored):
    with serving(demo_of(model, stored=stored)) as running:
        yield running


def ask(server, method, path, body=None, **headers):
    """Returns the status, the headers and the content of an answer."""
    link = http.client.HTTPConnection(*server.server_address, timeout=60)
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    link.request(method, path, body, names)
    answer = link.getresponse()
    found = answer.status, answer.headers, answer.read()
    link.close()
    return found


def refused(server, *arguments, **headers):
    """Returns the status and what the page would tell."""
    status, _, content = ask(server, *arguments, **headers)
    return status, json.loads(content)["error"]


def raw(server, text):
    """Returns what is answered to bytes of any kind, up to the end."""
    with socket.create_connection(server.server_address, timeout=60) as link:
        link.sendall(text)
        return b"".join(iter(lambda: link.recv(2**16), b"")).decode()


def picture(value=90, kind="PNG", size=(40, 30)):
    rng = np.random.default_rng(value)
    pixels = rng.integers(value - 20, value + 20, (*size, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind)
    return buffer.getvalue()


def test_the_page_needs_nothing_else_and_allows_nothing_else(server, model):
    status, headers, content = ask(server, "GET", "/")
    page = content.decode()
    assert status == 200 and f"<title>bit_tf: {model.about}</title>" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "//" not in re.sub(r"^ *// .*$", "", page, flags=re.MULTILINE)
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    (nonce,) = set(re.findall(r"'nonce-(.+?)'", policy))
    assert page.count(f'nonce="{nonce}"') == 2
    again = ask(server, "GET", "/?again")[1]["Content-Security-Policy"]
    assert nonce not in again


def test_every_answer_has_the_headers_that_browsers_heed(server):
    for method, path, status in (
        ("GET", "/", 200),
        ("GET", "/thumbnail/0", 200),
        ("GET", "/nothing", 404),
        ("POST", "/predict", 422),
        ("DELETE", "/", 501),
    ):
        found, headers, _ = ask(server, method, path)
        assert found == status
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_answer_is_what_is_predicted_of_the_file(
    server, model, tmp_path, kind
):
    content = picture(kind=kind)
    (tmp_path / "x").write_bytes(content)
    (expected,) = prediction.predict(model, [str(tmp_path / "x")])
    status, _, answer = ask(server, "POST", "/predict", content)
    found = json.loads(answer)
    assert status == 200 and found["seconds"] > 0
    assert len(found["classes"]) == demonstration.TOP_K < 7
    assert [c["name"] for c in found["classes"]] == list(expected.classes)
    # Another batch size: float32 rounding, as in test_predict.
    assert [c["value"] for c in found["classes"]] == pytest.approx(
        list(expected.probabilities), abs=1e-4
    )


def test_numbers_and_several_classes_are_told_as_such(model):
    content = picture()
    number = demo_of(
        dataclasses.replace(
            model,
            head="squared",
            class_names=("age",),
            logits=lambda images: 3.0 + 0 * images[:, 0, 0, :1],
        )
    )
    assert number.answer(content)["classes"] == [{"name": "age", "value": 3.0}]
    assert "Gives a number: age" in number.page("").decode()
    several = demo_of(dataclasses.replace(model, head="sigmoid"))
    assert "may have several" in several.page("").decode()
    values = [c["value"] for c in several.answer(content)["classes"]]
    (expected,) = prediction.predict(several.classifier, [content])
    assert values == pytest.approx(list(expected.probabilities), abs=1e-4)


def test_a_model_that_has_diverged_says_so(model):
    def logits(images):
        return np.nan * images[:, 0, 0, :1]

    broken = dataclasses.replace(
        model, head="squared", class_names=("age",), logits=logits
    )
    with pytest.raises(demonstration.RefusedError, match="diverged"):
        demo_of(broken).answer(picture())


def test_images_that_cannot_be_used_are_a_sentence(server, capfd):
    too_many = io.BytesIO()
    Image.new("1", (1001, 1000)).save(too_many, format="PNG")
    for content, said in (
        (b"", "empty"),
        (b"no image", "not an image that is known"),
        (picture()[:-900], "cannot be used"),
        (picture(kind="JPEG")[:200], "cannot be used"),
        (too_many.getvalue(), "1001x1000 pixels are more than 1,000,000"),
    ):
        status, text = refused(server, "POST", "/predict", content)
        assert status == 422 and said in text
    assert capfd.readouterr().err == ""
    assert ask(server, "POST", "/predict", picture())[0] == 200


def test_what_is_too_large_is_refused_before_it_is_read(server):
    head = b"POST /predict HTTP/1.0\r\nHost: localhost\r\nContent-Length: %d"
    # Nothing follows, and still there is an answer at once.
    began = time.monotonic()
    with socket.create_connection(server.server_address, timeout=60) as link:
        link.sendall(head % (10**6 + 1) + b"\r\n\r\n")
        answer = link.recv(2**16).decode()
    assert " 413 " in answer and time.monotonic() - began < 5
    # Who sends it all before listening is answered too.
    status, text = refused(server, "POST", "/predict", bytes(3 * 10**7))
    assert status == 413 and "30.0 MB" in text and "--max_upload_mb" in text
    # What is allowed is read to its end.
    assert refused(server, "POST", "/predict", bytes(10**6))[0] == 422


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("", 411),
        ("Transfer-Encoding: chunked", 411),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked", 411),
        ("Content-Length: -1", 400),
        ("Content-Length: 1e3", 400),
        ("Content-Length: 1\r\nContent-Length: 2", 400),
    ],
)
def test_a_length_that_is_missing_or_odd_is_refused(server, headers, status):
    text = f"POST /predict HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n\r\n"
    with socket.create_connection(server.server_address, timeout=60) as link:
        link.sendall(text.replace("\r\n\r\n\r\n", "\r\n\r\n").encode())
        assert f" {status} " in link.recv(2**16).decode()


def test_an_upload_that_stops_is_given_up(server, monkeypatch):
    monkeypatch.setattr(demo_server, "READ_SECONDS", 0.5)
    monkeypatch.setattr(demo_server, "_DISCARD_SECONDS", 0.5)
    head = b"POST /predict HTTP/1.0\r\nHost: localhost\r\nContent-Length: 99"
    assert " 408 " in raw(server, head + b"\r\n\r\nsome")
    # Nor does it help to send a byte now and then.
    with socket.create_connection(server.server_address, timeout=60) as link:
        link.sendall(head + b"\r\n\r\n")
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for _ in range(99):
                link.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() - began < 5
    # Who hangs up is no error of the program's.
    with socket.create_connection(server.server_address, timeout=60) as link:
        link.sendall(head + b"\r\n\r\nsome")
        link.shutdown(socket.SHUT_WR)
        assert " 400 " in link.recv(2**16).decode()


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:{port}",
        "evil.example:{port}",
        "user@127.0.0.1:{port}",
        "127.0.0.1:{port}:1",
        "0.0.0.0:{port}",
        "",
    ],
)
def test_other_names_of_this_machine_are_refused(server, host):
    host = host.format(port=server.server_port)
    for path in ("/", "/thumbnail/0"):
        assert ask(server, "GET", path, Host=host)[0] == 403
    assert ask(server, "POST", "/predict", picture(), Host=host)[0] == 403


def test_a_request_has_one_name(server):
    for hosts in ("", "Host: localhost\r\nHost: evil.example\r\n"):
        assert " 403 " in raw(server, f"GET / HTTP/1.0\r\n{hosts}\r\n".encode())


def test_own_names_are_answered_through_tunnels_too(server):
    for host in (f"localhost:{server.server_port}", "LOCALHOST", "127.0.0.1:1"):
        assert ask(server, "GET", "/", Host=host)[0] == 200
        own = {"Host": host, "Origin": f"http://{host}"}
        assert ask(server, "POST", "/predict", picture(), **own)[0] == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://127.0.0.1:{port}",
        "http://127.0.0.1:1",
        "http://localhost:{port}",
        "null",
    ],
)
def test_pages_of_others_get_no_prediction(server, origin):
    origin = origin.format(port=server.server_port)
    status, text = refused(server, "POST", "/predict", picture(), Origin=origin)
    assert status == 403 and "another site" in text


def test_there_is_nothing_but_the_page(server, images):
    for path in (
        "/bit_tf/demo.py",
        "/..%2f..%2fetc/passwd",
        "/../../etc/passwd",
        f"/thumbnail/{images}/train/0.png",
        "/thumbnail/../0",
        "/thumbnail/-1",
        "/thumbnail/7",
        "/thumbnail/",
        "/predict",
        "/thumbnail//0",
    ):
        assert refused(server, "GET", path)[0] == 404, path
    assert refused(server, "POST", "/", picture())[0] == 404
    assert refused(server, "POST", "/predict/x", picture())[0] == 404


def test_the_nearest_images_are_those_of_the_largest_cosine(
    server, model, stored
):
    content = picture(value=120)
    found = json.loads(ask(server, "POST", "/predict", content)[2])
    (own,) = prediction.predict(model, [content], features=True)
    read = {
        p.name: p.features
        for p in prediction.predict(model, stored.files[:-1], features=True)
    }
    # Of which there is no image any more.
    read[stored.files[-1]] = stored.directions[-1]
    cosines = {
        name: (own.features @ f)
        / (np.linalg.norm(own.features) * np.linalg.norm(f))
        for name, f in read.items()
    }
    expected = sorted(cosines, key=cosines.get, reverse=True)[:5]
    neighbours = found["neighbours"]
    assert [n["file"] for n in neighbours] == expected
    assert [n["cosine"] for n in neighbours] == pytest.approx(
        [cosines[name] for name in expected], abs=1e-5
    )
    assert [stored.files[n["index"]] for n in neighbours] == expected


def test_a_training_image_is_nearest_to_itself(server, stored):
    for index, file in enumerate(stored.files[:-1]):
        with open(file, "rb") as content:
            answer = ask(server, "POST", "/predict", content.read())[2]
        (first, *_) = json.loads(answer)["neighbours"]
        assert first["index"] == index
        assert first["cosine"] == pytest.approx(1, abs=1e-5)


def test_thumbnails_are_those_of_the_stored_images(server, stored):
    for index, file in enumerate(stored.files[:-1]):
        status, headers, content = ask(server, "GET", f"/thumbnail/{index}")
        assert status == 200 and headers["Content-Type"] == "image/jpeg"
        small = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        with Image.open(file) as image:
            # JPEG keeps the mean; the images are 40 apart.
            assert small.mean() == pytest.approx(
                np.asarray(image.convert("L")).mean(), abs=5
            )
    status, text = refused(server, "GET", f"/thumbnail/{index + 1}")
    assert status == 404 and "No such file" in text


def test_thumbnails_are_small_and_of_usable_files_only(model, tmp_path):
    files = [str(tmp_path / name) for name in ("wide.png", "bomb.png", "x")]
    Image.new("RGB", (900, 30)).save(files[0])
    Image.new("1", (1001, 1000)).save(files[1])
    (tmp_path / "x").write_text("a secret")
    demo = demo_of(model, stored=neighbours.Stored(files, np.zeros((3, 1))))
    with Image.open(io.BytesIO(demo.thumbnail(0))) as image:
        assert image.width == 224 and image.height in (7, 8)
    for index, said in ((1, "more than"), (2, "not an image"), (3, "no such")):
        with pytest.raises(demonstration.RefusedError, match=said):
            demo.thumbnail(index)


def test_one_image_is_predicted_at_a_time(model):
    running, most = itertools.count(), []
    busy = threading.Lock()

    def logits(images):
        most.append(not busy.acquire(blocking=False))
        time.sleep(0.1)
        busy.release()
        next(running)
        return model.logits(images)

    demo = demo_of(dataclasses.replace(model, logits=logits))
    with serving(demo) as server:
        threads = [
            threading.Thread(
                target=ask, args=(server, "POST", "/predict", picture())
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(most) == 4 and not any(most)


def test_names_are_escaped_and_the_page_has_no_script_of_others(model):
    page = demo_of(
        dataclasses.replace(
            model, about=NASTY, head="squared", class_names=(NASTY,)
        )
    ).page("x")
    assert b"<img src=x" not in page and page.count(b"&lt;img src=x") == 3
    # Nothing that makes markup of text.
    assert not re.search(rb"innerHTML|outerHTML|insertAdjacent|\.write", page)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("file,class_1", "no features of an image"),
        ("[1]", "no features of an image"),
        ('{"file": "a", "classes": []}', "--features --format=jsonl"),
        ('{"file": 1, "features": [1, 2]}', "no features of an image"),
        ('{"file": "a", "features": [1, "x"]}', "no features of an image"),
        ('{"file": "a", "features": [1, NaN]}', "no features of an image"),
        ('{"file": "a", "features": [[1, 2]]}', "no features of an image"),
        ('{"file": "a", "features": [1, 2, 3]}', "3 features, the model has 2"),
        ('{"file": "a", "error": "empty file"}', "no features of any image"),
    ],
)
def test_files_that_are_no_features_are_named(tmp_path, line, said):
    path = tmp_path / "features.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(ValueError, match=said):
        neighbours.read_features(path, num_features=2)
    path.write_text('{"file": "a", "features": [0, 0]}\n')
    found = neighbours.read_features(path, num_features=2)
    assert found.files == ["a"] and np.isfinite(found.directions).all()


def test_features_that_do_not_fit_are_noted(model, stored):
    (note,) = demo_of(model, stored=stored).prepare()
    assert "1 of 7 images are not where" in note
    here = neighbours.Stored(stored.files[:-1], stored.directions[:-1])
    assert demo_of(model, stored=here).prepare() == []
    assert demo_of(model).prepare() == []
    other = dataclasses.replace(here, directions=here.directions[:, ::-1])
    (note,) = demo_of(model, stored=other).prepare()
    assert "another model, or another --image_size?" in note


def test_a_port_that_is_taken_is_named(server):
    with pytest.raises(ValueError, match=f"port {server.server_port} cannot"):
        demo_server.Server(server.server_port)
    assert server.address.startswith("http://127.0.0.1:")


@pytest.fixture(scope="module")
def predicted(weights_path, images):
    """What the other program writes."""
    done = programs.run(
        "predict",
        *(f"--model={weights_path}", images / "train", "--features"),
        *("--format=jsonl", "--image_size=32"),
    )
    assert done.returncode == 0, done.stderr
    path = images / "predicted.jsonl"
    path.write_text(done.stdout)
    return path


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
)
def test_the_program_serves_until_it_is_ended(weights_path, predicted, number):
    with programs.start(
        "demo",
        f"--model={weights_path}",
        *(f"--features={predicted}", "--port=0", "--image_size=32"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            lines = list(itertools.islice(process.stdout, 2))
            (port,) = re.findall(r"http://127\.0\.0\.1:(\d+)/", lines[1])
            link = http.client.HTTPConnection("127.0.0.1", int(port))
            link.request("POST", "/predict", picture())
            answer = json.loads(link.getresponse().read())
            # Asked to end in the midst of a prediction.
            other = http.client.HTTPConnection("127.0.0.1", int(port))
            other.request("POST", "/predict", picture(size=(900, 900)))
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert "R26x0.5 of some.npz" in lines[0] and len(answer["classes"]) == 5
    assert len(answer["neighbours"]) == 5
    assert process.returncode == 0 and not errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--model"),
        (("--model=nowhere",), "nowhere"),
        (("--model={model}", "--features={empty}/no"), "No such file"),
        (("--model={model}", "--features={features}"), "has 1,024"),
        (("--model={model}", "--port={taken}"), "cannot be had"),
        (("--model={model}", "--batch_size=2"), "one image at a time"),
        (("--model={model}", "x.png"), "unexpected argument"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    weights_path, server, tmp_path, arguments, said
):
    features = tmp_path / "features.jsonl"
    features.write_text('{"file": "a", "features": [1, 2]}')
    known = {
        "model": weights_path,
        "taken": server.server_port,
        "empty": tmp_path,
        "features": features,
    }
    given = [a.format(**known) for a in arguments]
    done = programs.run("demo", "--port=0", *given, timeout=120)
    assert done.returncode == 1
    assert said in done.stderr and done.stderr.count("\n") == 1


class Browser:
    """Headless Chromium, asked through pipes by its DevTools protocol.

    Attributes:
        said: errors of the page's script, and what its policy kept out.
    """

    def __init__(self, root):
        pipes = [str(root / name) for name in ("in", "out")]
        for pipe in pipes:
            os.mkfifo(pipe)
        self._process = subprocess.Popen(
            [
                *("sh", "-c", 'exec "$@" 3<"$0/in" 4>"$0/out"', str(root)),
                *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"),
                *("--remote-debugging-pipe", f"--user-data-dir={root}/profile"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # In the order in which the shell opens them, or both wait for ever.
        self._to = os.fdopen(os.open(pipes[0], os.O_WRONLY), "wb")
        self._from = os.fdopen(os.open(pipes[1], os.O_RDONLY), "rb")
        self._numbers = itertools.count(1)
        self._session = {}
        self.said = []

    def call(self, method, **parameters):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        self._to.write(json.dumps(message | self._session).encode() + b"\0")
        self._to.flush()
        while True:
            found = self._receive()
            if found.get("id") == number:
                assert "error" not in found, found
                return found["result"]
            if found.get("method") in (
                "Runtime.exceptionThrown",
                "Runtime.consoleAPICalled",
                "Log.entryAdded",
            ):
                self.said.append(json.dumps(found["params"]))

    def _receive(self):
        message = bytearray()
        while (letter := self._from.read(1)) != b"\0":
            assert letter, "the browser has ended"
            message += letter
        return json.loads(message)

    def open(self, address):
        target = self.call("Target.createTarget", url="about:blank")
        attached = self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.port")

    def run(self, script):
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script):
        end = time.monotonic() + 60
        while not self.run(script):
            assert time.monotonic() < end, self.run("document.body.innerText")
            time.sleep(0.05)

    def give(self, event, content, name="x.png"):
        """Drops or pastes a file as a person does."""
        of, data = {
            "drop": ("DragEvent", "dataTransfer"),
            "paste": ("ClipboardEvent", "clipboardData"),
        }[event]
        text = base64.b64encode(content).decode()
        self.run(
            f"""(() => {{
              const bytes = Uint8Array.from(atob("{text}"),
                                            (c) => c.charCodeAt(0));
              const {data} = new DataTransfer();
              {data}.items.add(new File([bytes], {json.dumps(name)}));
              document.body.dispatchEvent(new {of}("{event}",
                {{ {data}, bubbles: true, cancelable: true }}));
            }})()"""
        )

    def close(self):
        with contextlib.suppress(OSError, AssertionError):
            self.call("Browser.close")
        with contextlib.suppress(OSError):
            self._to.close()
        self._from.close()
        self._process.wait(30)


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium")
def test_a_person_sees_classes_neighbours_and_errors(
    server, model, stored, images, tmp_path
):
    browser = Browser(tmp_path)
    try:
        browser.open(server.address)
        state = "document.getElementById('{}').textContent".format
        assert browser.run("document.title") == f"bit_tf: {model.about}"
        # Dropped; names are text.
        content = picture()
        (expected,) = prediction.predict(model, [content])
        browser.give("drop", content, name=NASTY)
        browser.wait("document.querySelectorAll('li').length === 5")
        assert browser.run(state("name")) == NASTY
        names = "[...document.querySelectorAll('li span:first-child')]"
        assert browser.run(f"{names}.map((n) => n.textContent)") == list(
            expected.classes
        )
        assert NASTY in expected.classes
        percents = browser.run(
            "[...document.querySelectorAll('li .n')].map(n => n.textContent)"
        )
        assert float(percents[0].split("\xa0")[0]) == pytest.approx(
            100 * expected.probabilities[0], abs=0.1
        )
        widths = browser.run(
            "[...document.querySelectorAll('.bar')].map((b) =>"
            "b.offsetWidth / b.parentNode.offsetWidth)"
        )
        # Whole pixels of a bar of hundreds.
        assert widths == pytest.approx(list(expected.probabilities), abs=0.01)
        assert re.fullmatch(
            r"Predicted in [\d.]+ m?s\.", browser.run(state("state"))
        )
        browser.wait(
            "[...document.querySelectorAll('#neighbours img')].filter("
            "(i) => i.complete && i.naturalWidth).length === 5"
        )
        assert "train/<b>" in browser.run(state("neighbours"))
        # An error takes its place, and a paste that of the error.
        browser.give("drop", b"nothing")
        browser.wait(f"{state('error')}.includes('not an image')")
        assert browser.run("document.querySelectorAll('li').length") == 0
        assert browser.run("document.getElementById('nearest').hidden")
        browser.give("paste", content)
        browser.wait("document.querySelectorAll('li').length === 5")
        assert browser.run(state("error")) == ""
        browser.give("drop", bytes(10**6 + 10**5))
        browser.wait(f"{state('error')}.includes('1.1 MB, more than 1')")
        # Picked.
        node = browser.call("DOM.getDocument")["root"]["nodeId"]
        found = browser.call("DOM.querySelector", nodeId=node, selector="#file")
        browser.call("DOM.setFileInputFiles", files=[stored.files[0]], **found)
        browser.wait("document.querySelectorAll('li').length === 5")
        assert "cosine 1.000" in browser.run(state("neighbours"))
        # That a request came back with an error is no fault of the script.
        faults = [s for s in browser.said if '"source": "network"' not in s]
        assert faults == []
    finally:
        browser.close()
