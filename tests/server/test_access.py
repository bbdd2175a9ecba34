import httpx
import pytest
from running import MODEL, running

from milepost.errors import ConfigurationError
from milepost.server.access import Access
from milepost.server.settings import ServeSettings

KEYS = ("first-key-of-all", "second-key-of-all")
LONG = "Speak, friend, and enter. " * 40


def settings(**options):
    return ServeSettings.checked(model_name=MODEL, **options)


@pytest.fixture(scope="module")
def guarded():
    with running(api_keys=KEYS, salt_by_key=True) as server:
        yield server


def post(server, **headers):
    body = {"model": MODEL, "prompt": LONG, "max_tokens": 2}
    return httpx.post(f"{server.url}/v1/completions", json=body, headers=headers)


def test_only_who_has_a_key_is_let_in(guarded):
    assert post(guarded).status_code == 401
    wrong = post(guarded, Authorization="Bearer first-key-of-al")
    assert wrong.status_code == 401
    assert wrong.json()["error"]["code"] == "invalid_api_key"
    assert wrong.headers["www-authenticate"] == "Bearer"
    assert "first-key" not in wrong.text
    assert post(guarded, Authorization=f"Bearer {KEYS[0]}").status_code == 200
    assert post(guarded, **{"x-api-key": KEYS[1]}).status_code == 200


def test_what_one_key_left_is_no_other_keys(guarded):
    def cached(key):
        usage = post(guarded, Authorization=f"Bearer {key}").json()["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    cached(KEYS[0])
    assert cached(KEYS[0]) > 500
    guarded.engine.cache.check()
    tenants = guarded.engine.cache._store.tree.tenants()
    assert not any(key in tenant for tenant in tenants for key in KEYS), "keys are kept nowhere"


def test_keys_that_are_not_kept_apart_share():
    access = Access(settings(api_keys=KEYS))
    tenants = {access.caller({"x-api-key": key}).tenant(None) for key in KEYS}
    assert tenants == {""}


def test_no_salt_can_pass_for_another_keys_part():
    access = Access(settings(api_keys=KEYS, salt_by_key=True))
    one, other = (access.caller({"x-api-key": key}) for key in KEYS)
    named = {one.tenant(None), other.tenant(None), one.tenant(other.salt), other.tenant(one.salt)}
    open_server = Access(settings()).caller({})
    named |= {open_server.tenant(one.tenant(None)), open_server.tenant(one.salt)}
    assert len(named) == 6


def test_the_operators_key_is_no_clients():
    access = Access(settings(api_keys=KEYS, operator_key="key-of-the-operator"))
    access.require_operator({"authorization": "Bearer key-of-the-operator"})
    with pytest.raises(Exception, match="operator"):
        access.require_operator({"authorization": f"Bearer {KEYS[0]}"})
    with pytest.raises(Exception, match="no API key"):
        access.caller({"authorization": "Bearer key-of-the-operator"})
    with pytest.raises(Exception, match="--operator-key"):
        Access(settings(api_keys=KEYS)).require_operator({"x-api-key": KEYS[0]})
    Access(settings()).require_operator({})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": "0.0.0.0"}, "--api-key-file"),
        ({"host": "example.org"}, "other machines"),
        ({"salt_by_key": True}, "there are none"),
        ({"api_keys": ["short"]}, "8 are the least"),
        ({"api_keys": ["with a space in it"]}, "no header carries"),
        ({"api_keys": KEYS, "operator_key": KEYS[0]}, "one of its own"),
        ({"port": 70_000}, "port"),
        ({"max_queue": -1}, "max_queue"),
        ({"max_body": "much"}, "much"),
        ({"aliases": [" "]}, "empty"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options, said):
    with pytest.raises(ConfigurationError, match=said):
        settings(**options)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.9.1"])
def test_this_machine_needs_no_key(host):
    assert settings(host=host).is_loopback
    assert not settings(host="0.0.0.0", api_keys=KEYS).is_loopback


def test_a_page_whose_name_points_here_is_no_client():
    with running() as server:
        answer = httpx.get(f"{server.url}/v1/models", headers={"Host": "evil.example"})
        assert answer.status_code == 400
        assert httpx.get(f"{server.url}/v1/models").status_code == 200
