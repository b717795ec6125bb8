"""Who may write in a WebUI: visitors on this computer, unless strangers could look like them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lib_toolkit.hosts.host import LOCAL_VISITOR, Visitor
from tests.fakehost.flavours import FLAVOURS

EVERY = pytest.mark.parametrize("flavour", FLAVOURS)
REMOTE = Visitor("192.168.1.7", "192.168.1.2:7860", False)


@EVERY
def test_who_is_not_on_this_computer_may_not_write(flavour, plant):
    _, host = plant(flavour)
    assert host.write_refusal(LOCAL_VISITOR) is None
    told = host.write_refusal(REMOTE)
    assert told is not None
    assert "--toolkit-allow-remote-writes" in told
    assert told.endswith(".")


LOCAL = [
    Visitor("127.0.0.1", "127.0.0.1:7860", False),
    Visitor("127.0.0.9", "localhost:7860", False, "http://localhost:7860"),
    Visitor("::1", "[::1]:7860", False),
    Visitor("::ffff:127.0.0.1", "LOCALHOST", False),
]
STRANGE = [
    Visitor("", "localhost", False),
    Visitor("testclient", "localhost", False),
    Visitor("10.0.0.5", "localhost:7860", False),
    Visitor("::ffff:10.0.0.5", "localhost", False),
    Visitor("127.0.0.1", "localhost", True),
    Visitor("127.0.0.1", "rebound.example:7860", False),
    Visitor("127.0.0.1", "localhost.evil.example", False),
    Visitor("127.0.0.1", "", False),
    Visitor("127.0.0.1", "127.0.0.1:7860", False, "https://evil.example"),
    Visitor("127.0.0.1", "127.0.0.1:7860", False, "http://127.0.0.1:8080"),
    Visitor("127.0.0.1", "127.0.0.1:7860", False, "null"),
]


@pytest.mark.parametrize("visitor", LOCAL, ids=str)
def test_visitors_on_this_computer(visitor, plant):
    _, host = plant("a1111", "--listen")
    assert host.write_refusal(visitor) is None


@pytest.mark.parametrize("visitor", STRANGE, ids=str)
def test_visitors_from_elsewhere(visitor, plant):
    _, host = plant("a1111")
    assert "another computer" in host.write_refusal(visitor)


@EVERY
@pytest.mark.parametrize(
    "flags", [["--share"], ["--ngrok", "token"], ["--ngrok-options", '{"a": 1}'], ["--subpath", "x"]]
)
def test_through_a_tunnel_everybody_looks_local_so_nobody_may_write(flavour, flags, plant):
    _, host = plant(flavour, *flags)
    assert "tunnel" in host.write_refusal(LOCAL_VISITOR)


def test_a_tunnel_that_the_page_itself_opened_counts(plant):
    fake, host = plant("forge")
    fake.shared.demo = SimpleNamespace(share_url=None, root_path="")
    assert host.write_refusal(LOCAL_VISITOR) is None
    fake.shared.demo = SimpleNamespace(share_url="https://abc.gradio.live", root_path="")
    assert "tunnel" in host.write_refusal(LOCAL_VISITOR)


@EVERY
def test_the_flag_lets_everybody_write(flavour, plant):
    fake, host = plant(flavour, "--share")
    fake.cmd_opts.toolkit_allow_remote_writes = True
    assert host.write_refusal(REMOTE) is None


@pytest.mark.parametrize("header", ["X-Forwarded-For", "x-real-ip", "Forwarded", "CF-Connecting-IP", "Via"])
def test_a_request_through_a_proxy_is_known_by_its_headers(header):
    assert Visitor.of("127.0.0.1", {"Host": "localhost"}).is_local
    assert not Visitor.of("127.0.0.1", {"host": "localhost", header: "127.0.0.1"}).is_local


def test_a_request_without_a_client_is_nobody_in_particular():
    assert Visitor.of(None, {}) == Visitor("", "", False)
    assert not Visitor.of(None, {}).is_local
