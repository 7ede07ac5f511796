"""Records of what a browser asked for, from the events by which it tells."""

from anyorder_jax.environments.web.har import Recorder


def event(name, number="1", **content):
    return f"Network.{name}", {"requestId": number, "timestamp": 1.0, **content}


def asked(url, number="1", method="GET", **more):
    request = {"url": url, "method": method, "headers": {"Accept": "text/html"}, **more.pop("request", {})}
    return event("requestWillBeSent", number, request=request, wallTime=1e9, type="Document", **more)


def test_headers_come_before_a_request_or_after_it():
    headers = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Cookie": "a=1; b=2"}
    sent = event("requestWillBeSentExtraInfo", headers=headers)
    told = event("responseReceivedExtraInfo", statusCode=200, headers={"Set-Cookie": "c=3; Path=/\nd=4"})
    response = {"status": 200, "headers": {}, "mimeType": "text/html"}
    answer = event("responseReceived", response=response, hasExtraInfo=True)
    for order in ((sent, asked("http://a/x?q=1"), told, answer), (asked("http://a/x?q=1"), answer, sent, told)):
        recorder = Recorder(lambda *_: None)
        for one in (*order, event("loadingFinished", timestamp=1.5)):
            recorder.take(*one)
        (entry,) = recorder.entries()
        assert {"name": "Sec-Fetch-Mode", "value": "navigate"} in entry["request"]["headers"]
        assert entry["request"]["cookies"] == [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]
        assert entry["response"]["cookies"] == [{"name": "c", "value": "3"}, {"name": "d", "value": "4"}]
        assert entry["request"]["queryString"] == [{"name": "q", "value": "1"}]
        assert (entry["time"], entry["startedDateTime"]) == (500.0, "2001-09-09T01:46:40.000Z")
        assert not recorder.is_waiting


def test_each_redirection_is_an_entry_with_its_own_headers():
    recorder = Recorder(lambda *_: None)
    moved = {"status": 302, "headers": {"Location": "/y"}, "mimeType": ""}
    form = {"postData": "k=v", "headers": {"Content-Type": "application/x-www-form-urlencoded"}}
    for one in (
        asked("http://a/x", method="POST", request=form),
        event("requestWillBeSentExtraInfo", headers={"Referer": "first"}),
        event("responseReceivedExtraInfo", statusCode=302, headers={"Location": "/y"}),
        asked("http://a/y", redirectResponse=moved, redirectHasExtraInfo=True),
        event("requestWillBeSentExtraInfo", headers={"Referer": "second"}),
        asked("data:text/html,x", "2"),
    ):
        recorder.take(*one)
    assert recorder.is_waiting
    recorder.take(*event("loadingFailed", errorText="net::ERR_ABORTED"))
    first, second = recorder.entries()
    assert (first["response"]["status"], first["response"]["redirectURL"]) == (302, "http://a/y")
    assert first["request"]["postData"] == {"mimeType": "application/x-www-form-urlencoded", "text": "k=v"}
    assert [e["request"]["headers"][-1]["value"] for e in (first, second)] == ["first", "second"]
    assert second["response"]["status"] == 0 and second["response"]["statusText"] == "net::ERR_ABORTED"


def test_bodies_are_asked_for_and_waited_for():
    questions = []
    recorder = Recorder(lambda *question: questions.append(question))
    recorder.take(*asked("http://a/api", method="PUT", request={"hasPostData": True}))
    recorder.take(*event("responseReceived", response={"status": 200, "headers": {}, "mimeType": "application/json"}))
    recorder.take(*event("loadingFinished"))
    assert [question[0] for question in questions] == ["Network.getRequestPostData", "Network.getResponseBody"]
    assert recorder.is_waiting
    questions[0][2]({"postData": "sent"})
    questions[1][2]({"body": "eyJhIjogMX0=", "base64Encoded": True})
    assert not recorder.is_waiting
    (entry,) = recorder.entries()
    assert (entry["request"]["postData"]["text"], entry["response"]["content"]["text"]) == ("sent", '{"a": 1}')
    recorder.clear()
    questions[1][2]({})  # an answer to what was forgotten
    assert recorder.entries() == [] and not recorder.is_waiting
