"""All that this application has to say to Beseda, and the tokens that it issues."""

import json
import time
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

import jwt
from django.conf import settings

# A token that got lost does no harm for longer than this. The page gets the next one by itself.
TOKEN_SECONDS = 600
# For each attempt. A request waits here, so it is short.
TIMEOUT_SECONDS = 5
# In all; between two of them there is a pause.
ATTEMPTS = 3


class BesedaError(Exception):
    """Beseda refused, or could not be reached: then `code` is `unavailable`."""

    def __init__(self, code, detail):
        super().__init__(f"{code}: {detail}")
        self.code = code


def user_id(user):
    """Who somebody is in Beseda, for ever: nothing that changes, nothing that is given out twice."""
    return str(user.public_id)


def user_token(user):
    """A token for this user's browser."""
    return _sign(user_id(user), TOKEN_SECONDS, name=user.get_full_name() or user.username)


def name_user(user):
    """Tells Beseda of a user, or of their new name."""
    _call("PUT", f"/users/{_path(user)}/", {"name": user.get_full_name() or user.username})


def name_users(users):
    """The same for up to 1,000 users at once."""
    _call("POST", "/users/", {"users": [
        {"user_id": user_id(user), "name": user.get_full_name() or user.username} for user in users
    ]})


def open_chat(first, second):
    """The chat of two users, a new one if need be: its `chat_id`."""
    return _call("POST", "/chats/", {"user_ids": [user_id(first), user_id(second)]})["chat_id"]


def revoke_tokens(user):
    """All tokens issued so far are void, and the sockets opened with them close."""
    _call("POST", f"/users/{_path(user)}/revoke_tokens/")


def erase_user(user):
    """The user's texts are gone when this returns."""
    try:
        _call("DELETE", f"/users/{_path(user)}/")
    except BesedaError as error:
        # Never named and never there: nothing to erase.
        if error.code != "user_not_found":
            raise


def _path(user):
    return quote(user_id(user), safe="")


def _sign(subject, seconds, **claims):
    # With its fraction of a second, so that a token issued right after a revocation is a new one.
    now = time.time()
    claims |= {"sub": subject, "iat": now, "exp": now + seconds}
    return jwt.encode(claims, settings.BESEDA_SECRET, algorithm="HS256")


def _call(method, path, body=None):
    """Calls Beseda as the application itself. Every call made here can be repeated without harm."""
    request = Request(
        f"{settings.BESEDA_URL}/api/v1{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {_sign('shop', 60, scope='chat:admin')}",
                 "Content-Type": "application/json"},
    )
    for attempt in range(1, ATTEMPTS + 1):
        pause = attempt * 0.2  # seconds
        try:
            with urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                return json.loads(answer.read() or b"null")
        except HTTPError as failure:
            problem = _problem(failure)
            error = BesedaError(problem.get("code", "unknown"), problem.get("detail", failure.reason))
            if failure.code not in (429, 502, 503, 504):
                raise error from None
            pause = min(problem.get("retry_after_ms", 0) / 1000, 2) or pause
        except (URLError, OSError) as failure:
            error = BesedaError("unavailable", str(failure))
        if attempt < ATTEMPTS:
            time.sleep(pause)
    raise error


def _problem(failure):
    """Beseda answers failures as JSON; a balancer in front of it may not."""
    try:
        return json.loads(failure.read())
    except ValueError:
        return {}
